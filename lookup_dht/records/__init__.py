"""The records that a node keeps for others."""
