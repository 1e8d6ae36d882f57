"""Finding the nodes closest to a key, and storing on them."""
