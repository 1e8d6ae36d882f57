"""Lookups: shared searches and cached answers, never older than one given before."""
