"""What a node keeps between two runs, and whom it joins through."""
