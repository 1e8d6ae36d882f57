"""The EGTP Lookup Service over Kademlia: signed records in a hardened DHT.

``DHTLookup`` is the lookup service to give to a node; ``python -m lookup_dht`` runs a DHT node for
others to join through. Both build on the ``kademlia`` package, which only the modules named
``kademlia_*`` import. They replace the parts of it that do not withstand a hostile network: its
datagram path, walk, table and refresh.
"""

from lookup_dht.kept_state import KeptState
from lookup_dht.names import system_names
from lookup_dht.service import DHTLookup
from lookup_dht.settings import DHTLimits
from lookup_dht.state.state_file import NodeState

__all__ = ["DHTLimits", "DHTLookup", "KeptState", "NodeState", "system_names"]
