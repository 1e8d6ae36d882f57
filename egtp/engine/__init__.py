"""The wiring of a node, and the parts of it that have an idea each."""
