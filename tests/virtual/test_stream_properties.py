"""Whatever happens to two machines that have a connection, each of them is told the truth."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from simulations.virtual import Fault, Host, Link, Network, run_in
from simulations.virtual.outflow import GIVE_UP_S

ADDRESSES = ("192.0.2.1", "198.51.100.1")
LIFE = re.compile(r"M[DPR]*(E[PR]*)?L?")
PAUSES_S = (0.0, 0.001, 0.02, 0.3, 5.0, 200.0, 2_000.0)
SIZES = (1, 100, 70_000, 300_000, 600_000)
SETTLED_S = 4_000.0
"""Longer than any kernel goes on trying."""

whose = st.sampled_from([0, 1])
actions = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from(PAUSES_S)),
    st.tuples(st.just("write"), whose, st.sampled_from(SIZES)),
    *(
        st.tuples(st.just(what), whose)
        for what in ("write_eof", "close", "abort", "pause", "resume", "cut", "heal")
    ),
    *(
        st.tuples(st.just(what), whose)
        for what in ("sleep", "wake", "kill", "crash", "restart", "move")
    ),
)
links = st.builds(Link, latency=st.sampled_from([0.0, 0.01, 2.0]), loss=st.sampled_from([0.0, 0.2]))


class Peer:
    """One machine, its end of the connection, and what it did with it."""

    def __init__(self, host: Host, side: Any) -> None:
        self.host = host
        self.side = side
        self.sent = bytearray()
        self.is_dead = False
        """The program that had the connection is no more."""
        self.said_all = False
        self.did: set[str] = set()

    @property
    def is_at_it(self) -> bool:
        return not self.is_dead and not self.host.is_asleep and not self.side.is_lost

    def write(self, size: int) -> None:
        if self.is_at_it and not self.said_all:
            data = self.host.entropy(size)
            self.side.write(data)
            self.sent += data


class Conversation:
    def __init__(self, network: Network, one: Peer, other: Peer) -> None:
        self.network = network
        self.peers = (one, other)
        self.faults: list[Fault] = []
        self.moves = 0

    async def act(self, what: str, who: float, size: int = 0) -> None:
        if what == "wait":
            await asyncio.sleep(who)
            return
        peer = self.peers[int(who)]
        if what == "write":
            peer.write(size)
        elif what in {"write_eof", "close", "abort", "pause", "resume"}:
            if peer.is_at_it:
                self.call(peer, what)
        else:
            self.happen(peer, what)

    def call(self, peer: Peer, what: str) -> None:
        names = {"pause": "pause_reading", "resume": "resume_reading"}
        getattr(peer.side.transport, names.get(what, what))()
        peer.did.add(what)
        peer.said_all |= what in {"write_eof", "close", "abort"}

    def happen(self, peer: Peer, what: str) -> None:
        host = peer.host
        (other,) = {*self.peers} - {peer}
        possible = {
            "cut": True,
            "heal": bool(self.faults),
            "sleep": host.is_up and not host.is_asleep,
            "wake": host.is_asleep,
            "kill": host.is_up,
            "crash": host.is_up,
            "restart": not host.is_up,
            "move": True,
        }
        if not possible[what]:
            return
        if what == "cut":
            self.faults.append(self.network.partition([host], [other.host], one_way=True))
        elif what == "heal":
            self.faults.pop().heal()
        elif what == "move":
            self.moves += 1
            host.change_ip(f"203.0.113.{self.moves}")
        else:
            getattr(host, what)()
            peer.is_dead |= what in {"kill", "crash"}

    def all_is_well(self) -> None:
        for fault in self.faults:
            fault.heal()
        for peer in self.peers:
            if peer.host.is_asleep:
                peer.host.wake()
            if not peer.host.is_up:
                peer.host.restart()
            if not peer.is_dead:
                peer.side.transport.resume_reading()

    # What has to be true

    def nobody_was_told_nonsense(self) -> None:
        for peer, other in (self.peers, self.peers[::-1]):
            assert LIFE.fullmatch(peer.side.calls), peer.side.calls
            assert bytes(other.sent).startswith(peer.side.received)

    def nothing_is_missing(self) -> None:
        """If nobody ended anything, and no kernel had to give up."""
        for peer, other in (self.peers, self.peers[::-1]):
            assert peer.side.calls.count("L") == 0
            assert peer.side.received == other.sent

    def what_was_said_before_the_end_was_heard(self) -> None:
        for peer, other in (self.peers, self.peers[::-1]):
            broke_off = other.is_dead or "abort" in other.did
            if not broke_off and not peer.did & {"close", "abort"} and "E" in peer.side.calls:
                assert peer.side.received == other.sent

    def who_writes_finds_out(self) -> None:
        for peer, other in (self.peers, self.peers[::-1]):
            if other.is_dead and not peer.is_dead and not peer.said_all:
                assert peer.side.is_lost

    def nothing_is_left(self) -> None:
        for peer in self.peers:
            assert peer.is_dead or peer.side.calls.endswith("L"), peer.side.calls
            assert not peer.host.streams


@given(st.lists(actions, max_size=20), links, st.integers(0, 99))
# Each of these was once not true.
@example([("write", 1, 300_000), ("crash", 0), ("restart", 0)], Link(), 0)
@example([("write", 1, 600_000), ("pause", 0), ("wait", 5.0), ("crash", 0)], Link(), 0)
@example([("cut", 0), ("write", 0, 100), ("crash", 0), ("restart", 0), ("heal", 0)], Link(), 0)
@example([("write", 0, 600_000), ("write_eof", 0), ("abort", 0)], Link(), 0)
@example([("pause", 1), ("write_eof", 1), ("wait", 0.3), ("close", 1)], Link(), 0)
@example([("cut", 0), ("write_eof", 0), ("wait", 2_000.0), ("close", 1)], Link(), 0)
@example([("sleep", 0), ("write_eof", 1), ("wait", 2_000.0)], Link(), 0)
@example([("write_eof", 1), ("cut", 0), ("wait", 0.3), ("crash", 0), ("close", 1)], Link(), 0)
@example([("write", 1, 600_000), ("pause", 1), ("abort", 0), ("wait", 5.0)], Link(), 0)
def test_a_connection_survives_or_is_lost_but_lies_to_nobody(
    programs: Any, acts: list[tuple[Any, ...]], link: Link, seed: int
) -> None:
    async def story(network: Network) -> None:
        hosts = [network.host(name, ip) for name, ip in zip("ab", ADDRESSES, strict=True)]
        sides = await programs.connected(*hosts)
        tale = Conversation(network, *map(Peer, hosts, sides))
        began_s = network.loop.now
        for what, who, *rest in acts:
            await tale.act(what, who, *rest)
        took_s = network.loop.now - began_s
        tale.all_is_well()
        await asyncio.sleep(SETTLED_S)
        tale.nobody_was_told_nonsense()
        done = {what for what, *_ in acts}
        tale.what_was_said_before_the_end_was_heard()
        ending = {"write_eof", "close", "abort", "kill", "crash", "move"}
        if not done & ending and took_s < GIVE_UP_S - 100:
            tale.nothing_is_missing()
        for _ in range(3):
            for peer in tale.peers:
                peer.write(1)
            await asyncio.sleep(SETTLED_S)
        if "move" not in done:
            tale.who_writes_finds_out()
        for peer, end in zip(tale.peers, ("close", "abort"), strict=True):
            if peer.is_at_it:
                tale.call(peer, end)
        await asyncio.sleep(SETTLED_S)
        tale.nobody_was_told_nonsense()
        tale.nothing_is_left()

    network = Network(seed, link=link)
    run_in(network, story(network))
