"""Connections: opened, accepted, kept, throttled and closed (R16, R18, R19)."""
