"""A session over a route, and what queues on it (pure)."""
