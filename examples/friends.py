"""Three peers without a DHT: Ben keeps Anna's record, and Carol finds Anna through him.

``python examples/friends.py``
"""

from __future__ import annotations

import asyncio
import os

from egtp import Friends, Identity, Incoming, Node, NodeConfig

CONFIG = NodeConfig(private_addresses=True)  # all three are on this machine
HERE = "127.0.0.1:0"


async def main() -> None:
    who = [Identity.generate(os.urandom) for _ in range(3)]
    anna_id, ben_id = who[0].node_id, who[1].node_id
    anna = Node(who[0], listen=HERE, config=CONFIG, friends=Friends(tell=[ben_id]))
    ben = Node(who[1], listen=HERE, config=CONFIG, friends=Friends(keep_for=[anna_id]))
    carol = Node(who[2], config=CONFIG, friends=Friends(friends_of={anna_id: [ben_id]}))

    @anna.handler("greet")
    async def greet(query: Incoming) -> bytes:
        return b"hello, " + query.body

    async with ben, anna, carol:
        # Both know Ben: everybody needs somebody to begin with.
        anna.add_contact(ben.link)
        carol.add_contact(ben.link)
        await anna.published()
        print((await carol.query(anna_id, "greet", b"Carol")).decode())
        await anna.move(HERE)  # to another port, as if it were another address
        await anna.published()
        print((await carol.query(anna_id, "greet", b"Carol, again")).decode())
        print(carol.why(anna_id))


if __name__ == "__main__":
    asyncio.run(main())
