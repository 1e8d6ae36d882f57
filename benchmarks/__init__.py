"""How fast EGTP is, compared with what one could pick instead in Python. See docs/benchmarks.md."""
