"""The values that nodes sign, send and report (pure)."""
