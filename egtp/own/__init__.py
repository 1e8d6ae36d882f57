"""What a node learns about itself, and tells others."""
