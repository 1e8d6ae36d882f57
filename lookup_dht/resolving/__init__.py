"""Answers of the DHT, shared and cached, never backward."""
