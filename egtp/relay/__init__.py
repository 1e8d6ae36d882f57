"""Being a relay, listening at one, and sending through one (R13, R14)."""
