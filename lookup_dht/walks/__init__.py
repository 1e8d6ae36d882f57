"""Finding the nodes closest to a key, and storing records on them."""
