"""Encryption and authentication (pure)."""
