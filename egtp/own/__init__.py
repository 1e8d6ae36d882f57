"""What a node finds out about itself, and tells others."""
