"""Whole networks with liars in them: what is promised holds, in bounded time and traffic."""

from __future__ import annotations

import asyncio

from tests.lookup_dht.liars import Liars
from tests.lookup_dht.town import Town, tell


def test_a_fifth_of_liars_about_addresses_has_nobody_change_its_id() -> None:
    """They all tell whoever asks the same wrong address. An id that fits that one, and not where
    the node is, would have nobody list the node."""

    async def story(town: Town) -> None:
        for number in range(60):
            town.add(f"{130 + number % 40}.{number}.0.1")
            if number >= 3:
                await town.everywhere(number, [f"{it.addresses[0]}:9000" for it in town.hosts[:3]])
            else:
                await town.hosts[number].run(town.nodes[number].start())
        await asyncio.sleep(120)
        ids = [node.node_id for node in town.nodes]
        liars = Liars(town)
        liars.observed = bytes((77, 1, 1, 1, 0x23, 0x28))
        await liars.settle(15)
        await asyncio.sleep(300)
        assert [node.node_id for node in town.nodes] == ids

    tell(story)
