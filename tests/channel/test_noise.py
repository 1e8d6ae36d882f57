"""Noise IK against published vectors and against another implementation."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import HandshakeFailed
from egtp.noise import Handshake, nonce_of

with warnings.catch_warnings():
    # The package imports primitives that cryptography has moved; that is not our concern.
    warnings.simplefilter("ignore")
    from noise.connection import Keypair, NoiseConnection

VECTOR: dict[str, Any] = json.loads(
    Path(__file__).with_name("noise_ik_aesgcm_sha256.json").read_text()
)
LOW_ORDER = [bytes(32), b"\x01" + bytes(31)]


def key(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTOR[name]))


def public(secret: X25519PrivateKey) -> bytes:
    return secret.public_key().public_bytes_raw()


def test_the_published_vector_holds_for_every_message() -> None:
    responder_static = key("resp_static")
    prologue = bytes.fromhex(VECTOR["init_prologue"])
    ours = Handshake(prologue, key("init_static"), public(responder_static))
    theirs = Handshake(prologue, responder_static, public(responder_static))
    payloads = [bytes.fromhex(message["payload"]) for message in VECTOR["messages"]]
    packets = [bytes.fromhex(message["ciphertext"]) for message in VECTOR["messages"]]
    first = ours.write_initiation(key("init_ephemeral"), public(responder_static), payloads[0])
    assert first == packets[0]
    assert theirs.read_initiation(first) == payloads[0]
    second = theirs.write_response(key("resp_ephemeral"), payloads[1])
    assert second == packets[1]
    assert ours.read_response(second) == payloads[1]
    assert ours.hash == theirs.hash == bytes.fromhex(VECTOR["handshake_hash"])
    keys = ours.split()
    assert keys == theirs.split()
    for number, (payload, packet) in enumerate(zip(payloads[2:], packets[2:], strict=True)):
        cipher = AESGCM(keys[number % 2])
        assert cipher.encrypt(nonce_of(number // 2), payload, b"") == packet


@given(prologue=st.binary(max_size=80), payloads=st.tuples(st.binary(max_size=300), st.binary()))
def test_it_talks_to_another_implementation_in_both_roles(
    prologue: bytes, payloads: tuple[bytes, bytes]
) -> None:
    for we_begin in (True, False):
        mine, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        peer = NoiseConnection.from_name(b"Noise_IK_25519_AESGCM_SHA256")
        peer.set_prologue(prologue)
        peer.set_keypair_from_private_bytes(Keypair.STATIC, other.private_bytes_raw())
        if we_begin:
            peer.set_as_responder()
        else:
            peer.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public(mine))
            peer.set_as_initiator()
        peer.start_handshake()
        responder_static = public(other) if we_begin else public(mine)
        us = Handshake(prologue, mine, responder_static)
        if we_begin:
            packet = us.write_initiation(X25519PrivateKey.generate(), responder_static, payloads[0])
            assert bytes(peer.read_message(packet)) == payloads[0]
            assert us.read_response(bytes(peer.write_message(payloads[1]))) == payloads[1]
        else:
            assert us.read_initiation(bytes(peer.write_message(payloads[0]))) == payloads[0]
            assert us.remote == public(other)
            packet = us.write_response(X25519PrivateKey.generate(), payloads[1])
            assert bytes(peer.read_message(packet)) == payloads[1]
        send, receive = us.split() if we_begin else us.split()[::-1]
        sealed = AESGCM(send).encrypt(nonce_of(0), b"there", b"")
        assert bytes(peer.decrypt(sealed)) == b"there"
        assert AESGCM(receive).decrypt(nonce_of(0), bytes(peer.encrypt(b"back")), b"") == b"back"


def handshake() -> tuple[Handshake, Handshake, bytes]:
    mine, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    initiator = Handshake(b"p", mine, public(other))
    responder = Handshake(b"p", other, public(other))
    return initiator, responder, public(other)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_key_of_low_order_is_a_failed_handshake(point: bytes) -> None:
    initiator, responder, _ = handshake()
    with pytest.raises(HandshakeFailed):
        initiator.write_initiation(X25519PrivateKey.generate(), point, b"")
    with pytest.raises(HandshakeFailed):
        responder.read_initiation(point + os.urandom(64))


@given(place=st.integers(0, 8 * 100 - 1))
def test_a_flipped_bit_is_a_failed_handshake(place: int) -> None:
    initiator, responder, remote = handshake()
    packet = bytearray(initiator.write_initiation(X25519PrivateKey.generate(), remote, b"abcd"))
    if place != 255:  # the highest bit of a public key is ignored by X25519, yet hashed
        packet[place // 8] ^= 1 << place % 8
        with pytest.raises(HandshakeFailed):
            responder.read_initiation(bytes(packet))


def test_a_changed_header_is_a_failed_handshake() -> None:
    initiator, responder, remote = handshake()
    initiator.mix_header(b"header")
    responder.mix_header(b"hEader")
    packet = initiator.write_initiation(X25519PrivateKey.generate(), remote, b"")
    with pytest.raises(HandshakeFailed):
        responder.read_initiation(packet)
