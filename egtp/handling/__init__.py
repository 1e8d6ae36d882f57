"""Runs the handlers of an application."""
