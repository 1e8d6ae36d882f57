"""Large bodies on slow lines: they arrive, and small ones beside them, too. In virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import suppress

import pytest

from egtp import HardTimeout, Incoming, Node
from egtp.queries.large_message import LargeMessage
from simulations.virtual import Link, Uniform
from tests.lab import Lab, in_lab
from tests.node.at_hand import engine_of


async def pair(lab: Lab, *, relayed: bool) -> tuple[Node, Node]:
    """Who asks, and who answers."""
    asked = await (lab.hidden(await lab.node(relay_server=True)) if relayed else lab.node())
    asker = await lab.node(listens=False)
    await lab.query(asker, asked.node_id)
    return asker, asked


@pytest.mark.parametrize("relayed", [False, True])
def test_a_body_arrives_on_a_line_that_is_busy_with_a_chunk_for_seconds(*, relayed: bool) -> None:
    """3 kB/s. What was under way at a time was once believed to be lost, and more was sent."""

    async def story(lab: Lab) -> None:
        asker, asked = await pair(lab, relayed=relayed)
        for node in (asker, asked):
            lab.hosts[node].degrade(Link(latency=0.1, bandwidth_bytes_per_s=3000))
        body = bytes(100_000)
        began_s = lab.now_s
        assert await lab.query(asker, asked.node_id, body=body, hard_timeout_s=600) == body
        assert lab.now_s - began_s < 1.5 * 2 * len(body) / 3000
        assert asker.counters["path given up: silent"] == 0
        assert asked.counters["path given up: silent"] == 0

    in_lab(Lab, story)


@pytest.mark.parametrize("relayed", [False, True])
def test_small_queries_beside_a_body_do_not_wait_for_it_on_a_slow_line(*, relayed: bool) -> None:
    async def story(lab: Lab) -> None:
        asker, asked = await pair(lab, relayed=relayed)
        for node in (asker, asked):
            lab.hosts[node].degrade(Link(latency=0.02, bandwidth_bytes_per_s=10_000))
        large = asyncio.ensure_future(
            lab.query(asker, asked.node_id, body=bytes(200_000), hard_timeout_s=120)
        )
        await asyncio.sleep(0.1)
        waits = []
        while not large.done():
            began_s = lab.now_s
            await lab.query(asker, asked.node_id, hard_timeout_s=60)
            waits.append(lab.now_s - began_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(large), 0.5)
        assert max(waits) < 6
        assert sorted(waits)[len(waits) // 2] < 2.5
        assert await large == bytes(200_000)

    in_lab(Lab, story)


def test_a_line_that_loses_packets_carries_as_much_as_it_did_before() -> None:
    """Five in a hundred, 2 MB/s: TCP alone takes several seconds."""

    async def story(lab: Lab) -> None:
        asker, asked = await pair(lab, relayed=False)
        wifi = Link(latency=Uniform(0.005, 0.05), loss=0.05, bandwidth_bytes_per_s=2_000_000)
        lab.hosts[asker].degrade(wifi)
        body = bytes(3_000_000)
        assert await lab.query(asker, asked.node_id, body=body, hard_timeout_s=25) == body

    in_lab(Lab, story)


@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("gives_up", ["when time is up", "when it is cancelled"])
def test_a_reply_that_its_asker_gave_up_leaves_the_line_to_the_next(
    gives_up: str, *, relayed: bool
) -> None:
    """All of it was sent to the end, beside whatever was asked next: who fetches pieces, and asks
    again for those that are late, got fewer and fewer through."""

    async def story(lab: Lab) -> None:
        asker, asked = await pair(lab, relayed=relayed)

        async def give(query: Incoming) -> bytes:
            return bytes(int(query.body))

        asked.handle("give", give, idempotent=True)
        lab.hosts[asked].degrade(Link(latency=0.05, bandwidth_bytes_per_s=20_000))
        late = await lab.open_query(asker, asked.node_id, "give", b"1000000", hard_timeout_s=10)
        if gives_up == "when time is up":
            with pytest.raises(HardTimeout):
                await late
        else:
            await asyncio.sleep(10)
            late.cancel()
        began_s = lab.now_s
        await lab.query(asker, asked.node_id, "give", b"200000", hard_timeout_s=60)
        assert lab.now_s - began_s < 1.3 * 200_000 / 20_000
        assert asked.counters["reply cut off: its asker gave up"] == 1

    in_lab(Lab, story)


@pytest.mark.parametrize("noticed_by", ["the asker", "the asker of a hidden peer", "the other"])
def test_large_replies_that_were_under_way_come_by_the_next_path_though_none_was_kept(
    noticed_by: str,
) -> None:
    """More of them than are kept for one asker. As soon as their path was replaced, most of those
    queries ended as "ran, reply gone", while all of the replies waited."""

    async def story(lab: Lab) -> None:
        asker, asked = await pair(lab, relayed="hidden" in noticed_by)
        if noticed_by == "the other":
            asker, asked = asked, asker  # so it is the other who can dial
        ran: Counter[bytes] = Counter()

        async def give(query: Incoming) -> bytes:
            ran[query.body] += 1
            return bytes(1_000_000)

        asked.handle("give", give)
        for node in (asker, asked):
            lab.hosts[node].degrade(Link(latency=0.02, bandwidth_bytes_per_s=1_000_000))
        pieces = [
            await lab.open_query(asker, asked.node_id, "give", b"%d" % number, hard_timeout_s=60)
            for number in range(16)
        ]
        await asyncio.sleep(2)
        others = [host for host in lab.network.hosts.values() if host is not lab.hosts[asked]]
        with lab.network.partition([lab.hosts[asked]], others):
            small = await lab.open_query(asked, asker.node_id, "echo", b"x")
            await asyncio.sleep(3.5)
        assert set(await asyncio.gather(*pieces)) == {bytes(1_000_000)}
        assert set(ran.values()) == {1}
        assert await small == b"x"

    in_lab(Lab, story)


@pytest.mark.reaches_in
def test_nothing_more_is_held_of_replies_that_came_by_the_next_path() -> None:
    """Whoever never says that it has them could fill the memory, one connection after another."""

    async def story(lab: Lab) -> None:
        asker, asked = await pair(lab, relayed=False)

        async def give(_: Incoming) -> bytes:
            return bytes(1_000_000)

        asked.handle("give", give)
        engine_of(asker).settled = lambda _: 0
        for node in (asker, asked):
            lab.hosts[node].degrade(Link(latency=0.02, bandwidth_bytes_per_s=1_000_000))
        pieces = [
            await lab.open_query(asker, asked.node_id, "give", hard_timeout_s=60) for _ in range(16)
        ]
        await asyncio.sleep(2)
        with lab.network.partition([lab.hosts[asked]], [lab.hosts[asker]]):
            small = await lab.open_query(asked, asker.node_id, "echo", b"x")
            await asyncio.sleep(3.5)
        assert set(await asyncio.gather(*pieces)) == {bytes(1_000_000)}
        assert await small == b"x"
        assert engine_of(asked).book.find(asker.node_id).best_path.moved
        del pieces, small
        gc.collect()
        held = sum(type(it) is LargeMessage for it in gc.get_objects())
        assert held <= 4, "as many as are kept for one asker"

    in_lab(Lab, story)


def test_large_replies_that_were_given_up_meanwhile_do_not_come_by_the_next_path() -> None:
    async def story(lab: Lab) -> None:
        asked, asker = await pair(lab, relayed=False)

        async def give(query: Incoming) -> bytes:
            return bytes(int(query.body))

        asked.handle("give", give)
        for node in (asker, asked):
            lab.hosts[node].degrade(Link(latency=0.02, bandwidth_bytes_per_s=1_000_000))
        pieces = [
            await lab.open_query(asker, asked.node_id, "give", b"1000000", hard_timeout_s=5)
            for _ in range(16)
        ]
        await asyncio.sleep(2)
        with lab.network.partition([lab.hosts[asked]], [lab.hosts[asker]]):
            small = await lab.open_query(asked, asker.node_id, "echo", b"x")
            await asyncio.sleep(3.5)
        assert await small == b"x"
        began_s = lab.now_s
        await lab.query(asker, asked.node_id, "give", b"500000")
        assert lab.now_s - began_s < 1.0
        assert all(isinstance(piece.exception(), HardTimeout) for piece in pieces)

    in_lab(Lab, story)
