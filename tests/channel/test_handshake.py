"""The handshake: who can be taken for whom, and what a stranger's bytes can do (nothing)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.handshake import (
    RECORD_ROOM_BYTES,
    InitiationPayload,
    Initiator,
    PeerLimits,
    Responder,
    ResponsePayload,
    SessionKeys,
    prologue,
)
from egtp.channel.packet import Initiation, Response, decode_packet
from egtp.errors import HandshakeFailed, InvalidPacket, InvalidRecord
from egtp.values import canonical
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import Identity, NodeId
from tests.channel.freeze_vectors import ephemeral_secrets, freeze, identity, payloads

LIMITS = PeerLimits(65_536, 131_072, 16, 262_144)
INCARNATION = b"incarnat"
INDEX = 0x1122334455667788

U64 = st.integers(0, 2**64 - 1)
PEER_LIMITS = st.builds(PeerLimits, U64, U64, U64, U64)
INCARNATIONS = st.binary(min_size=8, max_size=8)
IPS = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
ADDRESSES = st.builds(Address, IPS, st.integers(1, 65_535))
INITIATIONS = st.builds(
    InitiationPayload,
    st.binary(max_size=920),
    U64,
    U64,
    st.none() | INCARNATIONS,
    INCARNATIONS,
    PEER_LIMITS,
    st.binary(max_size=100),
    check=st.none() | st.binary(min_size=16, max_size=16),
)
RESPONSES = st.builds(
    ResponsePayload,
    INCARNATIONS,
    U64,
    st.booleans(),
    st.none() | ADDRESSES,
    U64,
    PEER_LIMITS,
    st.none() | st.binary(max_size=920),
)
LEAF = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20)
    | st.text("ab", max_size=3)
)  # fmt: skip
# At most three deep, so that they may stand in the array of a payload, which counts as one more.
VALUES: st.SearchStrategy[canonical.Value] = LEAF
for _ in range(3):
    VALUES = LEAF | st.lists(VALUES, max_size=3)


def ephemeral(fill: int = 7) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes((fill,)) * 32)


def record_of(
    identity: Identity,
    *,
    channel_key: bytes | None = None,
    strategies: int = 0,
    channels: tuple[tuple[int, bytes], ...] = (),
) -> SignedCommRecord:
    content = CommRecord(
        2_000_000_000,
        INCARNATION,
        (*channels, (1, channel_key or identity.channel_key)),
        tuple(TCPStrat(Address(bytes(15) + bytes((n,)), 65_535)) for n in range(strategies)),
    )
    return SignedCommRecord.sign(identity, 5, content)


def introduction(identity: Identity, **changes: Any) -> InitiationPayload:
    payload = InitiationPayload(
        record_of(identity).encode(), 1_800_000_000_000, 5, None, INCARNATION, LIMITS
    )
    return replace(payload, **changes)


ANSWER = ResponsePayload(INCARNATION, 1000, False, None, 1_800_000_000_001, LIMITS)


def begin(
    identity: Identity,
    responder: Identity,
    *,
    network: str = "main",
    payload: InitiationPayload | None = None,
    key: bytes | None = None,
    channel_key: bytes | None = None,
) -> tuple[Initiator, Initiation]:
    initiator = Initiator(
        identity, network, key or responder.key, channel_key or responder.channel_key, INDEX
    )
    return initiator, initiator.initiate(payload or introduction(identity), ephemeral())


# What is on the wire.


def test_the_prologue_names_suite_network_and_responder(vectors: dict[str, Any]) -> None:
    key = bytes(range(32))
    assert prologue("main", key) == b"EGTP1 IK\x00\x01\x04main" + key
    assert prologue("", key) == b"EGTP1 IK\x00\x01\x00" + key
    assert prologue("x" * 255, key) == b"EGTP1 IK\x00\x01\xff" + b"x" * 255 + key
    bob = bytes.fromhex(vectors["identities"]["bob"]["identity_key"])
    assert prologue("main", bob).hex() == vectors["handshake"]["prologue"]


@given(INITIATIONS)
def test_an_initiations_payload_survives_the_round_trip(payload: InitiationPayload) -> None:
    assert InitiationPayload.decode(payload.encode()) == payload


@given(RESPONSES)
def test_a_responses_payload_survives_the_round_trip(payload: ResponsePayload) -> None:
    assert ResponsePayload.decode(payload.encode()) == payload


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_payload(data: bytes) -> None:
    for decode in (InitiationPayload.decode, ResponsePayload.decode):
        with pytest.raises(HandshakeFailed):
            decode(data)


def fields_of(payload: InitiationPayload | ResponsePayload) -> list[canonical.Value]:
    fields = canonical.decode(payload.encode())
    assert isinstance(fields, list)
    return fields


@given(
    st.sampled_from([introduction, lambda _: ANSWER]),
    st.dictionaries(st.integers(0, 9), VALUES, max_size=3),
    st.integers(0, 10),
)
def test_any_other_fields_are_a_payload_or_a_failed_handshake(
    make: Any, changes: dict[int, canonical.Value], kept: int
) -> None:
    payload = make(IDENTITY)
    fields = [*fields_of(payload), None][:kept]
    for place, value in changes.items():
        if place < len(fields):
            fields[place] = value
    decoded: InitiationPayload | ResponsePayload | None = None
    try:
        decoded = type(payload).decode(canonical.encode(fields))
    except HandshakeFailed:
        return
    # What was accepted means what its first fields say; what a later version adds is skipped.
    assert len(fields_of(decoded)) == len(fields_of(payload)) <= len(fields)


@pytest.mark.parametrize("payload", [INITIATIONS, RESPONSES], ids=["initiation", "response"])
def test_fields_that_a_later_version_adds_are_skipped(
    payload: st.SearchStrategy[InitiationPayload | ResponsePayload],
) -> None:
    @given(payload, st.lists(VALUES, max_size=3))
    def check(payload: InitiationPayload | ResponsePayload, later: list[Any]) -> None:
        data = canonical.encode([*fields_of(payload), *later])
        assert type(payload).decode(data) == payload

    check()


@pytest.mark.parametrize("later", [0, b"bytes", None, "text", [1, 2]], ids=repr)
def test_limits_that_a_later_version_adds_are_skipped_whatever_their_type(later: Any) -> None:
    assert PeerLimits.parse([1, 2, 3, 4, later]) == PeerLimits(1, 2, 3, 4)


@pytest.mark.parametrize("said", [[], [1, 2, 3], 4, b"1234", None])
def test_fewer_limits_than_four_are_a_failed_handshake(said: canonical.Value) -> None:
    with pytest.raises(HandshakeFailed):
        PeerLimits.parse(said)


@pytest.mark.parametrize("place", [3, 4])
@pytest.mark.parametrize("size", [0, 1, 7, 9])
def test_an_incarnation_has_eight_bytes(place: int, size: int, alice: Identity) -> None:
    fields = fields_of(introduction(alice, responder_incarnation=INCARNATION))
    fields[place] = bytes(size)
    with pytest.raises(HandshakeFailed):
        InitiationPayload.decode(canonical.encode(fields))


@pytest.mark.parametrize("size", [0, 15, 17])
def test_the_token_of_a_dial_back_has_sixteen_bytes(size: int, alice: Identity) -> None:
    with pytest.raises(HandshakeFailed):
        InitiationPayload.decode(introduction(alice, check=bytes(size)).encode())


@pytest.mark.parametrize(
    "observed",
    [
        [bytes(4), 65_536],
        [bytes(4), 2**32 - 1],
        [bytes(4), -1],
        [bytes(4), True],
        [bytes(5), 80],
        [b"", 80],
        [bytes(4)],
        [],
        "here",
    ],
    ids=repr,
)
def test_an_observed_address_is_one_that_exists(observed: canonical.Value) -> None:
    fields = fields_of(ANSWER)
    fields[3] = observed
    with pytest.raises(HandshakeFailed):
        ResponsePayload.decode(canonical.encode(fields))


# Both sides.


def finish(
    identity: Identity,
    responder_identity: Identity,
    payload: InitiationPayload | None = None,
    answer: ResponsePayload = ANSWER,
) -> tuple[Initiation, Response, ResponsePayload, SessionKeys, SessionKeys]:
    initiator, initiation = begin(identity, responder_identity, payload=payload)
    responder = Responder(responder_identity, "main", initiation)
    response, theirs = responder.respond(answer, 99, ephemeral(8))
    answered, ours = initiator.finish(response)
    return initiation, response, answered, ours, theirs


def test_both_sides_get_the_same_keys_and_each_others_payload(
    alice: Identity, bob: Identity
) -> None:
    payload = introduction(alice, early=b"early")
    initiator, initiation = begin(alice, bob, payload=payload)
    responder = Responder(bob, "main", initiation)
    assert responder.payload == payload
    assert responder.record.peer_id == alice.node_id
    response, theirs = responder.respond(ANSWER, 99, ephemeral(8))
    assert (response.receiver_index, response.sender_index) == (INDEX, 99)
    answer, ours = initiator.finish(response)
    assert answer == ANSWER
    assert (ours.send, ours.receive) == (theirs.receive, theirs.send)
    assert ours.send != ours.receive


def test_a_record_that_is_known_byte_for_byte_is_not_verified_again(
    alice: Identity, bob: Identity
) -> None:
    known, asked = record_of(alice), []

    def known_record(peer_id: NodeId) -> SignedCommRecord | None:
        asked.append(peer_id)
        return known if peer_id == alice.node_id else None

    _, initiation = begin(alice, bob)
    assert Responder(bob, "main", initiation, known_record).record is known
    assert asked == [alice.node_id]
    _, initiation = begin(alice, bob, payload=introduction(alice, record=record_of(bob).encode()))
    with pytest.raises(InvalidRecord, match="another channel key"):
        Responder(bob, "main", initiation, known_record)


@given(st.integers(0, 250), st.integers(1, 255))
def test_what_differs_in_one_byte_from_what_is_known_is_verified(at: int, flip: int) -> None:
    alice, bob = Identity.generate(bytes), Identity.generate(lambda n: b"b" * n)
    known = record_of(alice)
    data = bytearray(known.encode())
    data[at % len(data)] ^= flip
    _, initiation = begin(alice, bob, payload=introduction(alice, record=bytes(data)))
    with pytest.raises(InvalidRecord):
        Responder(bob, "main", initiation, lambda _: known)


def test_the_frozen_handshake_in_both_directions(vectors: dict[str, Any]) -> None:
    alice, bob = (identity(keys) for keys in vectors["identities"].values())
    for one, keys in zip((alice, bob), vectors["identities"].values(), strict=True):
        assert one.key.hex() == keys["identity_key"]
        assert one.channel_key.hex() == keys["channel_key"]
    shake, packets = vectors["handshake"], vectors["packets"]
    first, second = shake["initiation_payload"], shake["response_payload"]
    introduced, answer = payloads(shake)
    assert introduced.encode().hex() == first["bytes"]
    assert answer.encode().hex() == second["bytes"]
    initiator = Initiator(
        alice, shake["network"], bob.key, bob.channel_key, int(shake["initiator_index"], 16)
    )
    secrets = ephemeral_secrets(shake)
    initiation = initiator.initiate(introduced, secrets[0])
    assert initiation.encode().hex() == packets["initiation"]["bytes"]
    responder = Responder(bob, shake["network"], initiation)
    assert responder.payload == introduced
    response, theirs = responder.respond(answer, int(shake["responder_index"], 16), secrets[1])
    assert response.encode().hex() == packets["response"]["bytes"]
    answered, ours = initiator.finish(response)
    assert answered == answer
    assert ours.send.hex() == theirs.receive.hex() == shake["initiator_to_responder_key"]
    assert ours.receive.hex() == theirs.send.hex() == shake["responder_to_initiator_key"]


def test_the_frozen_vectors_would_be_frozen_as_they_are(vectors: dict[str, Any]) -> None:
    anew = deepcopy(vectors)
    freeze(anew)
    assert anew == vectors


# Whom one can be taken for.


def test_another_network_is_a_failed_handshake(alice: Identity, bob: Identity) -> None:
    for ours, theirs in (("main", "test"), ("main", "mai"), ("", "main"), ("mainx", "main")):
        _, initiation = begin(alice, bob, network=ours)
        with pytest.raises(HandshakeFailed):
            Responder(bob, theirs, initiation)


def test_a_record_that_names_somebody_elses_channel_key_leads_nobody_there(
    alice: Identity, bob: Identity, mallory: Identity
) -> None:
    # The unknown-key-share attack: Bob believes to dial Mallory, whose record lists Alice's
    # channel key, and would otherwise talk to Alice, who would never know.
    forged = record_of(mallory, channel_key=alice.channel_key)
    _, initiation = begin(bob, alice, key=forged.key, channel_key=alice.channel_key)
    assert initiation.mac_is_right(alice.channel_key)
    with pytest.raises(HandshakeFailed, match="does not authenticate"):
        Responder(alice, "main", initiation)


def test_a_record_of_another_channel_key_than_the_proven_one_is_refused(
    alice: Identity, bob: Identity, mallory: Identity
) -> None:
    # Mallory shows Alice's record, which anybody can have, or one of her own that names Alice's
    # channel key.
    for record in (record_of(alice), record_of(mallory, channel_key=alice.channel_key)):
        _, initiation = begin(mallory, bob, payload=introduction(mallory, record=record.encode()))
        with pytest.raises(InvalidRecord, match="another channel key"):
            Responder(bob, "main", initiation)


def test_only_the_channel_key_of_the_suite_counts(
    alice: Identity, bob: Identity, mallory: Identity
) -> None:
    # The key that Mallory proves is listed, but for another suite, or as second choice.
    for channels in (((2, mallory.channel_key),), ((1, alice.channel_key),)):
        last = alice if channels[0][0] == 2 else mallory
        record = record_of(mallory, channel_key=last.channel_key, channels=channels)
        _, initiation = begin(mallory, bob, payload=introduction(mallory, record=record.encode()))
        with pytest.raises(InvalidRecord):
            Responder(bob, "main", initiation)


def test_a_record_with_a_wrong_signature_is_refused(alice: Identity, bob: Identity) -> None:
    bent = bytearray(record_of(alice).encode())
    bent[-1] ^= 1
    _, initiation = begin(alice, bob, payload=introduction(alice, record=bytes(bent)))
    with pytest.raises(InvalidRecord):
        Responder(bob, "main", initiation)


class CountingSecret:
    """A channel key that tells how often it was used."""

    def __init__(self, real: X25519PrivateKey) -> None:
        self.real = real
        self.agreements = 0

    def public_key(self) -> X25519PublicKey:
        return self.real.public_key()

    def exchange(self, peer: X25519PublicKey) -> bytes:
        self.agreements += 1
        return self.real.exchange(peer)


def test_mac1_is_checked_before_any_key_agreement(alice: Identity) -> None:
    secret = CountingSecret(ephemeral(9))
    bob = Identity(
        Ed25519PrivateKey.from_private_bytes(bytes(32)), cast("X25519PrivateKey", secret)
    )
    _, initiation = begin(alice, bob)
    for bit in range(128):
        mac = bytearray(initiation.mac1)
        mac[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HandshakeFailed, match="mac1"):
            Responder(bob, "main", replace(initiation, mac1=bytes(mac)))
    assert secret.agreements == 0
    Responder(bob, "main", initiation)
    assert secret.agreements == 2


def test_an_initiation_for_somebody_else_fails_at_mac1(
    alice: Identity, bob: Identity, mallory: Identity
) -> None:
    _, initiation = begin(alice, mallory)
    with pytest.raises(HandshakeFailed, match="mac1"):
        Responder(bob, "main", initiation)


def test_the_senders_index_is_bound(alice: Identity, bob: Identity) -> None:
    _, initiation = begin(alice, bob)
    for bit in range(64):
        # With a mac1 that is right: anybody who knows Bob's record can make one.
        bent = Initiation.with_mac(INDEX ^ 1 << bit, initiation.noise, bob.channel_key)
        with pytest.raises(HandshakeFailed, match="does not authenticate"):
            Responder(bob, "main", bent)


def test_both_indices_of_a_response_are_bound(alice: Identity, bob: Identity) -> None:
    initiator, initiation = begin(alice, bob)
    response, _ = Responder(bob, "main", initiation).respond(ANSWER, 99, ephemeral(8))
    for bit in range(64):
        for bent in (
            replace(response, receiver_index=INDEX ^ 1 << bit),
            replace(response, sender_index=99 ^ 1 << bit),
        ):
            with pytest.raises(HandshakeFailed, match="does not authenticate"):
                initiator.finish(bent)
    initiator.finish(response)


def test_the_real_response_still_counts_after_forged_ones(
    alice: Identity, bob: Identity, mallory: Identity
) -> None:
    initiator, initiation = begin(alice, bob)
    real, theirs = Responder(bob, "main", initiation).respond(ANSWER, 99, ephemeral(8))
    bent = bytearray(real.noise)
    bent[40] ^= 1
    _, other_initiation = begin(alice, mallory)
    other, _ = Responder(mallory, "main", other_initiation).respond(ANSWER, 99, ephemeral(8))
    for forged in (
        replace(real, noise=bytes(bent)),
        replace(real, noise=bytes(48)),
        replace(real, noise=real.noise[:47]),
        other,
    ):
        with pytest.raises(HandshakeFailed):
            initiator.finish(forged)
    assert initiator.finish(real) == (ANSWER, SessionKeys(theirs.receive, theirs.send))


def test_a_response_to_an_earlier_handshake_is_refused(alice: Identity, bob: Identity) -> None:
    _, initiation = begin(alice, bob)
    recorded, _ = Responder(bob, "main", initiation).respond(ANSWER, 99, ephemeral(8))
    again = Initiator(alice, "main", bob.key, bob.channel_key, INDEX)
    again.initiate(introduction(alice), ephemeral(12))
    with pytest.raises(HandshakeFailed):
        again.finish(recorded)


def identity_for_fuzzing() -> Identity:
    parts = iter((b"s" * 32, b"c" * 32))
    return Identity.generate(lambda _: next(parts))


IDENTITY = identity_for_fuzzing()


@given(st.integers(0), st.integers(1, 255), st.booleans())
def test_a_bent_initiation_is_refused_whether_or_not_mac1_is_right(
    place: int, change: int, mend_mac: bool
) -> None:
    _, initiation = begin(IDENTITY, IDENTITY)
    data = bytearray(initiation.encode())
    data[place % len(data)] ^= change
    if mend_mac:
        data[-16:] = Initiation.with_mac(
            int.from_bytes(data[4:12], "big"), bytes(data[12:-16]), IDENTITY.channel_key
        ).mac1
    try:
        packet = decode_packet(bytes(data))
    except InvalidPacket:
        return
    if not isinstance(packet, Initiation) or packet == initiation:
        return
    with pytest.raises(HandshakeFailed):
        Responder(IDENTITY, "main", packet)


@given(VALUES)
def test_a_proven_initiator_who_says_nonsense_is_refused(value: canonical.Value) -> None:
    class Nonsense:
        def encode(self) -> bytes:
            return canonical.encode(value)

    _, initiation = begin(IDENTITY, IDENTITY, payload=cast("InitiationPayload", Nonsense()))
    with pytest.raises(HandshakeFailed):
        Responder(IDENTITY, "main", initiation)


@given(st.binary(max_size=1000))
def test_a_proven_initiator_whose_record_is_nonsense_is_refused(record: bytes) -> None:
    _, initiation = begin(IDENTITY, IDENTITY, payload=introduction(IDENTITY, record=record))
    with pytest.raises(InvalidRecord):
        Responder(IDENTITY, "main", initiation)


# Amplification.


@given(
    st.integers(0, 8),
    st.integers(0, 8),
    st.none() | ADDRESSES,
    U64,
    st.integers(0, 1200),
    st.sampled_from([0, 2**64 - 1]),
)
def test_a_response_is_never_larger_than_the_initiation(
    ours: int, theirs: int, observed: Address | None, number: int, padding: int, extreme: int
) -> None:
    small = PeerLimits(0, 0, 0, 0)
    large = PeerLimits(extreme, extreme, extreme, extreme)
    payload = InitiationPayload(
        record_of(IDENTITY, strategies=ours).encode(),
        0,
        0,
        None,
        INCARNATION,
        small,
        bytes(padding),
    )
    record = record_of(IDENTITY, strategies=theirs).encode()
    answer = ResponsePayload(INCARNATION, number, False, observed, number, large, record)
    initiation, response, answered, _, _ = finish(IDENTITY, IDENTITY, payload, answer)
    assert len(response.encode()) <= len(initiation.encode())
    assert answered in (answer, replace(answer, record=None))


def test_there_is_room_for_any_record_in_the_response_to_a_padded_initiation() -> None:
    friends = tuple(IDENTITY.node_id for _ in range(8))
    content = CommRecord(
        2_000_000_000,
        INCARNATION,
        ((1, IDENTITY.channel_key), (300, bytes(250))),
        tuple(TCPStrat(Address(bytes(16), 65_535)) for _ in range(8)),
        friends,
    )
    largest = SignedCommRecord.sign(IDENTITY, 2**48 - 1, content).encode()
    assert len(largest) > 750
    answer = ResponsePayload(
        INCARNATION,
        2**64 - 1,
        False,
        Address(bytes(16), 65_535),
        2**64 - 1,
        PeerLimits(*[2**64 - 1] * 4),
        largest + bytes(920 - len(largest)),
    )
    payload = introduction(
        IDENTITY, limits=PeerLimits(0, 0, 0, 0), time_ms=0, early=bytes(RECORD_ROOM_BYTES)
    )
    initiation, response, answered, _, _ = finish(IDENTITY, IDENTITY, payload, answer)
    assert answered.record is not None
    assert len(response.encode()) <= len(initiation.encode())
