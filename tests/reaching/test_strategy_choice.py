"""Which addresses, in what order, and which to leave alone for how long."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.reaching.strategy_choice import (
    BACKOFF_ADDRESSES_MAX,
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    Backoff,
    plan,
    way_of,
)
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity, NodeId

ME = NodeId(bytes(20))
PEER = NodeId(bytes([1]) * 20)
PUBLIC_4 = int(ipaddress.IPv4Address("8.8.0.0"))
PUBLIC_6 = int(ipaddress.IPv6Address("2606:4700::"))


def four(number: int) -> Address:
    return Address.of(str(ipaddress.IPv4Address(PUBLIC_4 + number)), 4000)


def six(number: int) -> Address:
    return Address.of(str(ipaddress.IPv6Address(PUBLIC_6 + number)), 4000)


def relay(number: int) -> RelayStrat:
    return RelayStrat(bytes([number]) * 32, SUITE_AESGCM, bytes(32))


ADDRESS, ONE, TWO = TCPStrat(four(1)), relay(1), relay(2)


def contact(tcp: list[Address], relays: tuple[RelayStrat, ...] = ()) -> Contact:
    strategies = tuple(TCPStrat(address) for address in tcp)
    return Contact(PEER, bytes(32), bytes(32), 1, strategies, relays)


# Back-off


class BackoffMachine(RuleBasedStateMachine):
    """The model says until when each address is left alone, and how long the last pause was."""

    ADDRESSES = (four(1), four(2), six(1))

    def __init__(self) -> None:
        super().__init__()
        self.backoff = Backoff()
        self.now_s = 0.0
        self.model: dict[Address, tuple[float, float]] = {}

    @rule(address=st.sampled_from(ADDRESSES))
    def failed(self, address: Address) -> None:
        known = self.model.get(address)
        if known is not None and self.now_s <= known[0] + known[1]:
            pause_s = min(2 * known[1], BACKOFF_MAX_S)
        else:
            pause_s = BACKOFF_FIRST_S
        self.model[address] = (self.now_s + pause_s, pause_s)
        self.backoff.failed(address, self.now_s)

    @rule(address=st.sampled_from(ADDRESSES))
    def worked(self, address: Address) -> None:
        self.model.pop(address, None)
        self.backoff.worked(address)

    @rule(delay_s=st.one_of(st.floats(0, 2), st.floats(0, 200)))
    def time_passes(self, delay_s: float) -> None:
        self.now_s += delay_s

    @invariant()
    def each_address_is_left_alone_for_its_own_failures_only(self) -> None:
        for address in self.ADDRESSES:
            until_s, _ = self.model.get(address, (self.now_s, 0.0))
            remaining_s = self.backoff.remaining_s(address, self.now_s)
            assert remaining_s == pytest.approx(max(0.0, until_s - self.now_s))
            assert 0 <= remaining_s <= BACKOFF_MAX_S + 1e-6, "a sum of floats may be a hair more"


def test_back_off_is_per_address_doubles_and_is_reset() -> None:
    """The clock begins at zero here, as a simulated one does."""
    run_state_machine_as_test(BackoffMachine)


def test_the_pause_doubles_up_to_ten_seconds() -> None:
    backoff, now_s, pauses = Backoff(), 100.0, []
    for _ in range(10):
        backoff.failed(four(1), now_s)
        pauses.append(backoff.remaining_s(four(1), now_s))
        now_s += pauses[-1]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 10, 10, 10, 10, 10])


def test_nothing_is_left_alone_any_more_when_all_is_forgotten() -> None:
    backoff = Backoff()
    for _ in range(3):
        backoff.failed(four(1), 10.0)
    backoff.forget()
    assert backoff.remaining_s(four(1), 10.0) == 0
    backoff.failed(four(1), 10.0)
    assert backoff.remaining_s(four(1), 10.0) == pytest.approx(BACKOFF_FIRST_S)


@pytest.mark.parametrize("now_s", [0.0, -1000.0, 1e9])
def test_a_failure_counts_whatever_moment_the_clock_was_started_at(now_s: float) -> None:
    """An elapsed clock counts from any fixed moment."""
    backoff = Backoff()
    assert backoff.remaining_s(four(1), now_s) == 0
    backoff.failed(four(1), now_s)
    assert backoff.remaining_s(four(1), now_s) == pytest.approx(BACKOFF_FIRST_S)


def test_an_address_that_worked_begins_anew() -> None:
    backoff = Backoff()
    for now_s in (10.0, 10.6):
        backoff.failed(four(1), now_s, f"refused at {now_s}")
    assert backoff.why(four(1)) == "refused at 10.6"
    backoff.worked(four(1))
    assert backoff.remaining_s(four(1), 10.6) == 0
    assert backoff.why(four(1)) == ""
    backoff.failed(four(1), 10.7)
    assert backoff.remaining_s(four(1), 10.7) == pytest.approx(BACKOFF_FIRST_S)


def test_the_same_host_at_another_port_is_another_address() -> None:
    backoff = Backoff()
    backoff.failed(Address(bytes([8, 8, 8, 8]), 4000), 10.0)
    assert backoff.remaining_s(Address(bytes([8, 8, 8, 8]), 4001), 10.0) == 0


def test_addresses_that_strangers_name_fill_a_bounded_table_the_oldest_go_first() -> None:
    backoff = Backoff()
    for number in range(BACKOFF_ADDRESSES_MAX + 500):
        backoff.failed(four(number), 10.0)
        # One that fails again and again is never the oldest.
        backoff.failed(six(0), 10.0)
    assert len(backoff._until) == BACKOFF_ADDRESSES_MAX
    assert backoff.remaining_s(four(0), 10.0) == 0
    assert backoff.remaining_s(four(BACKOFF_ADDRESSES_MAX + 499), 10.0) > 0
    assert backoff.remaining_s(six(0), 10.0) > BACKOFF_FIRST_S


# Plans


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), unique=True, max_size=8))
def test_families_take_turns_six_first_each_in_its_own_order(kinds: list[tuple[bool, int]]) -> None:
    addresses = [six(number) if is_six else four(number) for is_six, number in kinds]
    made = plan(contact(addresses), Backoff(), me=ME, private_addresses=False, now_s=100.0)
    planned = [strategy.address for strategy in made.tcp]
    sixes = [address for address in addresses if len(address.ip) == 16]
    fours = [address for address in addresses if len(address.ip) == 4]
    assert [address for address in planned if len(address.ip) == 16] == sixes
    assert [address for address in planned if len(address.ip) == 4] == fours
    shorter = min(len(sixes), len(fours))
    assert [len(address.ip) for address in planned[: 2 * shorter]] == [16, 4] * shorter
    assert made.refused == ()


def test_an_address_that_failed_is_refused_with_the_reason_until_its_pause_is_over() -> None:
    backoff = Backoff()
    backoff.failed(four(1), 100.0)
    who = contact([four(1), four(2), six(1)])
    now = plan(who, backoff, me=ME, private_addresses=False, now_s=100.2)
    assert [s.address for s in now.tcp] == [six(1), four(2)]
    ((strategy, cause),) = now.refused
    assert strategy == TCPStrat(four(1))
    assert cause == Cause(AttemptReason.FAILED_BEFORE, "tried again in 0.3 s")
    later = plan(who, backoff, me=ME, private_addresses=False, now_s=100.5)
    assert [s.address for s in later.tcp] == [six(1), four(1), four(2)]


@given(
    st.lists(st.integers(0, 9).map(four), max_size=8, unique=True),
    st.sets(st.integers(0, 9)),
    st.booleans(),
)
def test_every_strategy_is_planned_or_refused_with_a_reason_never_forgotten(
    addresses: list[Address], failed: set[int], private_addresses: bool
) -> None:
    backoff = Backoff()
    for number in failed:
        backoff.failed(four(number), 100.0)
    relays = (relay(1), relay(2), relay(3))
    addresses = [*addresses, Address(bytes([127, 0, 0, 1]), 4000)]
    made = plan(
        contact(addresses, relays),
        backoff,
        me=relay(1).relay_id,
        private_addresses=private_addresses,
        now_s=100.1,
    )
    refused = [strategy for strategy, _ in made.refused]
    assert Counter([*made.tcp, *made.relays, *refused]) == Counter(
        [*map(TCPStrat, addresses), *relays]
    )
    assert all(reason for _, reason in made.refused)
    assert made.relays == (relay(2), relay(3))


def test_an_address_named_twice_is_tried_once() -> None:
    """A record with one address eight times would make everybody who dials it knock eight times
    at whoever lives there."""
    made = plan(
        contact([four(1)] * 4 + [six(1)] * 4, (relay(1), relay(1))),
        Backoff(),
        me=ME,
        private_addresses=False,
        now_s=100.0,
    )
    assert [strategy.address for strategy in made.tcp] == [six(1), four(1)]
    assert made.relays == (relay(1),)


def test_private_addresses_are_planned_in_the_networks_of_the_machine_only() -> None:
    addresses = [Address(bytes([192, 168, net, 7]), 4000) for net in (1, 2)]
    made = plan(
        contact(addresses),
        Backoff(),
        me=ME,
        private_addresses=False,
        now_s=100.0,
        interfaces=(ipaddress.ip_interface("192.168.1.2/24"),),
    )
    assert [strategy.address for strategy in made.tcp] == addresses[:1]
    assert [strategy for strategy, _ in made.refused] == [TCPStrat(addresses[1])]


def test_neither_end_is_its_own_relay() -> None:
    own, theirs, third = relay(1), relay(2), relay(3)
    who = Contact(theirs.relay_id, bytes(32), bytes(32), 1, (), (own, theirs, third))
    made = plan(who, Backoff(), me=own.relay_id, private_addresses=False, now_s=100.0)
    assert made.relays == (third,)
    assert [strategy for strategy, _ in made.refused] == [own, theirs]


@pytest.mark.parametrize(
    ("dead_ends", "first", "last"),
    [
        ([], [ADDRESS, ONE, TWO], []),
        ([ONE], [ADDRESS, TWO], [ONE]),
        ([TWO, ADDRESS], [ONE], [TWO, ADDRESS]),
        ([TWO, ADDRESS, ONE], [TWO], [ADDRESS, ONE]),
        ([relay(9)], [ADDRESS, ONE, TWO], []),
    ],
)
def test_ways_that_led_nowhere_come_last_but_one_is_always_first(
    dead_ends: list[CommStrat], first: list[CommStrat], last: list[CommStrat]
) -> None:
    made = plan(
        contact([four(1)], (ONE, TWO)),
        Backoff(),
        me=ME,
        private_addresses=False,
        now_s=100.0,
        dead_ends=tuple(map(way_of, dead_ends)),
    )
    assert ([*made.tcp, *made.relays], list(made.dead_ends)) == (first, last)


@pytest.mark.parametrize(("relays", "is_tried"), [((), True), ((ONE,), False)])
def test_an_address_that_led_nowhere_is_no_direct_way_if_there_is_a_relay(
    relays: tuple[RelayStrat, ...], *, is_tried: bool
) -> None:
    made = plan(
        contact([four(1)], relays),
        Backoff(),
        me=ME,
        private_addresses=False,
        now_s=100.0,
        with_relays=False,
        dead_ends=(way_of(ADDRESS),),
    )
    assert (made.tcp, made.dead_ends) == (((ADDRESS,), ()) if is_tried else ((), (ADDRESS,)))
    assert made.relays == ()


def test_a_search_for_a_direct_path_plans_no_relays() -> None:
    made = plan(
        contact([four(1)], (relay(1),)),
        Backoff(),
        me=ME,
        private_addresses=False,
        now_s=100.0,
        with_relays=False,
    )
    assert made.relays == ()
    assert len(made.tcp) == 1


# Contacts


def record(alice: Identity, channels: tuple[tuple[int, bytes], ...]) -> SignedCommRecord:
    content = CommRecord(1000, bytes(8), channels, (TCPStrat(four(1)), relay(1)))
    return SignedCommRecord.sign(alice, 7, content)


def test_a_contact_says_what_its_record_says(alice: Identity) -> None:
    made = Contact.of_record(record(alice, ((9, b"?"), (SUITE_AESGCM, bytes(32)))), 1000.0)
    assert made is not None
    assert (made.peer_id, made.key, made.sequence) == (alice.node_id, alice.key, 7)
    assert made.channel_key == bytes(32)
    assert made.tcp == (TCPStrat(four(1)),)
    assert made.relays == (relay(1),)
    assert made.expired


@pytest.mark.parametrize("channels", [(), ((2, bytes(32)),), ((SUITE_AESGCM, bytes(31)),)])
def test_a_record_without_a_usable_channel_key_gives_no_contact(
    alice: Identity, channels: tuple[tuple[int, bytes], ...]
) -> None:
    assert Contact.of_record(record(alice, channels), 0.0) is None


def test_a_contact_of_a_relay_comes_from_nobodys_own_record() -> None:
    strategy = RelayStrat(bytes([5]) * 32, SUITE_AESGCM, bytes(32), (four(1), six(1)))
    made = Contact.of_relay(strategy)
    assert made is not None
    assert made.sequence == 0
    assert made.peer_id == NodeId.of_key(strategy.relay_key)
    assert [tcp.address for tcp in made.tcp] == [four(1), six(1)]
    assert Contact.of_relay(RelayStrat(bytes(32), 2, bytes(32))) is None
