"""SmallWorld: two people, a relay or two, and Mallory on every line between them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from discovery import StaticDiscovery
from egtp import (
    EgtpError,
    Environment,
    Identity,
    Incoming,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
)
from egtp.discovery_service import Introduction
from egtp.events import Event, PathOpened
from egtp.queries.answer_limits import AnswerLimits
from egtp.values.comm_record import SignedCommRecord
from simulations.mallory.judge import Judge, Question
from simulations.mallory.line import Line
from simulations.mallory.relay import CrookedRelay
from simulations.mallory.sockets import OwnSockets
from simulations.mallory.xray import XRay, marked
from simulations.virtual import Host, Link, Network

__all__ = ["Conditions", "Party", "SmallWorld"]

PORT: Final = 4000
LARGE_BYTES: Final = 40_000
"""The size of a body that travels in chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditions of a small world."""

    bob_listens: bool = True
    alice_listens: bool = True
    relays: int = 0
    """How many relays there are; the first is Mallory's."""
    lookup: bool = True
    """Whether the two can look up newer records of each other than those given at the start."""
    bob_knows_alice: bool = True
    """If not, Bob learns about Alice only what she proves to him."""
    latency_s: float = 0.02
    tight: bool = False
    """Whether some tables and limits are small."""
    record_lifetime_s: float = 120.0
    """Records are signed anew at half of it, upon which idle askers are forgotten."""

    @classmethod
    def draw(cls, seed: int) -> Conditions:
        rng = random.Random(f"{seed}/mallory's world")
        relays = rng.choice((0, 1, 1, 2))
        return cls(
            bob_listens=relays == 0 or rng.random() < 0.5,
            alice_listens=rng.random() < 0.7,
            relays=relays,
            lookup=rng.random() < 0.7,
            bob_knows_alice=rng.random() < 0.5,
            latency_s=rng.choice((0.0005, 0.02, 0.02, 0.3)),
            tight=rng.random() < 0.3,
            record_lifetime_s=rng.choice((30.0, 120.0, 7200.0)),
        )

    def config(self) -> NodeConfig:
        answers = AnswerLimits()
        if self.tight:
            answers = AnswerLimits(askers_max=6, window=4, entries_max=8, bytes_max=64 * 1024)
        return NodeConfig(
            record_lifetime_s=self.record_lifetime_s,
            relays_wanted=2,
            relay_lease_s=20.0,
            answers=answers,
            open_queries_max=4 if self.tight else 4096,
            observe_address=False,
            lan_addresses=False,
        )


class Party:
    """A node and its machine, through all its incarnations."""

    def __init__(self, world: SmallWorld, name: str, address: str, *, listens: bool) -> None:
        self.world: Final = world
        self.name: Final = name
        self.host: Final[Host] = world.network.host(name, address)
        self.endpoint: Final = (address, PORT)
        self.identity: Final = Identity.generate(self.host.entropy)
        self.node_id: Final = self.identity.node_id
        self.listens: Final = listens
        self.started_s: Final[list[float]] = []
        self.knows: set[NodeId] = set()
        self.relay: CrookedRelay | None = None
        """Its relay server, if it is Mallory's."""
        self.node: Node

    @property
    def is_up(self) -> bool:
        return self.host.is_up

    async def start(self, *, is_relay: bool = False) -> None:
        """Start a new incarnation."""
        world, host = self.world, self.host
        node = self.node = Node(
            self.identity,
            listen=f"{self.endpoint[0]}:{PORT}" if self.listens else (),
            dial_from=self.endpoint[0],
            lookup=world.lookup if world.conditions.lookup else None,
            discovery=None if is_relay else StaticDiscovery(world.introductions),
            relay_server=is_relay,
            config=world.conditions.config(),
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
            observer=self._observe,
        )
        node.handle("echo", self._handle)
        node.handle("slow", self._handle_slowly)
        node.handle("large", self._handle_at_length)
        node.handle("late", self._handle, early=False)
        node.handle("again", self._handle_again, idempotent=True)
        self.started_s.append(world.now)
        self.knows = {one.peer_id for one in world.introductions}
        await host.run(node.start())

    def add_contact(self, other: Party) -> None:
        """Learn the other's current record."""
        self.tell(other.node.record)

    def tell(self, record: SignedCommRecord) -> None:
        """Learn a record."""
        self.knows.add(record.peer_id)
        self.host.spawn(self._learn(record))

    async def _learn(self, record: SignedCommRecord) -> None:
        self.node.add_contact(record)

    async def restart(self, *, killed: bool, clock_offset_s: float | None = None) -> None:
        """End without a goodbye, and start anew, with the contacts from the address book."""
        if self.host.is_up and killed and clock_offset_s is None:
            self.host.kill()
        else:
            self.host.restart(clock_offset_s=clock_offset_s)
        await self.start()
        for other in self.world.people:
            if other is not self and other.is_up:
                if self is self.world.bob and not self.world.conditions.bob_knows_alice:
                    continue
                self.add_contact(other)

    def sign_anew(self) -> None:
        """Sign a new record with the same content."""
        engine = self.node._engine
        assert engine is not None
        engine.own.renew()
        engine.publisher.signed_anew()

    def _observe(self, event: Event) -> None:
        if isinstance(event, PathOpened):
            self.knows.add(event.peer_id)

    # Handlers

    async def _handle(self, query: Incoming) -> bytes:
        return self._reply(query)

    async def _handle_again(self, query: Incoming) -> bytes:
        return self._reply(query, repeats=True)

    async def _handle_slowly(self, query: Incoming) -> bytes:
        reply = self._reply(query)
        await asyncio.sleep(query.body[12] / 10)
        return reply

    async def _handle_at_length(self, query: Incoming) -> bytes:
        return self._reply(query) + bytes(LARGE_BYTES)

    def _reply(self, query: Incoming, *, repeats: bool = False) -> bytes:
        return b"re " + self.world.judge.handled(self.world.now, self, query, repeats=repeats)


class SmallWorld:
    """A small world, created and started by :meth:`opened`."""

    def __init__(self, network: Network, conditions: Conditions, xray: XRay) -> None:
        self.network: Final = network
        self.conditions: Final = conditions
        self.judge: Final = Judge(xray)
        self.lookup: Final = MemoryLookup(network.story.unix_time)
        self.introductions: Final[list[Introduction]] = []
        network.lines.degrade_all(Link(latency=conditions.latency_s))
        self.mallory: Final = OwnSockets(network.host("mallory", "66.0.0.1"))
        self.line: Final = Line(network, frozenset({"mallory"}))
        self.line.watch = lambda _, packet: self.judge.saw(self.now, packet)
        self.relays: Final = [
            Party(self, f"relay {n}", f"7.1.{n}.1", listens=True) for n in range(conditions.relays)
        ]
        self.alice: Final = Party(self, "alice", "5.1.0.1", listens=conditions.alice_listens)
        self.bob: Final = Party(self, "bob", "6.1.0.1", listens=conditions.bob_listens)
        self._asked = 0

    @property
    def now(self) -> float:
        return self.network.loop.now

    @property
    def people(self) -> tuple[Party, Party]:
        return (self.alice, self.bob)

    @property
    def parties(self) -> list[Party]:
        return [*self.relays, *self.people]

    @property
    def crooked(self) -> CrookedRelay | None:
        """Mallory's relay, if there is one."""
        return self.relays[0].relay if self.relays else None

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, network: Network, conditions: Conditions, xray: XRay
    ) -> AsyncIterator[SmallWorld]:
        """Create the world, start everybody, and introduce them to each other."""
        world = cls(network, conditions, xray)
        for relay in world.relays:
            await relay.start(is_relay=True)
        if world.relays:
            first = world.relays[0]
            first.relay = CrookedRelay.take_over(first.node)
        for relay in world.relays:
            world.introductions.append(Introduction(relay.node_id, relay.node.record))
        for person in world.people:
            await person.start()
        await asyncio.sleep(1.0 if world.relays else 0.1)
        world.alice.add_contact(world.bob)
        if conditions.bob_knows_alice:
            world.bob.add_contact(world.alice)
        await asyncio.sleep(0)
        world.check()
        yield world

    def check(self) -> None:
        self.judge.check(self.now, self.parties)

    # People's actions

    def ask(
        self,
        asker: Party,
        target: Party,
        kind: str,
        text: bytes = b"\0",
        *,
        early: bool | None = None,
        timeout_s: float = 10.0,
        idempotent: bool = False,
        peer_id: NodeId | None = None,
    ) -> Question:
        """One asks the other, with a marked body, and the judge follows the query.

        ``peer_id`` is the intended peer, if that is not ``target`` itself.
        """
        question = self._question(asker, target, timeout_s, may_repeat=idempotent)
        asker.knows.add(peer_id or target.node_id)
        query = asker.node.query(
            peer_id or target.node_id,
            kind,
            question.mark + text,
            hard_timeout_s=timeout_s,
            early=early,
            idempotent=idempotent,
        )
        asker.host.spawn(self._asking(query, question))
        return question

    async def _asking(self, query: object, question: Question) -> None:
        try:
            reply = await query  # type: ignore[misc]
        except EgtpError as error:
            self.judge.ended(self.now, question, error)
        else:
            self.judge.ended(self.now, question, None)
            if not reply.startswith(b"re " + question.mark):
                text = question.mark.decode()
                self.judge.violated(self.now, "a reply reaches the query that it is for", text)

    def send(
        self,
        asker: Party,
        target: Party,
        text: bytes,
        *,
        kind: str = "echo",
        timeout_s: float = 10.0,
    ) -> Question:
        """Like :meth:`ask`, for a message without a reply."""
        question = self._question(asker, target, timeout_s, may_repeat=False)
        asker.knows.add(target.node_id)
        send = asker.node.send(target.node_id, kind, question.mark + text, hard_timeout_s=timeout_s)
        asker.host.spawn(self._sending(send, question))
        return question

    async def _sending(self, send: object, question: Question) -> None:
        try:
            await send  # type: ignore[misc]
        except EgtpError as error:
            self.judge.ended(self.now, question, error)
        else:
            question.outcome = "sent"

    def _question(
        self, asker: Party, target: Party, timeout_s: float, *, may_repeat: bool
    ) -> Question:
        self._asked += 1
        mark = marked(self._asked)
        until_s = self.now + timeout_s + 1.5
        question = Question(mark, asker.name, target, self.now, until_s, may_repeat)
        self.judge.asked(question)
        return question

    def abandoned(self, party: Party) -> None:
        """A machine goes down, and with it the callers of its open queries."""
        for question in self.judge.questions.values():
            if question.asker == party.name and not question.outcome:
                question.outcome = "lost with its asker"
