"""The fair queue: everything comes out once, bytes are shared, and each sender keeps its order."""

from __future__ import annotations

from collections import Counter, deque
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.channel.sealed import CHUNK_BYTES_MAX
from egtp.paths.fair_queue import RESTING_MAX, FairQueue
from egtp.paths.outbox import BATCH_BYTES, Outbox
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.values.identity import NodeId

SENDERS = [NodeId(bytes([number]) * 20) for number in range(10)]
A, B, C, *_ = SENDERS
LARGEST = 65_000


def packet(sender: NodeId, size: int = 10) -> PassedOn:
    return PassedOn(bytes(size), 0.0, sender)


class FairQueueMachine(RuleBasedStateMachine):
    """The model: a queue for each sender, and how much each was given while others waited."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.waits: dict[NodeId, deque[PassedOn]] = {}
        self.had: Counter[NodeId] = Counter()
        self.had_before: dict[NodeId, Counter[NodeId]] = {}
        """What all had had when a sender began to wait."""

    @rule(
        sender=st.sampled_from(SENDERS),
        sizes=st.lists(
            st.one_of(st.integers(1, 2000), st.integers(1, LARGEST)), min_size=1, max_size=9
        ),
    )
    def append(self, sender: NodeId, sizes: list[int]) -> None:
        if sender not in self.waits:
            self.had_before[sender] = self.had.copy()
        for size in sizes:
            one = packet(sender, size)
            self.queue.append(one)
            self.waits.setdefault(sender, deque()).append(one)

    @rule(times=st.integers(1, 9))
    def take(self, times: int) -> None:
        for _ in range(min(times, sum(map(len, self.waits.values())))):
            self._take_one()

    def _take_one(self) -> None:
        expected = self.queue.next
        one = self.queue.popleft()
        assert one is expected
        assert one.sender is not None
        waits = self.waits[one.sender]
        assert one is waits.popleft()
        self.had[one.sender] += len(one.message)
        if not waits:
            del self.waits[one.sender]
        for sender in self.waits:
            gained = self.had - self.had_before[sender]
            assert gained[one.sender] <= gained[sender] + 2 * LARGEST

    @invariant()
    def what_waits_is_known_and_who_has_nothing_is_forgotten_at_the_latest_with_the_last(
        self,
    ) -> None:
        all_that_waits = [one for waits in self.waits.values() for one in waits]
        assert Counter(self.queue) == Counter(all_that_waits)
        assert len(self.queue) == len(all_that_waits)
        assert bool(self.queue) == bool(all_that_waits)
        remembered = self.queue._senders.keys()
        assert remembered - self.queue._resting.keys() == self.waits.keys()
        assert self.waits or not remembered
        for sender in SENDERS:
            waits = self.waits.get(sender, ())
            assert self.queue.bytes_of(sender) == sum(len(one.message) for one in waits)


def test_who_waits_has_no_less_than_any_other_by_two_packets_and_each_keeps_its_order() -> None:
    run_state_machine_as_test(FairQueueMachine)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_holds_when_many_come_and_go_for_long(seed: int) -> None:
    random, machine = Random(seed), FairQueueMachine()
    sizes = {sender: random.choice([100, 300, 1500, LARGEST]) for sender in SENDERS}
    for _ in range(10_000):
        sender = random.choice(SENDERS)
        if sender not in machine.waits:
            machine.append(sender, [random.choice([100, 1500, sizes[sender], sizes[sender]])])
        machine.take(random.randrange(2))
    machine.take(len(SENDERS))
    assert not machine.queue


def crowd(count: int) -> list[NodeId]:
    return [NodeId(b"crowd" + number.to_bytes(15, "big")) for number in range(count)]


def take(queue: FairQueue) -> NodeId:
    sender = queue.popleft().sender
    assert sender is not None
    return sender


def wait_for(queue: FairQueue, sender: NodeId) -> list[NodeId]:
    """Who goes before the next packet of this one. They all have more where that came from."""
    before = []
    while (one := take(queue)) != sender:
        queue.append(packet(one, LARGEST))
        before.append(one)
    return before


def test_who_sends_little_waits_for_what_is_under_way_alone() -> None:
    outbox = Outbox(10**6)
    for sender in (A, B):
        for _ in range(100):
            outbox.pass_on(packet(sender, 60_000))
    begun = outbox.next_batch(0.0, BATCH_BYTES).begun
    outbox.pass_on(packet(C))
    for _ in range(3):
        begun += outbox.next_batch(0.0, BATCH_BYTES).begun
    assert [one.sender for one in begun if isinstance(one, PassedOn)] == [A, C, B, A]
    assert outbox.waiting_of(A) == 98 * 60_000
    assert outbox.waiting_of(C) == 0


def test_a_crowd_that_began_together_is_not_in_the_way_of_who_comes_again_and_again() -> None:
    queue = FairQueue()
    for _ in range(3):
        for one in crowd(60):
            queue.append(packet(one, LARGEST))
    for _ in range(500):
        queue.append(packet(A, 300))
        assert len(wait_for(queue, A)) <= 1
        queue.append(packet(take(queue), LARGEST))


def test_nor_if_as_many_others_fill_all_that_is_left_with_little() -> None:
    queue, busy = FairQueue(), crowd(120)
    for one in busy[60:]:
        queue.append(packet(one, LARGEST))
    for turn in range(20_000):
        queue.append(packet(busy[turn % 60], 300))
        if turn % 100 == 0:
            queue.append(packet(A, 300))
            assert len(wait_for(queue, A)) <= 3
        else:
            one = take(queue)
            if one in busy[60:]:
                queue.append(packet(one, LARGEST))


@pytest.mark.parametrize("sizes", [(LARGEST, 100), (LARGEST, 1500), (100, 1500)])
def test_who_sends_large_packets_has_no_more_than_who_sends_small_ones(
    sizes: tuple[int, int],
) -> None:
    queue, had = FairQueue(), Counter[NodeId]()
    for sender, size in zip((A, B), sizes, strict=True):
        for _ in range(3):
            queue.append(packet(sender, size))
    for _ in range(3000):
        one = queue.popleft()
        assert one.sender is not None
        had[one.sender] += len(one.message)
        queue.append(packet(one.sender, len(one.message)))
        assert abs(had[A] - had[B]) <= max(sizes)


@pytest.mark.parametrize("size", [100, 1500, 30_000, LARGEST])
def test_who_comes_again_and_again_has_no_more_than_who_waits(size: int) -> None:
    queue, had = FairQueue(), Counter[NodeId]()
    for one in crowd(10):
        queue.append(packet(one, LARGEST))
    for _ in range(10_000):
        if not queue.bytes_of(A):
            queue.append(packet(A, size))
        sender = take(queue)
        had[sender] += size if sender == A else LARGEST
        if sender != A:
            queue.append(packet(sender, LARGEST))
        assert had[A] <= min(had[one] for one in crowd(10)) + 2 * LARGEST


@pytest.mark.parametrize("size", [100, 1000, 5000, LARGEST])
def test_nobody_starves_however_many_come_once(size: int) -> None:
    queue, waiting, newcomers = FairQueue(), set(crowd(30)), 0
    for one in waiting:
        queue.append(packet(one, LARGEST))
    while waiting:
        newcomers += 1
        queue.append(packet(NodeId(newcomers.to_bytes(20, "big")), size))
        waiting.discard(take(queue))
        assert len(queue._senders) <= RESTING_MAX + 32
        assert newcomers * size <= (RESTING_MAX + 32) * LARGEST


def test_what_is_passed_on_waits_where_large_messages_must_and_small_ones_go() -> None:
    outbox = Outbox(10**6)
    outbox.pass_on(packet(A))
    own = Outgoing(b"own", 0.0)
    outbox.push(own)
    assert not outbox.has_bulk_only
    batch = outbox.next_batch(0.0, chunks=0)
    assert (batch.begun, batch.has_small, batch.bulk_bytes) == ([own], True, 0)
    assert not outbox.next_batch(0.0, chunks=0).parts
    batch = outbox.next_batch(0.0)
    assert (len(batch.begun), batch.has_small, batch.bulk_bytes) == (1, False, 10)
    assert not outbox
    assert outbox.waiting_bytes == 0


def test_all_that_is_passed_on_and_chunks_beside_it_count_as_bulk() -> None:
    outbox = Outbox(10**6)
    outbox.pass_on(packet(A, 100))
    outbox.push(Outgoing(bytes(3 * CHUNK_BYTES_MAX), 0.0))
    assert outbox.next_batch(0.0, chunks=3).bulk_bytes == 100 + CHUNK_BYTES_MAX


def test_what_did_not_leave_goes_by_another_path_with_each_senders_in_order() -> None:
    outbox = Outbox(10**6)
    packets = [packet(sender) for sender in (A, B, A, C, B)]
    for one in packets:
        outbox.pass_on(one)
    assert outbox.messages == 5
    unsent = outbox.take_unsent()
    assert Counter(unsent) == Counter(packets)
    for sender in (A, B, C):
        of_sender = [one for one in packets if one.sender == sender]
        assert [o for o in unsent if isinstance(o, PassedOn) and o.sender == sender] == of_sender
    assert not any(one.queued for one in packets)
    assert (bool(outbox), outbox.waiting_bytes, outbox.messages) == (False, 0, 0)
