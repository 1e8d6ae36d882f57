"""The datagram protocol of a node: answering queries, and sending its own."""
