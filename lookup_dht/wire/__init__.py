"""The wire format: datagrams, contacts and node ids."""
