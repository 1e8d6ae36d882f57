"""Limits: how much, how fast, how long (pure)."""
