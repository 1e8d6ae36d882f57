"""How fast EGTP is, beside what a Python programmer could pick instead. See docs/benchmarks.md."""
