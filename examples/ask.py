"""Greet a peer, knowing only its peerId and the address of one DHT node.

python examples/ask.py PEERID IP:PORT [NAME]
"""

import asyncio
import os
import sys

from egtp import EgtpError, FastFail, Identity, Node, NodeConfig, NodeId
from lookup_dht import DHTLookup


async def main(peer_id: NodeId, bootstrap: str, name: str) -> None:
    lookup = DHTLookup(bootstrap=[bootstrap], server=False, private_addresses=True)
    config = NodeConfig(private_addresses=True)
    node = Node(Identity.generate(os.urandom), lookup=lookup, config=config)
    async with lookup, node:
        try:
            reply = await node.query(peer_id, "greet", name.encode(), hard_timeout_s=10)
        except FastFail as error:
            sys.exit(f"nothing left this machine: {error}")
        print(reply.decode())
        print(node.why(peer_id))


if len(sys.argv) < 3:
    sys.exit(__doc__)
try:
    asyncio.run(main(NodeId.parse(sys.argv[1]), sys.argv[2], *sys.argv[3:] or ["stranger"]))
except EgtpError as error:
    sys.exit(str(error))
