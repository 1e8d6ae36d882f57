"""What is signed, sent and said (pure)."""
