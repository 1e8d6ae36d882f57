"""How much, how fast, how long (pure)."""
