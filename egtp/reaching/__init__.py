"""From a peerId to a path."""
