"""Whatever bytes come, by whomever: nothing is raised, forged or kept."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from egtp.channel.handshake import InitiationPayload
from egtp.channel.packet import Data, UnknownSession, decode_packet
from egtp.channel.sealed import item, write_sealed
from egtp.values import canonical
from egtp.values.canonical import Value
from egtp.values.comm_record import CommRecord
from egtp.values.comm_strat import CommStrat
from egtp.values.mutable_item import MutableItem
from tests.paths.hosts import (
    DATA,
    INITIATION,
    NOTE,
    RELAYS,
    RESPONSE,
    forge_initiation,
    identity,
    pair,
    talk,
    tcp,
)

COUNTERS_MAX = 40
"""How many different reasons there may be to drop something; texts of strangers are none."""


@given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from([tcp(101), *RELAYS]))))
def test_arbitrary_bytes_raise_nothing_and_make_no_state(
    packets: list[tuple[bytes, CommStrat]],
) -> None:
    _, bob = pair()
    for data, strategy in packets:
        bob.receive(data, strategy)
        for kind in (INITIATION, RESPONSE, DATA, NOTE):
            bob.receive(bytes((kind, 1, 1, 0)) + data, strategy)
    assert bob.told() == (0,) * 7
    assert bob.channels.unconfirmed == 0
    assert len(bob.counters) < COUNTERS_MAX
    assert all(sent.kind == NOTE for sent in bob.take())


def test_unknown_types_versions_and_suites_are_counted_and_never_answered() -> None:
    both = talk()
    packets = [*both.recording, both.alice.say(both.alices)]
    for packet in packets:
        for place, value in ((0, 0), (0, 5), (0, 255), (1, 0), (1, 2), (2, 0), (2, 2), (3, 1)):
            bent = bytearray(packet)
            bent[place] = value
            for strategy in (tcp(150), RELAYS[0]):
                rejected, counted = len(both.bob.rejected), both.bob.counters.total()
                both.bob.receive(bytes(bent), strategy)
                assert len(both.bob.rejected) == rejected + 1
                assert both.bob.counters.total() == counted + 1
    assert both.bob.take() == []


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 7),  # which packet
        st.sampled_from(["whole", "flip", "cut", "grow", "splice", "kind", "index"]),
        st.integers(0, 2**32),
        st.sampled_from([tcp(1), tcp(101), tcp(150), *RELAYS]),
        st.booleans(),  # to whom
    ),
    max_size=25,
)


@given(MUTATIONS)
def test_real_packets_bent_in_any_way_raise_nothing_and_forge_nothing(
    mutations: list[tuple[int, str, int, CommStrat, bool]],
) -> None:
    both = talk(relayed=True)
    alice, bob = both.alice, both.bob
    direct = talk(number=1, hosts=(alice, bob))
    alice.dial(bob, RELAYS[0])
    seeds = [
        *both.recording,
        *direct.recording,
        alice.take_one(INITIATION),
        UnknownSession(both.alices.session.index, bytes(16)).encode(),
    ]
    alices_confirmations, bobs_confirmations = len(alice.confirmations), len(bob.confirmations)
    learned = len(bob.learned)
    for which, how, number, strategy, to_alice in mutations:
        packet = bytearray(seeds[which])
        place = number % len(packet)
        if how == "flip":
            packet[place] ^= 1 + number % 255
        elif how == "cut":
            del packet[place:]
        elif how == "grow":
            packet += bytes(place)
        elif how == "splice":
            other = seeds[number % len(seeds)]
            packet[place:] = other[place:]
        elif how == "kind":
            packet[0] = number % 6
        elif how == "index":
            index = (both.alices, both.bobs, direct.alices, direct.bobs)[number % 4].session.index
            packet[4:12] = index.to_bytes(8, "big")
        (alice if to_alice else bob).receive(bytes(packet), strategy)
    assert len(alice.confirmations) == alices_confirmations
    assert len(bob.confirmations) == bobs_confirmations
    assert len(bob.learned) == learned
    assert alice.channels.unconfirmed + bob.channels.unconfirmed <= 4
    assert max(len(alice.counters), len(bob.counters)) < COUNTERS_MAX
    alice.take()
    bob.take()
    assert both.works()
    assert direct.works()


LEAF = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20)
    | st.text("abc", max_size=8)
)  # fmt: skip
VALUES = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4), max_leaves=10)


class Said:
    """A payload of an attacker's making."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def encode(self) -> bytes:
        try:
            return canonical.encode(self.value)
        except ValueError:
            return b"\xc1"


@given(st.lists(st.tuples(st.integers(0, 7), VALUES), max_size=10))
def test_what_somebody_with_keys_says_makes_few_counters_and_raises_nothing(
    said: list[tuple[int, Value]],
) -> None:
    _, bob = pair()
    for number, (place, value) in enumerate(said):

        def payload(honest: InitiationPayload, place: int = place, value: Value = value) -> Said:
            fields = canonical.decode(honest.encode())
            assert isinstance(fields, list)
            if place < len(fields):
                fields[place] = value
                return Said(fields)
            return Said(value)

        bob.receive(forge_initiation(bob, payload=payload, ephemeral=number + 1), RELAYS[0])
    assert bob.told() == (0,) * 7
    assert bob.channels.unconfirmed <= 8
    assert len(bob.counters) < COUNTERS_MAX


@given(st.lists(st.tuples(st.integers(0, 8), VALUES), max_size=10), st.binary(max_size=60))
@example([(5, []), (5, []), (5, [])], b"")
def test_a_signed_record_of_nonsense_makes_few_counters_and_raises_nothing(
    said: list[tuple[int, Value]], raw: bytes
) -> None:
    _, bob = pair()
    attacker = identity("mallory")
    content = CommRecord(2_000_000_000, b"incarnat", ((1, attacker.channel_key),), (RELAYS[0],))
    records = [MutableItem.sign(attacker, 1, raw).encode()]
    for place, value in said:
        fields = canonical.decode(content.encode())
        assert isinstance(fields, list)
        if place < len(fields):
            fields[place] = value
        nonsense = Said(fields if place < len(fields) else value).encode()
        records.append(MutableItem.sign(attacker, 1, nonsense[:800]).encode())
    for number, record in enumerate(records):

        def payload(honest: InitiationPayload, record: bytes = record) -> InitiationPayload:
            return replace(honest, record=record)

        bob.receive(forge_initiation(bob, payload=payload, ephemeral=number + 1), RELAYS[0])
    assert bob.told() == (0,) * 7
    assert bob.channels.unconfirmed <= 8
    assert len(bob.counters) < COUNTERS_MAX


def test_a_proven_peer_can_name_only_so_many_counters() -> None:
    both = talk(relayed=True)
    reasons = set[str]()
    for text in (b"", b"one", b"another"):
        for kind in range(256):
            plaintext = write_sealed(0, 0, [item(kind, text)])
            both.bob.receive(both.alices.session.seal(plaintext), both.at_bob)
        both.bob.take()
        reasons = reasons or set(both.bob.counters)
    # The type may be part of the reason, nothing else may.
    assert len(both.bob.counters) <= 128
    assert set(both.bob.counters) == reasons


def test_a_data_packet_says_no_more_than_was_sealed() -> None:
    both = talk()
    packet = decode_packet(both.alice.say(both.alices))
    assert isinstance(packet, Data)
    assert packet.receiver_index == both.bobs.session.index
    assert packet.counter == 1
