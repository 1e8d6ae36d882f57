"""Noise IK against published vectors, against another implementation, and under attack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from egtp.channel.noise import INITIATION_OVERHEAD, RESPONSE_OVERHEAD, Handshake, nonce_of
from egtp.errors import HandshakeFailed
from egtp.values.static_key import StaticKey

VECTOR: dict[str, Any] = json.loads(
    Path(__file__).with_name("noise_ik_aesgcm_sha256.json").read_text(encoding="ascii")
)

_LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
# X25519 ignores the highest bit, so each of them has two encodings.
LOW_ORDER = [
    point[:31] + bytes((point[31] | high,)) for point in map(bytes.fromhex, _LOW_ORDER)
    for high in (0, 0x80)
]  # fmt: skip
PAYLOADS = st.binary(max_size=300)
SECRETS = st.binary(min_size=32, max_size=32)


def secret(fill: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes((fill,)) * 32)


def key(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTOR[name]))


def public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


INITIATOR, RESPONDER, EPHEMERAL = secret(1), secret(2), secret(3)


def pair(prologue: bytes = b"prologue") -> tuple[Handshake, Handshake]:
    """Both sides of a handshake that has not begun."""
    return (
        Handshake(prologue, StaticKey(INITIATOR), public(RESPONDER)),
        Handshake(prologue, StaticKey(RESPONDER), public(RESPONDER)),
    )


def begun(payload: bytes = b"text") -> tuple[Handshake, Handshake, bytes]:
    """Both sides, and the first message that the second of them has not read yet."""
    initiator, responder = pair()
    message = initiator.write_initiation(EPHEMERAL, public(RESPONDER), payload)
    return initiator, responder, message


def answered(payload: bytes = b"text") -> tuple[Handshake, Handshake, bytes]:
    """Both sides, and the second message that the first of them has not read yet."""
    initiator, responder, message = begun()
    responder.read_initiation(message)
    return initiator, responder, responder.write_response(secret(4), payload)


def test_the_published_vector_holds_for_every_message() -> None:
    responder_static = key("resp_static")
    assert public(responder_static).hex() == VECTOR["init_remote_static"]
    ours = Handshake(
        bytes.fromhex(VECTOR["init_prologue"]),
        StaticKey(key("init_static")),
        public(responder_static),
    )
    theirs = Handshake(
        bytes.fromhex(VECTOR["resp_prologue"]),
        StaticKey(responder_static),
        public(responder_static),
    )
    payloads = [bytes.fromhex(message["payload"]) for message in VECTOR["messages"]]
    packets = [bytes.fromhex(message["ciphertext"]) for message in VECTOR["messages"]]
    assert len(packets) == 6
    first = ours.write_initiation(key("init_ephemeral"), public(responder_static), payloads[0])
    assert first == packets[0]
    assert theirs.read_initiation(first) == payloads[0]
    assert theirs.remote == public(key("init_static"))
    second = theirs.write_response(key("resp_ephemeral"), payloads[1])
    assert second == packets[1]
    assert ours.read_response(second) == payloads[1]
    assert ours.hash == theirs.hash == bytes.fromhex(VECTOR["handshake_hash"])
    keys = ours.split()
    assert keys == theirs.split()
    for number, (payload, packet) in enumerate(zip(payloads[2:], packets[2:], strict=True)):
        cipher = AESGCM(keys[number % 2])
        assert cipher.encrypt(nonce_of(number // 2), payload, b"") == packet
        assert cipher.decrypt(nonce_of(number // 2), packet, b"") == payload


class Peer(Protocol):
    """As much of the other implementation, which has no types, as these tests use."""

    def set_prologue(self, prologue: bytes) -> None: ...
    def set_keypair_from_private_bytes(self, pair: object, key: bytes) -> None: ...
    def set_keypair_from_public_bytes(self, pair: object, key: bytes) -> None: ...
    def set_as_initiator(self) -> None: ...
    def set_as_responder(self) -> None: ...
    def start_handshake(self) -> None: ...
    def write_message(self, payload: bytes) -> bytearray: ...
    def read_message(self, data: bytes) -> bytearray: ...
    def encrypt(self, data: bytes) -> bytes: ...
    def decrypt(self, data: bytes) -> bytes: ...
    def get_handshake_hash(self) -> bytes: ...


def other_implementation(prologue: bytes, static: X25519PrivateKey) -> Peer:
    peer = cast("Peer", NoiseConnection.from_name(b"Noise_IK_25519_AESGCM_SHA256"))
    peer.set_prologue(prologue)
    peer.set_keypair_from_private_bytes(Keypair.STATIC, static.private_bytes_raw())
    return peer


def exchange_transport_messages(
    send: bytes, receive: bytes, peer: Peer, texts: list[bytes]
) -> None:
    ours, theirs = AESGCM(send), AESGCM(receive)
    for counter, text in enumerate(texts):
        assert peer.decrypt(ours.encrypt(nonce_of(counter), text, b"")) == text
        assert theirs.decrypt(nonce_of(counter), peer.encrypt(text), b"") == text


@given(st.binary(max_size=80), SECRETS, SECRETS, SECRETS, PAYLOADS, PAYLOADS, st.lists(PAYLOADS))
def test_an_initiation_of_ours_is_answered_by_another_implementation(
    prologue: bytes,
    static: bytes,
    ephemeral: bytes,
    remote: bytes,
    first: bytes,
    second: bytes,
    texts: list[bytes],
) -> None:
    remote_static = X25519PrivateKey.from_private_bytes(remote)
    us = Handshake(
        prologue, StaticKey(X25519PrivateKey.from_private_bytes(static)), public(remote_static)
    )
    peer = other_implementation(prologue, remote_static)
    peer.set_as_responder()
    peer.start_handshake()
    message = us.write_initiation(
        X25519PrivateKey.from_private_bytes(ephemeral), public(remote_static), first
    )
    assert len(message) == len(first) + INITIATION_OVERHEAD
    assert peer.read_message(message) == first
    answer = bytes(peer.write_message(second))
    assert len(answer) == len(second) + RESPONSE_OVERHEAD
    assert us.read_response(answer) == second
    assert us.hash == peer.get_handshake_hash()
    exchange_transport_messages(*us.split(), peer, texts)


@given(st.binary(max_size=80), SECRETS, SECRETS, SECRETS, PAYLOADS, PAYLOADS, st.lists(PAYLOADS))
def test_an_initiation_of_another_implementation_is_answered_by_ours(
    prologue: bytes,
    static: bytes,
    ephemeral: bytes,
    remote: bytes,
    first: bytes,
    second: bytes,
    texts: list[bytes],
) -> None:
    our_static = X25519PrivateKey.from_private_bytes(static)
    their_static = X25519PrivateKey.from_private_bytes(remote)
    us = Handshake(prologue, StaticKey(our_static), public(our_static))
    peer = other_implementation(prologue, their_static)
    peer.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public(our_static))
    peer.set_as_initiator()
    peer.start_handshake()
    assert us.read_initiation(bytes(peer.write_message(first))) == first
    assert us.remote == public(their_static)
    answer = us.write_response(X25519PrivateKey.from_private_bytes(ephemeral), second)
    assert peer.read_message(answer) == second
    assert us.hash == peer.get_handshake_hash()
    receive, send = us.split()
    exchange_transport_messages(send, receive, peer, texts)


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_a_responder_key_of_low_order_is_a_failed_handshake(point: bytes) -> None:
    initiator = Handshake(b"", StaticKey(INITIATOR), point)
    with pytest.raises(HandshakeFailed, match="low order"):
        initiator.write_initiation(EPHEMERAL, point, b"")


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_an_initiators_ephemeral_key_of_low_order_is_a_failed_handshake(point: bytes) -> None:
    _, responder, message = begun()
    with pytest.raises(HandshakeFailed, match="low order"):
        responder.read_initiation(point + message[32:])


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_a_responders_ephemeral_key_of_low_order_is_a_failed_handshake(point: bytes) -> None:
    initiator, _, message = answered()
    with pytest.raises(HandshakeFailed, match="low order"):
        initiator.read_response(point + message[32:])


class PublicKeyOf:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def public_bytes_raw(self) -> bytes:
        return self.raw


class NoSecret:
    """A "static key" without a secret: every agreement with its public key gives zeros."""

    def __init__(self, point: bytes) -> None:
        self.point = point

    def public_key(self) -> PublicKeyOf:
        return PublicKeyOf(self.point)

    def exchange(self, _: object) -> bytes:
        return bytes(32)


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_nobody_proves_a_static_key_of_low_order(point: bytes) -> None:
    # The agreement of such a key with any other is known to everybody: it would prove nothing.
    forger = Handshake(
        b"prologue", StaticKey(cast("X25519PrivateKey", NoSecret(point))), public(RESPONDER)
    )
    message = forger.write_initiation(EPHEMERAL, public(RESPONDER), b"")
    _, responder = pair()
    with pytest.raises(HandshakeFailed, match="low order"):
        responder.read_initiation(message)


def flipped(data: bytes, bit: int) -> bytes:
    bent = bytearray(data)
    bent[bit // 8] ^= 1 << bit % 8
    return bytes(bent)


def test_any_flipped_bit_of_an_initiation_is_a_failed_handshake() -> None:
    _, responder, message = begun()
    for bit in range(8 * len(message)):
        with pytest.raises(HandshakeFailed):
            responder.copy().read_initiation(flipped(message, bit))
    assert responder.copy().read_initiation(message) == b"text"


def test_any_flipped_bit_of_a_response_is_a_failed_handshake() -> None:
    initiator, _, message = answered()
    for bit in range(8 * len(message)):
        with pytest.raises(HandshakeFailed):
            initiator.copy().read_response(flipped(message, bit))
    assert initiator.copy().read_response(message) == b"text"


def test_any_truncation_of_an_initiation_is_a_failed_handshake() -> None:
    _, responder, message = begun()
    for size in range(len(message)):
        with pytest.raises(HandshakeFailed):
            responder.copy().read_initiation(message[:size])
    with pytest.raises(HandshakeFailed):
        responder.copy().read_initiation(message + b"\0")


def test_any_truncation_of_a_response_is_a_failed_handshake() -> None:
    initiator, _, message = answered()
    for size in range(len(message)):
        with pytest.raises(HandshakeFailed):
            initiator.copy().read_response(message[:size])
    with pytest.raises(HandshakeFailed):
        initiator.copy().read_response(message + b"\0")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_failed_handshake_and_no_other_error(data: bytes) -> None:
    initiator, responder, _ = begun()
    with pytest.raises(HandshakeFailed):
        responder.read_initiation(data)
    with pytest.raises(HandshakeFailed):
        initiator.read_response(data)


def test_a_response_to_nothing_is_a_failed_handshake() -> None:
    _, _, message = answered()
    never_begun, _ = pair()
    with pytest.raises(HandshakeFailed):
        never_begun.read_response(message)


def test_a_response_answers_one_initiation_only() -> None:
    _, _, message = answered()
    another, _ = pair()
    another.write_initiation(secret(9), public(RESPONDER), b"text")
    with pytest.raises(HandshakeFailed):
        another.read_response(message)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_prologue_that_differs_is_a_failed_handshake(ours: bytes, theirs: bytes) -> None:
    message = pair(ours)[0].write_initiation(EPHEMERAL, public(RESPONDER), b"")
    responder = pair(theirs)[1]
    if ours == theirs:
        assert responder.read_initiation(message) == b""
    else:
        with pytest.raises(HandshakeFailed):
            responder.read_initiation(message)


def test_a_header_that_differs_is_a_failed_handshake() -> None:
    initiator, responder = pair()
    initiator.mix_header(b"header")
    responder.mix_header(b"hEader")
    message = initiator.write_initiation(EPHEMERAL, public(RESPONDER), b"")
    with pytest.raises(HandshakeFailed):
        responder.read_initiation(message)


def test_somebody_elses_channel_key_cannot_read_the_initiation() -> None:
    _, _, message = begun()
    with pytest.raises(HandshakeFailed):
        Handshake(b"prologue", StaticKey(secret(7)), public(RESPONDER)).read_initiation(message)


def test_a_copy_that_failed_leaves_the_original_as_it_was() -> None:
    initiator, responder, message = answered()
    before = (initiator.hash, initiator.chaining_key)
    forged = initiator.copy()
    with pytest.raises(HandshakeFailed):
        forged.read_response(flipped(message, 300))
    assert forged.hash != initiator.hash
    assert (initiator.hash, initiator.chaining_key) == before
    succeeded = initiator.copy()
    assert succeeded.read_response(message) == b"text"
    assert (initiator.hash, initiator.chaining_key) == before
    assert initiator.read_response(message) == b"text"
    assert initiator.split() == succeeded.split() == responder.split()


def test_the_two_directions_have_different_keys() -> None:
    initiator, _, message = answered()
    initiator.read_response(message)
    ours, theirs = initiator.split()
    assert ours != theirs


def test_a_nonce_is_four_zero_bytes_and_the_counter() -> None:
    assert nonce_of(0) == bytes(12)
    assert nonce_of(0x0102030405060708) == bytes.fromhex("000000000102030405060708")
    assert nonce_of(2**64 - 1) == bytes(4) + b"\xff" * 8
