"""The fair queue: everything comes out once, senders in turns, and of each in order."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.channel.sealed import CHUNK_BYTES_MAX
from egtp.paths.fair_queue import FairQueue
from egtp.paths.outbox import BATCH_BYTES, Outbox
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.values.identity import NodeId

SENDERS = [NodeId(bytes([number]) * 20) for number in range(5)]
A, B, C, *_ = SENDERS


def packet(sender: NodeId, size: int = 10) -> PassedOn:
    return PassedOn(bytes(size), 0.0, sender)


class FairQueueMachine(RuleBasedStateMachine):
    """The model: a queue for each sender, and who had a turn how long ago."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.waits: dict[NodeId, deque[PassedOn]] = {}

    @rule(sender=st.sampled_from(SENDERS), size=st.integers(1, 50))
    def append(self, sender: NodeId, size: int) -> None:
        one = packet(sender, size)
        self.queue.append(one)
        self.waits.setdefault(sender, deque()).append(one)

    @rule()
    def take(self) -> None:
        if not self.waits:
            return
        sender = next(iter(self.waits))
        waits = self.waits.pop(sender)
        assert self.queue.next is waits[0]
        assert self.queue.popleft() is waits.popleft()
        if waits:
            self.waits[sender] = waits

    @invariant()
    def what_waits_is_known_and_who_has_nothing_is_not(self) -> None:
        all_that_waits = [one for waits in self.waits.values() for one in waits]
        assert list(self.queue) == all_that_waits
        assert len(self.queue) == len(all_that_waits)
        assert self.queue._senders.keys() == self.waits.keys()
        for sender in SENDERS:
            waits = self.waits.get(sender, ())
            assert self.queue.bytes_of(sender) == sum(len(one.message) for one in waits)


def test_senders_take_turns_and_what_each_of_them_has_keeps_its_order() -> None:
    run_state_machine_as_test(FairQueueMachine)


def test_who_sends_little_waits_for_one_packet_of_each_of_the_others() -> None:
    outbox = Outbox(10**6)
    for sender in (A, B):
        for _ in range(100):
            outbox.pass_on(packet(sender, 60_000))
    honest = packet(C)
    outbox.pass_on(honest)
    begun = [outbox.next_batch(0.0, BATCH_BYTES).begun for _ in range(3)]
    senders = [one.sender for batch in begun for one in batch if isinstance(one, PassedOn)]
    assert senders == [A, B, C]
    assert outbox.waiting_of(A) == outbox.waiting_of(B) == 99 * 60_000
    assert outbox.waiting_of(C) == 0


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
