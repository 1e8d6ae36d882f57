"""What tests of programs share."""

HANGS_S = 60.0
"""What takes so long hangs. Each process starts an interpreter, some at a time, on any machine."""
