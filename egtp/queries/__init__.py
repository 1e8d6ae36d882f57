"""Messages and their replies, each query run at most once (pure)."""
