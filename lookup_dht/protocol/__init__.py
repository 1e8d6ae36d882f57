"""From a datagram to its answer, and from a question to its reply."""
