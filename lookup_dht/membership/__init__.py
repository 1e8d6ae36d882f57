"""How a node comes into the network, and stays in it."""
