"""Leases and mailboxes: within their quotas, and nothing beyond its lifetime (R24)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any, NoReturn

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.relay.leases import ENDS_SPARE, Held, Leases, RelayLimits
from egtp.values.identity import NodeId

PEERS = [NodeId(bytes([number]) * 20) for number in range(13)]
SENDER = NodeId(bytes([99]) * 20)
SENDERS = [NodeId(bytes([99 + number]) * 20) for number in range(3)]
LIMITS = RelayLimits(
    leases_max=8,
    lease_s_max=30.0,
    mailbox_packets_max=3,
    mailbox_bytes_max=100,
    mailbox_sender_packets_max=2,
    mailboxes_bytes_max=160,
    sender_bytes_max=130,
    mailbox_s_max=20.0,
    queue_bytes_max=1000,
)


STRANGERS_MAX = 7
STRANGE_BYTES_MAX = 140


def size_of(box: list[Held]) -> int:
    return sum(len(held.packet) for held in box)


class LeasesMachine(RuleBasedStateMachine):
    """The model says until when each lease lasts, who makes way, and what is in each mailbox."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(LIMITS)
        self.now_s = 0.0
        self.until: dict[NodeId, float] = {}
        self.strangers: dict[NodeId, bool] = {}
        self.away: list[NodeId] = []
        self.boxes: dict[NodeId, list[Held]] = {}
        self.serial = count()

    def _forget(self, peer_id: NodeId) -> None:
        self.until.pop(peer_id, None)
        self.strangers.pop(peer_id, None)
        self.boxes.pop(peer_id, None)
        if peer_id in self.away:
            self.away.remove(peer_id)

    def _expire_model(self) -> None:
        for peer_id in [i for i, until_s in self.until.items() if self.now_s >= until_s]:
            self._forget(peer_id)
        for peer_id, box in self.boxes.items():
            self.boxes[peer_id] = [held for held in box if held.deadline_s > self.now_s]

    def _is_full(self, stranger: bool) -> bool:
        return len(self.until) >= LIMITS.leases_max or (
            stranger and sum(self.strangers.values()) >= STRANGERS_MAX
        )

    @rule(
        peer_id=st.sampled_from(PEERS),
        wanted_s=st.one_of(st.floats(-1, 60), st.just(0.0), st.just(30.0), st.just(30.0)),
        is_here=st.booleans(),
        stranger=st.sampled_from([True, True, False]),
    )
    def grant(self, peer_id: NodeId, wanted_s: float, is_here: bool, stranger: bool) -> None:
        # To look for leases that have ended is in vain unless there is no room.
        self._expire_model()
        granted_s = self.leases.grant(
            peer_id, wanted_s, self.now_s, is_here=is_here, stranger=stranger
        )
        if wanted_s <= 0:
            self._forget(peer_id)
            assert granted_s == 0
            return
        if peer_id not in self.until and self._is_full(stranger) and self.away:
            self._forget(self.away[0])
        if peer_id not in self.until and self._is_full(stranger):
            assert granted_s == 0
            return
        assert granted_s == min(wanted_s, LIMITS.lease_s_max)
        if peer_id in self.until and not self.strangers[peer_id]:
            stranger = stranger and sum(self.strangers.values()) < STRANGERS_MAX
        self.until[peer_id] = self.now_s + granted_s
        self.strangers[peer_id] = stranger
        if peer_id in self.away:
            self.away.remove(peer_id)
        if stranger and not is_here:
            self.away.append(peer_id)

    @rule(peer_id=st.sampled_from(PEERS))
    def leaves(self, peer_id: NodeId) -> None:
        self._expire_model()
        self.leases.expire(self.now_s)
        self.leases.left(peer_id)
        if self.strangers.get(peer_id) and peer_id not in self.away:
            self.away.append(peer_id)

    @rule(
        peer_id=st.sampled_from(PEERS),
        sender=st.sampled_from(SENDERS),
        size=st.one_of(st.integers(0, 101), st.sampled_from([50, 100])),
        lifetime_s=st.floats(0.01, 40.0),
    )
    def hold(self, peer_id: NodeId, sender: NodeId, size: int, lifetime_s: float) -> None:
        if not self.leases.has(peer_id, self.now_s):
            return
        # What is too old elsewhere counts until it is noticed; a test of its own says when.
        self.leases.expire(self.now_s)
        self._expire_model()
        packet = (b"%8d" % next(self.serial) * 13)[:size]
        stranger = sender is SENDERS[1]
        box = self.boxes.setdefault(peer_id, [])
        everywhere = [held for b in self.boxes.values() for held in b]
        its = [held for held in everywhere if held.sender == sender]
        fits = (
            sum(held.sender == sender for held in box) < LIMITS.mailbox_sender_packets_max
            and sum(len(held.packet) for held in its) + size <= LIMITS.sender_bytes_max
        )
        expected = self._makes_way(box, sender, size) if fits else None
        strange = [held for held in everywhere if held.sender == SENDERS[1]]
        needed = size_of(everywhere) + size - LIMITS.mailboxes_bytes_max
        if stranger:
            needed = max(needed, size_of(strange) + size - STRANGE_BYTES_MAX)
        options = [expected]
        if expected is not None:
            needed -= size_of([held for held in expected if held.sender == SENDERS[1]])
            if needed > 0:
                # The fullest mailbox, or one with as many bits.
                most = max(size_of(one) for one in self.boxes.values()).bit_length()
                fullest = [one for one in self.boxes.values() if size_of(one).bit_length() == most]
                options = [self._spares(one, box, size, needed, expected) for one in fullest]
        gone = self.leases.hold(peer_id, sender, packet, lifetime_s, self.now_s, stranger=stranger)
        assert gone in options
        if gone is not None:
            for held in gone:
                next(one for one in self.boxes.values() if held in one).remove(held)
            deadline_s = self.now_s + min(lifetime_s, LIMITS.mailbox_s_max)
            box.append(Held(sender, packet, deadline_s))

    def _spares(
        self, full: list[Held], box: list[Held], size: int, needed: int, gone: list[Held]
    ) -> list[Held] | None:
        """There is one stranger: he has most of what strangers have, wherever that is."""
        spared = list[Held]()
        for held in full if size_of(full) > size_of(box) + size else ():
            if held.sender == SENDERS[1] and size_of(spared) < needed:
                spared.append(held)
        return gone + spared if size_of(spared) >= needed else None

    def _makes_way(self, box: list[Held], sender: NodeId, size: int) -> list[Held] | None:
        left, gone = list(box), list[Held]()
        while True:
            by_bytes = sum(len(held.packet) for held in left) + size > LIMITS.mailbox_bytes_max
            if not by_bytes and len(left) < LIMITS.mailbox_packets_max:
                return gone
            weights = {
                one: sum(len(held.packet) if by_bytes else 1 for held in left if held.sender == one)
                for one in (sender, *(held.sender for held in left))
            }
            most = max(weights.values())
            if weights[sender] + (size if by_bytes else 1) >= most:
                return None
            gone.append(next(held for held in left if weights[held.sender] == most))
            # Of those who have as much, whoever has been here for longest; of his, the oldest.
            left.remove(gone[-1])

    @rule(peer_id=st.sampled_from(PEERS))
    def collect(self, peer_id: NodeId) -> None:
        self._expire_model()
        collected = self.leases.collect(peer_id, self.now_s)
        if peer_id in self.away:
            self.away.remove(peer_id)
        assert all(held.deadline_s > self.now_s for held in collected), "beyond its lifetime"
        if peer_id in self.until:
            assert collected == self.boxes.pop(peer_id, [])
        assert self.leases.collect(peer_id, self.now_s) == [], "given out twice"

    @rule(peer_id=st.sampled_from(PEERS))
    def end(self, peer_id: NodeId) -> None:
        self.leases.end(peer_id)
        self._forget(peer_id)
        assert not self.leases.has(peer_id, self.now_s)

    @rule(delay_s=st.floats(0.0, 15.0))
    def time_passes(self, delay_s: float) -> None:
        self.now_s += delay_s

    @rule()
    def expire(self) -> None:
        self._expire_model()
        self.leases.expire(self.now_s)
        everywhere = sum(len(held.packet) for box in self.boxes.values() for held in box)
        assert self.leases.held_bytes == everywhere
        assert len(self.leases) == len(self.until)

    @invariant()
    def a_lease_lasts_exactly_as_long_as_was_said(self) -> None:
        for peer_id in PEERS:
            expected = self.now_s < self.until.get(peer_id, float("-inf"))
            assert self.leases.has(peer_id, self.now_s) == expected

    @invariant()
    def what_is_held_is_counted_and_within_every_quota(self) -> None:
        boxes = self.leases._leases.values()
        assert len(self.leases) <= LIMITS.leases_max
        assert sum(box.stranger for box in boxes) == self.leases._strangers <= STRANGERS_MAX
        assert self.leases._away.keys() <= self.leases._leases.keys()
        assert self.leases.held_bytes <= LIMITS.mailboxes_bytes_max
        assert self.leases.held_bytes == sum(box.held_bytes for box in boxes)
        for box in boxes:
            assert box.held_bytes == sum(len(held.packet) for held in box.held)
            assert box.held_bytes <= LIMITS.mailbox_bytes_max
            assert len(box.held) <= LIMITS.mailbox_packets_max


def test_leases_and_mailboxes_do_what_a_plain_model_does() -> None:
    run_state_machine_as_test(LeasesMachine)


NARROW = replace(
    LIMITS,
    leases_max=3,
    mailbox_sender_packets_max=3,
    mailboxes_bytes_max=150,
    sender_bytes_max=150,
)


def grant(leases: Leases, peer_id: NodeId, wanted_s: float, now_s: float) -> float:
    """To somebody who is connected, and known."""
    return leases.grant(peer_id, wanted_s, now_s, is_here=True, stranger=False)


def hold(
    leases: Leases,
    peer_id: NodeId,
    sender: NodeId,
    packet: bytes,
    lifetime_s: float,
    now_s: float,
) -> bool:
    gone = leases.hold(peer_id, sender, packet, lifetime_s, now_s, stranger=False)
    return gone is not None


def held_packets(leases: Leases, peer_id: NodeId, now_s: float) -> list[bytes]:
    return [held.packet for held in leases.collect(peer_id, now_s)]


def test_a_stranger_who_is_known_now_leaves_his_place_to_another_one() -> None:
    leases = Leases(LIMITS)
    for peer_id in PEERS[:STRANGERS_MAX]:
        assert leases.grant(peer_id, 30, 0.0, is_here=True, stranger=True) == 30
    assert leases.grant(PEERS[8], 30, 0.0, is_here=True, stranger=True) == 0
    assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=False) == 30
    assert leases.grant(PEERS[8], 30, 0.0, is_here=True, stranger=True) == 30


def test_who_is_known_now_has_left_one_place_and_not_one_each_time_he_renews() -> None:
    leases = Leases(replace(LIMITS, leases_max=12))
    for peer_id in PEERS[:11]:
        assert leases.grant(peer_id, 30, 0.0, is_here=True, stranger=True) == 30
    for _ in range(3):
        assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=False) == 30
    leases.end(PEERS[1])
    granted = [leases.grant(one, 30, 0.0, is_here=True, stranger=True) for one in PEERS[10:]]
    assert granted == [30] * 3
    leases.end(PEERS[0])
    assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=True) == 0


def test_who_renews_as_a_stranger_takes_and_gives_no_place() -> None:
    leases = Leases(LIMITS)
    for _ in range(3):
        for peer_id in PEERS[: STRANGERS_MAX - 1]:
            assert leases.grant(peer_id, 30, 0.0, is_here=True, stranger=True) == 30
    assert leases.grant(PEERS[8], 30, 0.0, is_here=True, stranger=True) == 30
    assert leases.grant(PEERS[9], 30, 0.0, is_here=True, stranger=True) == 0


def test_who_is_known_no_more_takes_no_place_beyond_those_of_strangers() -> None:
    leases = Leases(LIMITS)
    assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=False) == 30
    for peer_id in PEERS[1 : STRANGERS_MAX + 1]:
        assert leases.grant(peer_id, 30, 0.0, is_here=True, stranger=True) == 30
    assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=True) == 30, "it has its place"
    leases.end(PEERS[1])
    assert leases.grant(PEERS[1], 30, 0.0, is_here=True, stranger=True) == 30
    # Now that there is a place, it is a stranger's.
    leases.end(PEERS[2])
    assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=True) == 30
    assert leases.grant(PEERS[2], 30, 0.0, is_here=True, stranger=True) == 0
    # However often it renews, that is one place.
    for peer_id in PEERS[3:5]:
        leases.end(peer_id)
    for _ in range(3):
        assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=True) == 30
    granted = [leases.grant(one, 30, 0.0, is_here=True, stranger=True) for one in PEERS[2:5]]
    assert granted == [30, 30, 0]


def two_mailboxes(*, stranger: bool) -> Leases:
    """One has 100 bytes of somebody, the other 40 of one who is known: ten more have room."""
    leases = Leases(NARROW)
    for peer_id in PEERS[:2]:
        grant(leases, peer_id, 30, 0.0)
    held = leases.hold(PEERS[0], SENDERS[1], bytes(100), 30, 0.0, stranger=stranger)
    assert held == []
    assert hold(leases, PEERS[1], SENDERS[2], bytes(40), 30, 0.0)
    return leases


def test_only_a_mailbox_that_has_more_than_the_other_one_then_has_makes_way_for_it() -> None:
    leases = two_mailboxes(stranger=True)
    assert not hold(leases, PEERS[1], SENDER, bytes(60), 30, 0.0)
    assert hold(leases, PEERS[1], SENDER, bytes(59), 30, 0.0)
    assert held_packets(leases, PEERS[0], 0.0) == []


def test_what_those_who_are_known_have_in_the_fullest_mailbox_makes_way_for_nothing() -> None:
    leases = two_mailboxes(stranger=False)
    assert not hold(leases, PEERS[1], SENDER, bytes(11), 30, 0.0)
    assert held_packets(leases, PEERS[0], 0.0) == [bytes(100)]


def test_no_more_makes_way_in_the_fullest_mailbox_than_has_to() -> None:
    leases = Leases(replace(NARROW, mailboxes_bytes_max=100))
    for peer_id in PEERS[:3]:
        grant(leases, peer_id, 30, 0.0)
    for _ in range(2):
        assert leases.hold(PEERS[0], SENDERS[1], bytes(40), 30, 0.0, stranger=True) == []
    assert hold(leases, PEERS[1], SENDER, bytes(20), 30, 0.0)
    assert hold(leases, PEERS[2], SENDER, bytes(40), 30, 0.0)
    assert held_packets(leases, PEERS[0], 0.0) == [bytes(40)]


def test_as_many_make_way_in_the_fullest_mailbox_as_have_to_the_oldest_first() -> None:
    leases = Leases(replace(NARROW, mailboxes_bytes_max=100))
    for peer_id in PEERS[:2]:
        grant(leases, peer_id, 30, 0.0)
    for number in range(3):
        packet = bytes([number]) * 29
        assert leases.hold(PEERS[0], SENDERS[1], packet, 30, 0.0, stranger=True) == []
    assert hold(leases, PEERS[1], SENDER, bytes(50), 30, 0.0)
    assert leases.held_bytes == 79
    assert held_packets(leases, PEERS[0], 0.0) == [b"\2" * 29]


def test_of_strangers_in_the_fullest_mailbox_the_one_with_most_bytes_makes_way() -> None:
    leases = Leases(replace(NARROW, mailboxes_bytes_max=100))
    for peer_id in PEERS[:2]:
        grant(leases, peer_id, 30, 0.0)
    for sender, size in ((SENDERS[1], 10), (SENDERS[1], 10), (SENDERS[2], 60)):
        assert leases.hold(PEERS[0], sender, bytes(size), 30, 0.0, stranger=True) == []
    assert hold(leases, PEERS[1], SENDER, bytes(40), 30, 0.0)
    assert held_packets(leases, PEERS[0], 0.0) == [bytes(10), bytes(10)]


def test_what_is_larger_than_all_mailboxes_together_is_not_held() -> None:
    leases = Leases(replace(NARROW, mailboxes_bytes_max=50))
    grant(leases, PEERS[0], 30, 0.0)
    assert not hold(leases, PEERS[0], SENDER, bytes(51), 30, 0.0)


def test_what_is_past_its_lifetime_makes_room_in_other_mailboxes() -> None:
    leases = Leases(NARROW)
    for peer_id in PEERS[:3]:
        grant(leases, peer_id, 30, 0.0)
    assert hold(leases, PEERS[0], SENDER, bytes(100), 1.0, 0.0)
    assert hold(leases, PEERS[1], SENDER, bytes(50), 1.0, 0.0)
    assert not hold(leases, PEERS[2], SENDER, b"x", 1.0, 0.5)
    leases.expire(1.0)
    assert leases.held_bytes == 0
    assert hold(leases, PEERS[2], SENDER, bytes(100), 1.0, 1.0)


def test_what_is_past_its_lifetime_makes_room_in_its_own_mailbox_at_once() -> None:
    leases = Leases(BOX)
    grant(leases, PEERS[0], 30, 0.0)
    for _ in range(4):
        assert hold(leases, PEERS[0], SENDER, b"a", 1.0, 0.0)
    assert not hold(leases, PEERS[0], SENDER, b"b", 1.0, 0.9)
    assert hold(leases, PEERS[0], SENDER, b"b", 1.0, 1.0)


def test_a_packet_is_gone_at_its_deadline_not_after_it() -> None:
    leases = Leases(NARROW)
    grant(leases, PEERS[0], 30, 0.0)
    hold(leases, PEERS[0], SENDER, b"a", 5.0, 0.0)
    hold(leases, PEERS[0], SENDER, b"b", 5.1, 0.0)
    assert held_packets(leases, PEERS[0], 5.0) == [b"b"]
    assert leases.held_bytes == 0


def test_a_long_lived_packet_in_front_does_not_keep_a_short_lived_one() -> None:
    leases = Leases(NARROW)
    grant(leases, PEERS[0], 30, 0.0)
    for packet, lifetime_s in ((b"long", 15.0), (b"short", 1.0), (b"middle", 5.0)):
        assert hold(leases, PEERS[0], SENDER, packet, lifetime_s, 0.0)
    leases.expire(2.0)
    assert leases.held_bytes == len(b"long" + b"middle")
    assert held_packets(leases, PEERS[0], 2.0) == [b"long", b"middle"]


@pytest.mark.parametrize("lifetime_s", [20.0, 21.0, 1e9])
def test_no_packet_is_held_longer_than_the_relay_is_willing_to(lifetime_s: float) -> None:
    leases = Leases(NARROW)
    grant(leases, PEERS[0], 30, 0.0)
    hold(leases, PEERS[0], SENDER, b"a", lifetime_s, 0.0)
    assert held_packets(leases, PEERS[0], 20.0) == []


def test_equal_packets_are_each_held_and_each_given_out() -> None:
    leases = Leases(NARROW)
    grant(leases, PEERS[0], 30, 0.0)
    for moment in range(3):
        assert hold(leases, PEERS[0], SENDER, b"same", 2.0, float(moment))
    leases.expire(2.5)
    assert leases.held_bytes == 8
    assert held_packets(leases, PEERS[0], 2.5) == [b"same", b"same"]


def test_the_end_of_a_lease_is_the_end_of_its_mailbox() -> None:
    leases = Leases(NARROW)
    grant(leases, PEERS[0], 10, 0.0)
    hold(leases, PEERS[0], SENDER, b"a", 20.0, 0.0)
    assert grant(leases, PEERS[0], 10, 10.0) == 10
    assert held_packets(leases, PEERS[0], 10.0) == []


def test_renewing_keeps_the_mailbox_and_may_shorten_the_lease() -> None:
    leases = Leases(NARROW)
    grant(leases, PEERS[0], 30, 0.0)
    hold(leases, PEERS[0], SENDER, b"a", 20.0, 0.0)
    assert grant(leases, PEERS[0], 2, 1.0) == 2
    assert leases.has(PEERS[0], 2.9)
    assert not leases.has(PEERS[0], 3.0)
    assert held_packets(leases, PEERS[0], 2.0) == [b"a"]


def test_a_full_relay_still_renews_and_has_room_again_when_a_lease_runs_out() -> None:
    leases = Leases(NARROW)
    for peer_id in PEERS[:3]:
        assert grant(leases, peer_id, 10, 0.0) == 10
    assert grant(leases, PEERS[3], 10, 5.0) == 0
    assert grant(leases, PEERS[0], 10, 5.0) == 10
    assert grant(leases, PEERS[3], 10, 10.0) == 10
    assert grant(leases, PEERS[4], 10, 10.0) == 10
    assert grant(leases, PEERS[1], 10, 10.0) == 0


def test_a_full_relay_has_room_again_each_time_that_a_lease_runs_out() -> None:
    leases = Leases(NARROW)
    for peer_id, wanted_s in zip(PEERS[:3], (10, 20, 30), strict=True):
        assert grant(leases, peer_id, wanted_s, 0.0) == wanted_s
    for now_s, peer_id in ((10.0, PEERS[3]), (20.0, PEERS[4])):
        assert grant(leases, peer_id, 30, now_s - 0.1) == 0
        assert grant(leases, peer_id, 30, now_s) == 30


def test_a_crowd_of_strangers_that_leases_and_goes_takes_no_place_for_long() -> None:
    leases = Leases(LIMITS)
    crowd = [NodeId(number.to_bytes(20, "big")) for number in range(1000)]
    for peer_id in crowd:
        assert leases.grant(peer_id, 30, 0.0, is_here=True, stranger=True)
        leases.left(peer_id)
    assert leases.grant(PEERS[0], 30, 0.0, is_here=True, stranger=True) == 30
    assert len(leases) == STRANGERS_MAX


def test_a_stranger_who_is_back_keeps_his_place_though_he_has_not_renewed_his_lease() -> None:
    leases = Leases(LIMITS)
    for peer_id in PEERS[:STRANGERS_MAX]:
        assert leases.grant(peer_id, 30, 0.0, is_here=True, stranger=True) == 30
        leases.left(peer_id)
    leases.collect(PEERS[0], 1.0)
    granted = [leases.grant(one, 30, 1.0, is_here=True, stranger=True) for one in PEERS[8:13]]
    assert granted == [30] * 5
    assert leases.has(PEERS[0], 1.0)


def test_strangers_who_stay_leave_an_eighth_of_a_relay_to_those_whom_it_knows() -> None:
    leases = Leases(LIMITS)
    granted = [leases.grant(one, 30, 0.0, is_here=True, stranger=True) for one in PEERS[:10]]
    assert granted == [30] * STRANGERS_MAX + [0] * 3
    assert leases.grant(PEERS[11], 30, 0.0, is_here=True, stranger=False) == 30


def test_one_sender_does_not_fill_the_mailbox_of_somebody_else() -> None:
    leases = Leases(LIMITS)
    grant(leases, PEERS[0], 30, 0.0)
    held = [hold(leases, PEERS[0], SENDERS[0], b"spam", 5.0, 0.0) for _ in range(10)]
    assert held == [True, True] + [False] * 8
    assert hold(leases, PEERS[0], SENDERS[1], b"news", 5.0, 0.0)


BOX = replace(LIMITS, mailbox_packets_max=8, mailbox_sender_packets_max=4)


def test_in_a_full_mailbox_the_oldest_of_whoever_has_most_makes_way() -> None:
    leases, crowd = Leases(BOX), PEERS[1:]
    grant(leases, PEERS[0], 30, 0.0)
    for number in range(8):
        assert hold(leases, PEERS[0], crowd[number // 4], b"%d" % number, 5.0, 0.0)
    gone = leases.hold(PEERS[0], SENDER, b"news", 5.0, 0.0, stranger=True)
    assert gone == [Held(crowd[0], b"0", 5.0)]
    assert held_packets(leases, PEERS[0], 0.0) == [b"%d" % n for n in range(1, 8)] + [b"news"]
    assert leases.held_bytes == 0


@pytest.mark.parametrize(("each", "makes_way"), [(1, False), (2, True)])
def test_one_packet_drives_out_one_of_two_and_not_one_of_one(each: int, makes_way: bool) -> None:
    leases = Leases(BOX)
    grant(leases, PEERS[0], 30, 0.0)
    for number in range(8):
        assert hold(leases, PEERS[0], PEERS[1 + number // each], b"a", 5.0, 0.0)
    assert hold(leases, PEERS[0], SENDER, b"news", 5.0, 0.0) == makes_way


def test_a_large_packet_makes_way_for_a_small_one_and_comes_not_back() -> None:
    leases, (a, b, *_) = Leases(BOX), PEERS[1:]
    grant(leases, PEERS[0], 30, 0.0)
    assert hold(leases, PEERS[0], a, bytes(60), 5.0, 0.0)
    assert hold(leases, PEERS[0], b, bytes(30), 5.0, 0.0)
    assert hold(leases, PEERS[0], SENDER, b"a" * 20, 5.0, 0.0)
    assert not hold(leases, PEERS[0], a, bytes(60), 5.0, 0.0)
    assert held_packets(leases, PEERS[0], 0.0) == [bytes(30), b"a" * 20]


def test_whoever_has_no_more_than_the_others_in_a_mailbox_stays_in_it() -> None:
    leases = Leases(BOX)
    grant(leases, PEERS[0], 30, 0.0)
    assert hold(leases, PEERS[0], SENDER, b"news", 5.0, 0.0)
    for turn in range(100):
        hold(leases, PEERS[0], PEERS[1 + turn % 12], b"spam", 5.0, 0.0)
    assert b"news" in held_packets(leases, PEERS[0], 0.0)


def test_what_would_not_fit_even_then_makes_nobody_go() -> None:
    leases = Leases(replace(BOX, mailboxes_bytes_max=400, sender_bytes_max=400))
    grant(leases, PEERS[0], 30, 0.0)
    for sender, size in ((PEERS[1], 50), (PEERS[2], 50)):
        assert hold(leases, PEERS[0], sender, bytes(size), 5.0, 0.0)
    assert not hold(leases, PEERS[0], SENDER, bytes(101), 5.0, 0.0)
    assert not hold(leases, PEERS[0], SENDER, bytes(50), 5.0, 0.0)
    assert leases.held_bytes == 100


def test_who_fills_mailboxes_of_his_own_keeps_nobody_from_being_held_for() -> None:
    """A few identities take leases, go, and send each other as much as all mailboxes may hold."""
    limits = replace(
        LIMITS, leases_max=40, mailboxes_bytes_max=800, sender_bytes_max=200, mailbox_packets_max=8
    )
    leases, crowd, known = Leases(limits), PEERS[1:10], PEERS[11]
    for peer_id in (PEERS[0], *crowd):
        leases.grant(peer_id, 30, 0.0, is_here=False, stranger=True)
    for sender in crowd:
        for peer_id in crowd:
            leases.hold(peer_id, sender, bytes(50), 5.0, 0.0, stranger=True)
    assert leases.held_bytes == 700, "all that strangers have"
    gone = leases.hold(PEERS[0], SENDER, b"news", 5.0, 0.0, stranger=True)
    assert gone is not None
    assert [held.packet for held in gone] == [bytes(50)]
    assert leases.held_bytes == 654
    held = [leases.hold(PEERS[0], known, bytes(32), 5.0, 0.0, stranger=False) for _ in range(2)]
    assert held == [[], []], "for those whom the relay knows there was room all the time"
    assert held_packets(leases, PEERS[0], 0.0) == [b"news", bytes(32), bytes(32)]


def test_who_makes_way_in_a_full_mailbox_makes_room_for_all_of_them() -> None:
    """Else nobody else's packets would be held for whoever has the fullest mailbox of all."""
    limits = replace(LIMITS, mailboxes_bytes_max=229, mailbox_bytes_max=200, sender_bytes_max=200)
    leases = Leases(limits)
    leases.grant(PEERS[0], 30, 0.0, is_here=False, stranger=True)
    for _ in range(2):
        assert leases.hold(PEERS[0], SENDERS[0], bytes(100), 5.0, 0.0, stranger=True) == []
    gone = leases.hold(PEERS[0], SENDERS[1], b"news", 5.0, 0.0, stranger=True)
    assert gone is not None
    assert [held.packet for held in gone] == [bytes(100)]
    assert held_packets(leases, PEERS[0], 0.0) == [bytes(100), b"news"]


def test_mailboxes_are_found_by_their_size_without_looking_through_all() -> None:
    """Or a packet of a stranger would cost as much as there are leases."""
    leases = Leases(replace(LIMITS, leases_max=64))
    for number, peer_id in enumerate(PEERS):
        leases.grant(peer_id, 30, 0.0, is_here=False, stranger=False)
        for _ in range(number % 4):
            leases.hold(peer_id, SENDERS[number % len(SENDERS)], bytes(9), 5.0, 0.0, stranger=True)
    fullest = leases._fullest()
    assert fullest is not None
    assert 2 * fullest.held_bytes > max(one.held_bytes for one in leases._leases.values())
    for peer_id in PEERS:
        leases.end(peer_id)
    assert leases._fullest() is None


class Unseen(dict[NodeId, Any]):
    """Leases that nobody may look through."""

    def __iter__(self) -> Iterator[NodeId]:
        raise AssertionError("a look at all leases")

    def items(self) -> NoReturn:
        raise AssertionError("a look at all leases")


def test_whoever_asks_a_full_relay_for_a_place_costs_no_look_at_all_leases() -> None:
    """Each lease that had ended made the next newcomer look through all of them, which took 3 ms:
    strangers with leases of a second could keep a relay busy with nothing else."""
    leases = Leases(LIMITS)
    for second, peer_id in enumerate(PEERS[: LIMITS.leases_max]):
        grant(leases, peer_id, 10, float(second))
    leases._leases = Unseen(leases._leases)
    newcomers = PEERS[LIMITS.leases_max :]
    assert not grant(leases, newcomers[0], 10, 9.9)
    for second, peer_id in enumerate(newcomers):
        assert grant(leases, peer_id, 10, 10.0 + second)
        assert not leases.has(PEERS[second], 10.0 + second)
    assert len(leases) == LIMITS.leases_max


def test_leases_that_are_renewed_all_the_time_take_no_more_memory() -> None:
    leases = Leases(LIMITS)
    for second in range(1000):
        assert grant(leases, PEERS[second % 2], 10, float(second))
    assert len(leases._ends) <= 2 * len(leases) + ENDS_SPARE
    leases.expire(1008.0)
    assert not leases.has(PEERS[0], 1008.0)
    assert leases.has(PEERS[1], 1008.0)
