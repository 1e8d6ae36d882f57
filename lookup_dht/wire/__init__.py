"""What is on the wire, and who is there."""
