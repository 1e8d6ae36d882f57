"""A message, its reply, and at most once (pure)."""
