"""The wiring of a node, and parts with one idea each."""
