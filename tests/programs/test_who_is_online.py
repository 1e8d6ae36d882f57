"""The presence of examples/who_is_online.py, in virtual time: how soon it tells what happens."""

from __future__ import annotations

import asyncio
import contextlib
import runpy
from collections.abc import Iterator
from typing import Any

import pytest

from egtp import Environment, Identity, MemoryLookup, Node
from simulations.virtual import Host, Network, simulate
from tests.programs.at_hand import ROOT, run

Presence = runpy.run_path(str(ROOT / "examples" / "who_is_online.py"))["Presence"]


def test_the_example_tells_when_ben_comes_and_goes() -> None:
    done = run("-W", "error", "examples/who_is_online.py")
    assert (done.returncode, done.stderr) == (0, "")
    went_and_came = ["Ben is offline", "Ben is online"]
    assert done.stdout.splitlines() == [*went_and_came, *went_and_came, "Ben is offline"]


def node_on(host: Host, lookup: MemoryLookup, **options: Any) -> Node:
    return Node(
        Identity.generate(host.entropy),
        listen=f"{host.addresses[0]}:4000",
        lookup=lookup,
        environment=Environment(host.elapsed, host.unix_time, host.entropy),
        **options,
    )


@contextlib.contextmanager
def closed(_: Network, ben: Host, node: Node) -> Iterator[None]:
    ben.spawn(node.close())
    yield


@contextlib.contextmanager
def killed(_: Network, ben: Host, __: Node) -> Iterator[None]:
    ben.kill()
    yield


@contextlib.contextmanager
def without_power(_: Network, ben: Host, __: Node) -> Iterator[None]:
    ben.crash()
    yield


@contextlib.contextmanager
def asleep(_: Network, ben: Host, __: Node) -> Iterator[None]:
    ben.sleep()
    yield
    ben.wake()


@contextlib.contextmanager
def cut_off(network: Network, ben: Host, _: Node) -> Iterator[None]:
    with network.partition([ben], [network.hosts["ann"]]):
        yield


@pytest.mark.parametrize(
    ("happens", "gone_s", "back_s"),
    [
        (closed, 1, None),
        (killed, 1, None),
        (without_power, 66, None),
        (asleep, 66, 66),
        (cut_off, 66, 66),
    ],
)
def test_what_happens_to_a_peer_is_told(happens: Any, gone_s: float, back_s: float | None) -> None:
    async def story(network: Network) -> None:
        lookup = MemoryLookup(network.story.unix_time)
        ann, ben = network.host("ann", "5.1.0.1"), network.host("ben", "6.1.0.1")
        told: asyncio.Queue[bool] = asyncio.Queue()
        presence = Presence(lambda _, is_there: told.put_nowait(is_there))
        there, here = node_on(ben, lookup), node_on(ann, lookup, observer=presence.observe)
        await ben.run(there.start())
        await ann.run(here.start())
        ann.spawn(presence.watch(here, there.node_id))
        assert await told.get() is True
        await asyncio.sleep(617)
        assert told.empty()
        with happens(network, ben, there):
            async with asyncio.timeout(gone_s):
                assert await told.get() is False
            await asyncio.sleep(617)
            assert told.empty()
        if back_s is not None:
            async with asyncio.timeout(back_s):
                assert await told.get() is True

    simulate(story, seed=1)
