"""The contacts that a node has."""
