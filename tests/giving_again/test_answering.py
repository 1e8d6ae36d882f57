"""Answering: a copy of a query that was answered gets the same answer, once at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

from egtp.channel.handshake import PeerLimits
from egtp.channel.session import InOrder, Session, SlidingWindow
from egtp.config import NodeConfig
from egtp.engine.answering import Answering
from egtp.handling.handlers import Incoming
from egtp.paths.bulk_window import OVERDUE_S
from egtp.paths.path import Path
from egtp.queries.outgoing import Outgoing
from egtp.values.comm_record import SUITE_AESGCM
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.identity import Identity, NodeId
from egtp.values.message import (
    NONCE_BYTES,
    Query,
    Reply,
    ReplyCode,
    decode_message,
    reference_of,
)

ME = NodeId(bytes(20))
PEER = NodeId(bytes(19) + b"\1")
RELAY = Identity.generate(lambda size: bytes(range(1, size + 1)))
RELAYED = RelayStrat(RELAY.key, SUITE_AESGCM, RELAY.channel_key)
DIRECT = TCPStrat(Address.parse("127.0.0.1:9"), 7)
OTHER = TCPStrat(DIRECT.address, 8)
MIB = 1024 * 1024
LIMITS = PeerLimits(16 * MIB, 32 * MIB, 64, 64 * MIB)
LARGE = 2 * MIB


class Recorder:
    """The node around the answering side. What it writes counts only by its number."""

    def __init__(self, waiting_bytes_max: int = 64 * MIB) -> None:
        self.now_s = 100.0
        self.counters: Counter[str] = Counter()
        config = NodeConfig(waiting_bytes_max=waiting_bytes_max)
        self.answering = Answering(self, ME, config, self.counters, self.nonce)
        self.uploads = self.answering.uploads
        self.answering.handlers.add("large", self.large)
        self.ran = 0
        self.packets = 0
        self.takes = 0
        """How many packets more may be written; the rest has to wait."""
        self.unconfirmed: list[Path] = []
        self._numbers = count()

    def nonce(self) -> bytes:
        return next(self._numbers).to_bytes(NONCE_BYTES, "big")

    async def large(self, _: Incoming) -> bytes:
        self.ran += 1
        return bytes(LARGE)

    # What it is to the answering side

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        return True

    def now(self) -> float:
        return self.now_s

    def best_path(self, _: NodeId) -> Path | None:
        return None

    def paths_to(self, _: NodeId) -> list[Path]:
        return []

    def answer_by_another_path(self, gone: Path, reply: Outgoing) -> None:
        raise AssertionError(gone, reply)

    def answer_own(self, reply: bytes) -> None:
        raise AssertionError(reply)

    def unconfirmed_bytes(self) -> int:
        return sum(path.outbox.waiting_bytes for path in self.unconfirmed)

    def lose_path(self, path: Path, _: str) -> None:
        path.closed = True
        self.unconfirmed.remove(path)

    # What it is to a path

    def soon(self, callback: Callable[[], None], /) -> None:
        """Turns do not matter here: what is large does not wait for their ends."""

    def at_once(self, callback: Callable[[], None], /) -> None:
        callback()

    def settled(self, _: NodeId) -> int:
        return 0

    def settled_except(self, _: NodeId) -> None:
        return None

    def takes_more(self, _: CommStrat) -> bool:
        self.takes -= 1
        return self.takes >= 0

    def is_throttled(self, _: CommStrat) -> bool:
        return False

    def path_waits(self, path: Path) -> None:
        """Nobody here says how far he has read: a test looks at the path again when it is time."""

    def send_tcp(self, *_: object) -> None:
        self.packets += 1

    def send_relay(self, *_: object) -> None:
        self.packets += 1

    # What a test does

    def path(self, strategy: CommStrat) -> Path:
        relayed = isinstance(strategy, RelayStrat)
        session = Session(
            index=1,
            remote_index=2,
            send_key=b"a" * 32,
            receive_key=b"b" * 32,
            window=SlidingWindow() if relayed else InOrder(),
            started_s=self.now_s,
        )
        path = Path(
            PEER,
            session,
            strategy,
            self,
            self,
            dialled=False,
            theirs=LIMITS,
            ours=LIMITS,
            incarnation=b"incarnat",
            asker=self.answering.answers.session_began(PEER, b"incarnat", 1, 0.0),
        )
        path.confirmed = True
        return path

    async def comes(self, path: Path) -> None:
        """A copy of the one query there is."""
        query = Query(bytes(16), 0, "large", 60_000, 16 * MIB, b"")
        arrived = asyncio.Event()

        def come() -> None:
            self.answering.receive(path, PEER, query, reference_of(query.encode()), 0)
            arrived.set()

        asyncio.get_running_loop().call_soon(come)
        await arrived.wait()
        for _ in range(4):
            await asyncio.sleep(0)


@pytest.fixture
async def recorders() -> Iterator[Callable[..., Recorder]]:  # type: ignore[misc]
    made: list[Recorder] = []

    def make(**options: int) -> Recorder:
        made.append(Recorder(**options))
        return made[-1]

    yield make
    for recorder in made:
        await recorder.answering.handlers.close()


Make = Callable[..., Recorder]


def said_on(path: Path) -> list[int]:
    """The codes of the replies that wait there, which then wait no more."""
    replies = [decode_message(bytes(one.message)) for one in path.outbox.take_unsent()]
    return [reply.code for reply in replies if isinstance(reply, Reply)]


async def test_whoever_asks_again_is_told_what_became_of_his_query(recorders: Make) -> None:
    node = recorders()
    answers, path = node.answering.answers, node.path(DIRECT)
    assert path.asker is not None

    def asks(number: int) -> list[int]:
        query = Query(bytes([number % 256]) * 16, number, "none such", 60_000, 1000, b"")
        node.answering.receive(path, PEER, query, reference_of(query.encode()), 0)
        return said_on(path)

    assert asks(0) == [ReplyCode.NO_SUCH_KIND]
    node.answering.look(1e6, 1)
    assert asks(0) == [ReplyCode.RAN_REPLY_GONE]
    assert asks(10**6) == [ReplyCode.BUSY], "there is no room for it"
    answers.settle(path.asker, 1)
    assert asks(0) == []


async def test_a_handler_in_place_of_another_is_not_given_what_that_one_was_given(
    recorders: Make,
) -> None:
    node = recorders()
    handlers, path = node.answering.handlers, node.path(DIRECT)
    ran: list[str] = []

    def give(name: str, *, idempotent: bool = False) -> asyncio.Event:
        go = asyncio.Event()

        async def handler(_: Incoming) -> bytes:
            ran.append(name)
            await go.wait()
            return b""

        handlers.add("plug-in", handler, idempotent=idempotent)
        return go

    async def asks(number: int) -> list[int]:
        query = Query(bytes([number]) * 16, number, "plug-in", 60_000, 1000, b"")
        reference = reference_of(query.encode())
        asyncio.get_running_loop().call_soon(
            node.answering.receive, path, PEER, query, reference, 0
        )
        await asyncio.sleep(0)
        for _ in range(4):
            await asyncio.sleep(0)
        return said_on(path)

    old = give("old")
    assert await asks(0) == []
    handlers.remove("plug-in")
    assert await asks(1) == [ReplyCode.NO_SUCH_KIND]
    new = give("new", idempotent=True)
    assert await asks(0) == [], "the old one works on it"
    assert await asks(1) == [], "it was refused, and that answer is on its way"
    old.set()
    assert await asks(2) == [ReplyCode.OK], "the answer to the first"
    assert ran == ["old", "new"]
    new.set()
    handlers.remove("plug-in")
    give("last").set()
    other = node.path(OTHER)
    path.closed = True
    path = other
    assert await asks(0) == [ReplyCode.OK], "the old one's answer again, though it is gone"
    assert await asks(1) == [ReplyCode.NO_SUCH_KIND]
    assert ran == ["old", "new"]
    assert await asks(2) == [ReplyCode.OK], "the one before promised that this does no harm"
    assert ran == ["old", "new", "last"]


async def test_nothing_runs_for_an_asker_for_whom_there_is_no_room(recorders: Make) -> None:
    node = recorders()
    for number in range(NodeConfig().answers.peer_askers_max):
        node.answering.answers.session_began(PEER, number.to_bytes(8, "big"), 1, 0.0)
    path = node.path(DIRECT)
    assert path.asker is None
    query = Query(bytes(16), 0, "large", 60_000, 16 * MIB, b"")
    node.answering.receive(path, PEER, query, reference_of(query.encode()), 0)
    assert said_on(path) == [ReplyCode.BUSY]
    assert node.ran == 0
    assert node.counters == {"busy: no room for one more asker": 1}


async def test_a_copy_that_is_older_than_anything_may_be_does_not_run(recorders: Make) -> None:
    node = recorders()
    path = node.path(DIRECT)
    query = Query(bytes(16), 0, "none such", 2**32 - 1, 1000, b"")
    longest_ms = int(NodeConfig().answers.lifetime_s_max * 1000)
    for age_ms in (longest_ms + 1, longest_ms):
        node.answering.receive(path, PEER, query, reference_of(query.encode()), age_ms)
    assert node.counters["dropped: query past its lifetime"] == 1
    assert said_on(path) == [ReplyCode.NO_SUCH_KIND]


@pytest.mark.parametrize("strategy", [DIRECT, RELAYED])
async def test_an_answer_that_is_on_its_way_is_not_sent_again_by_the_same_path(
    strategy: CommStrat, recorders: Make
) -> None:
    node = recorders()
    path = node.path(strategy)
    for _ in range(5):
        await node.comes(path)
        assert LARGE < path.outbox.waiting_bytes < LARGE + 1000
    assert node.ran == 1


@pytest.mark.parametrize("strategy", [DIRECT, RELAYED])
async def test_nor_is_the_one_that_was_sent_again_by_another_path(
    strategy: CommStrat, recorders: Make
) -> None:
    node = recorders()
    await node.comes(node.path(OTHER))
    path = node.path(strategy)
    for _ in range(5):
        await node.comes(path)
        assert LARGE < path.outbox.waiting_bytes < LARGE + 1000
    assert node.ran == 1


async def test_notices_that_a_query_still_runs_are_bounded_for_who_reads_nothing(
    recorders: Make,
) -> None:
    """A copy costs its sender little, and must not cost this node more and more."""
    node, goes_on, all_came = recorders(), asyncio.Event(), asyncio.Event()

    async def slow(_: Incoming) -> bytes:
        await goes_on.wait()
        return b""

    node.answering.handlers.add("slow", slow)
    path = node.path(DIRECT)
    query = Query(bytes(16), 0, "slow", 60_000, 16 * MIB, b"")
    reference = reference_of(query.encode())

    def come() -> None:
        for _ in range(5000):
            node.answering.receive(path, PEER, query, reference, 0)
        all_came.set()

    asyncio.get_running_loop().call_soon(come)
    await all_came.wait()
    assert 60 * 1024 < path.outbox.waiting_bytes < 70 * 1024
    assert node.counters["working not said: too much waits for the peer"] > 1000
    goes_on.set()


@pytest.mark.reaches_in
async def test_who_was_forgotten_by_force_is_told_that_his_query_may_have_run_and_asks_on(
    recorders: Make,
) -> None:
    node = recorders()
    ran: list[int] = []

    async def count(_: Incoming) -> bytes:
        node.ran += 1
        return b""

    async def ask(number: int, age_ms: int, *, at_once: bool = True) -> None:
        query = Query(bytes([number]) * 16, number, "count", 60_000, 1000, b"")
        reference = reference_of(query.encode())
        receive = partial(node.answering.receive, at_once=at_once)
        asyncio.get_running_loop().call_soon(receive, path, PEER, query, reference, age_ms)
        for _ in range(4):
            await asyncio.sleep(0)
        ran.append(node.ran)

    node.answering.handlers.add("count", count)
    path = node.path(DIRECT)
    assert path.asker is not None
    path.asker.stranger = True
    await ask(0, 0)
    node.answering.answers.session_ended(path.asker)
    node.now_s = 110.0
    assert node.answering.answers.forget_strangers(node.now_s) == 1
    node.now_s = 112.0
    path = node.path(OTHER)
    # Its packets say, 8 s after its session began, how old what is in them is.
    path.heard_s, path._least_offset_ms, node.now_s = 120.0, 0, 120.0
    await ask(0, 20_000)
    assert node.counters["query not run: doubtful"] == 1
    assert said_on(path) == [ReplyCode.RAN_REPLY_GONE]
    await ask(1, 9_000, at_once=False)
    await ask(2, 9_000)
    await ask(3, 30_000, at_once=False)
    await ask(0, 20_000)
    assert ran == [1, 1, 1, 2, 3, 3]


async def test_over_relays_an_answer_that_has_left_may_be_lost_and_is_sent_again(
    recorders: Make,
) -> None:
    node = recorders()
    path = node.path(RELAYED)
    for _ in range(3):
        node.takes = 10_000
        before = node.packets
        await node.comes(path)
        while path.outbox:
            node.now_s += OVERDUE_S
            path.flush()
        assert node.packets - before > LARGE // (32 * 1024)
    assert node.ran == 1


async def test_what_the_old_path_had_still_to_give_is_not_kept_beside_the_copy(
    recorders: Make,
) -> None:
    """Its asker has lost that path, since he asks by another one."""
    node = recorders()
    old, new = node.path(DIRECT), node.path(OTHER)
    node.takes = 3
    await node.comes(old)
    assert 0 < old.outbox.waiting_bytes < LARGE
    await node.comes(new)
    assert old.outbox.waiting_bytes < 100
    assert new.outbox.waiting_bytes > LARGE


async def test_a_recording_does_not_take_an_answer_away_from_who_asked(recorders: Make) -> None:
    """A copy in early data, which proves nothing: it comes by a path that is not confirmed."""
    node = recorders()
    asked, replayed = node.path(DIRECT), node.path(OTHER)
    replayed.confirmed = False
    await node.comes(asked)
    waits = asked.outbox.waiting_bytes
    await node.comes(replayed)
    assert asked.outbox.waiting_bytes == waits > LARGE
    assert node.ran == 1


async def test_an_answer_that_was_dropped_for_want_of_room_is_sent_when_it_is_asked_for_again(
    recorders: Make,
) -> None:
    node = recorders(waiting_bytes_max=LARGE + 1000)
    path, filled = node.path(OTHER), node.path(DIRECT)
    await node.comes(path)
    filled.queue(Outgoing(bytes(10_000), node.now_s))
    for _ in range(2):
        await node.comes(filled)
        assert filled.outbox.waiting_bytes < LARGE
    node.takes = 100
    filled.flush()
    assert not filled.outbox
    node.takes = 0
    await node.comes(filled)
    assert filled.outbox.waiting_bytes > LARGE


async def test_what_recordings_make_wait_is_bounded_and_takes_no_copies(recorders: Make) -> None:
    """Each is another session of the same peer, who is not there to prove that he lives."""
    node = recorders(waiting_bytes_max=4 * LARGE)
    for number in range(8):
        path = node.path(TCPStrat(DIRECT.address, 100 + number))
        path.confirmed = False
        node.unconfirmed.append(path)
        node.takes = 1
        await node.comes(path)
        assert node.unconfirmed_bytes() <= 4 * LARGE
        # One that is refused is closed: its asker, if he is there, asks by another path.
        assert path.closed == (path not in node.unconfirmed)
    assert len(node.unconfirmed) == 4
    assert node.counters["reply dropped: too much waits for who has proven nothing"] == 4
    assert node.ran == 1
