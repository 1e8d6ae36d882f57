"""What a node keeps between runs, and the nodes that it joins through."""
