"""One module for each contestant, with its server and its client side."""
