"""The figures of the DHT: ours beside the unmodified ``kademlia`` package, in the same worlds.

``python -m benchmarks.dht --help``, from the root of the repository. ``docs/dht-figures.md`` has
the figures of one run, and what they mean.
"""
