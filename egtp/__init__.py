"""EGTP: reach a peer by its identity, wherever it is now."""

__version__ = "0.1.0"
