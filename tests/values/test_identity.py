"""Identities: keys, nodeIds, and what the identity key may sign (R12)."""

from __future__ import annotations

import base64
import copy
import hashlib
import os
import pickle
import random
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import InvalidRecord, LocalProtocolError
from egtp.values.identity import Identity, NodeId, check_key, verify

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

SMALL_ORDER_KEYS = {
    "0100000000000000000000000000000000000000000000000000000000000000",  # order 1
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 2
    "0000000000000000000000000000000000000000000000000000000000000000",  # order 4
    "0000000000000000000000000000000000000000000000000000000000000080",  # order 4
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",  # order 8
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",  # order 8
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",  # order 8
}
NON_CANONICAL_SMALL_ORDER_KEYS = {
    "0100000000000000000000000000000000000000000000000000000000000080",  # -0 for x
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",  # -0 for x
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # p for 0
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # p + 1 for 1
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

Point = tuple[int, int]


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    x3 = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y3 = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x3 % P, y3 % P


def times(scalar: int, point: Point) -> Point:
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def point_at(y: int) -> Point | None:
    """A point with that y coordinate, if the curve has one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def torsion_points() -> set[Point]:
    """The eight points of small order: multiples of one of order eight."""
    for y in range(2, 100):
        point = point_at(y)
        if point is not None:
            generator = times(L, point)
            if times(4, generator) != (0, 1):
                return {times(k, generator) for k in range(8)}
    raise AssertionError("no point of order eight")


def encoding(y: int, sign: int) -> str:
    return (y | sign << 255).to_bytes(32, "little").hex()


def test_a_node_id_is_the_sha1_of_key_and_salt(alice: Identity) -> None:
    expected = hashlib.sha1(alice.key + b"EGTP nodeId 1").digest()  # noqa: S324
    assert alice.node_id == NodeId.of_key(alice.key) == expected
    assert len(alice.node_id) == 20


def test_the_frozen_identities_are_made_from_their_seeds(vectors: dict[str, Any]) -> None:
    assert vectors["identities"]
    for frozen in vectors["identities"].values():
        seeds = [bytes.fromhex(frozen[name]) for name in ("channel_secret", "signing_seed")]
        identity = Identity.generate(lambda _: seeds.pop())  # noqa: B023
        assert identity.key.hex() == frozen["identity_key"]
        assert identity.channel_key.hex() == frozen["channel_key"]
        assert identity.node_id.hex() == frozen["node_id"]
        assert str(identity.node_id) == frozen["node_id_text"]
        assert NodeId.parse(frozen["node_id_text"]) == identity.node_id


def test_two_identities_from_the_system_differ() -> None:
    one, other = Identity.generate(os.urandom), Identity.generate(os.urandom)
    assert one.node_id != other.node_id
    assert one.channel_key != other.channel_key
    assert one.key != one.channel_key


@given(st.binary(min_size=20, max_size=20), st.randoms(use_true_random=False))
def test_a_node_id_is_read_in_either_case(value: bytes, rng: Any) -> None:
    text = str(NodeId(value))
    assert text == base64.b32encode(value).decode().lower()
    assert len(text) == 32
    mixed = "".join(rng.choice((char, char.upper())) for char in text)
    for written in (text, text.upper(), mixed):
        parsed = NodeId.parse(written)
        assert parsed == value
        assert type(parsed) is NodeId


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 31,
        "a" * 33,
        "a" * 40,
        "1" * 32,
        "0" * 32,
        "8" + "a" * 31,
        "a" * 31 + "=",
        "a" * 26 + "=" * 6,
        "a" * 24 + "=" * 8,
        "=" * 32,
        "a" * 31 + " ",
        "a" * 31 + "\n",
        " " + "a" * 31,
        "a" * 16 + "-" + "a" * 15,
        "\u00e9" * 32,
        "\u017f" * 32,  # the long s, which upper() turns into S
        "\u0131" * 32,  # the dotless i, which upper() turns into I
        "\uff21" * 32,
        "\ud800" * 32,
        "\x00" * 32,
        "00" * 20,  # hex
    ],
)
def test_a_wrong_peer_id_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="32 characters of base32"):
        NodeId.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_peer_id_or_the_users_mistake(text: str) -> None:
    try:
        parsed = NodeId.parse(text)
    except LocalProtocolError:
        return
    assert str(parsed) == text.lower()


def test_a_very_long_text_gives_a_short_error() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        NodeId.parse("x" * 1_000_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("size", [0, 19, 21, 32])
def test_a_node_id_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        NodeId(bytes(size))


def test_a_node_id_is_a_value(alice: Identity) -> None:
    node_id = alice.node_id
    for same in (copy.deepcopy(node_id), pickle.loads(pickle.dumps(node_id))):  # noqa: S301
        assert same == node_id
        assert type(same) is NodeId
    assert {node_id: 1}[NodeId(bytes(node_id))] == 1
    assert str(node_id) in repr(node_id)


def test_the_frozen_list_of_small_order_keys_is_the_whole_of_it() -> None:
    points = torsion_points()
    assert len(points) == 8
    canonical = {encoding(y, x & 1) for x, y in points}
    assert canonical == SMALL_ORDER_KEYS
    every = {
        encoding(written, sign)
        for _, y in points
        for written in (y, y + P)
        for sign in (0, 1)
        if written < 2**255
    }
    assert every - canonical == NON_CANONICAL_SMALL_ORDER_KEYS


@pytest.mark.parametrize("key", sorted(SMALL_ORDER_KEYS | NON_CANONICAL_SMALL_ORDER_KEYS))
def test_a_key_of_small_order_is_refused(key: str) -> None:
    with pytest.raises(InvalidRecord):
        check_key(bytes.fromhex(key))


def test_a_constant_signature_verifies_under_every_key_of_small_order() -> None:
    """Why they are refused: under these keys anybody signs anything, without any secret."""
    constant = (1).to_bytes(32, "little") + bytes(32)

    def accepted(key: str) -> int:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        count = 0
        for number in range(128):
            try:
                public.verify(constant, b"message %d" % number)
            except InvalidSignature:
                continue
            count += 1
        return count

    counts = {key: accepted(key) for key in SMALL_ORDER_KEYS}
    assert all(counts.values()), counts
    assert counts[encoding(1, 0)] == 128


def test_keys_that_are_not_canonically_encoded_are_refused() -> None:
    for y in range(P, 2**255):
        for sign in (0, 1):
            with pytest.raises(InvalidRecord):
                check_key(bytes.fromhex(encoding(y, sign)))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_another_size_are_refused(alice: Identity, size: int) -> None:
    with pytest.raises(InvalidRecord):
        check_key((alice.key * 2)[:size])


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_accepted(seed: bytes) -> None:
    check_key(Identity.generate(lambda _: seed).key)


@given(st.binary(max_size=70))
def test_any_bytes_are_a_key_or_refused_with_the_typed_error(key: bytes) -> None:
    try:
        check_key(key)
    except InvalidRecord:
        return
    assert len(key) == 32


def test_a_signature_verifies_only_with_its_key_and_message(alice: Identity, bob: Identity) -> None:
    message = b"4:salt13:EGTP nodeId 13:seqi1e1:v0:"
    signature = alice.sign(message)
    assert verify(alice.key, signature, message)
    assert not verify(bob.key, signature, message)
    assert not verify(alice.key, signature, message + b"0")
    assert not verify(alice.key, signature[:-1], message)
    assert not verify(alice.key, signature + b"\x00", message)
    assert not verify(alice.key, b"", message)


def test_a_signature_cannot_be_rewritten_without_the_key(alice: Identity) -> None:
    """Adding the group order to S gives other bytes for the same equation."""
    message = b"4:salt13:EGTP nodeId 13:seqi1e1:v0:"
    signature = alice.sign(message)
    larger = int.from_bytes(signature[32:], "little") + L
    assert not verify(alice.key, signature[:32] + larger.to_bytes(32, "little"), message)


@pytest.mark.parametrize(
    "buffer",
    [
        b"4:salt13:EGTP nodeId 13:seqi1e1:v0:",
        b"EGTP1 invitation\0",
        b"EGTP1 invitation\0 and more \0",
    ],
)
def test_records_and_tagged_buffers_are_signed(alice: Identity, buffer: bytes) -> None:
    assert verify(alice.key, alice.sign(buffer), buffer)


@pytest.mark.parametrize(
    "buffer",
    [
        b"",
        b"hello",
        b"4:sal",
        b" 4:salt",
        b"3:seqi1e1:v0:",  # a BEP 44 buffer without salt: another application's
        b"EGTP nodeId 1",
        b"EGTP1",
        b"EGTP2 purpose\0",
        b"egtp1 purpose\0",
        b"EGTP1\0purpose\0",
        b"\0EGTP1 purpose\0",
    ],
)
def test_other_buffers_are_never_signed(alice: Identity, buffer: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        alice.sign(buffer)


@pytest.mark.parametrize("buffer", [b"EGTP1 ", b"EGTP1 purpose", b"EGTP1 \0rest"])
def test_a_tag_without_a_purpose_and_its_end_is_never_signed(
    alice: Identity, buffer: bytes
) -> None:
    """Without the NUL, one purpose could be the beginning of another."""
    with pytest.raises(LocalProtocolError):
        alice.sign(buffer)


def test_private_keys_are_not_pickled_or_copied(alice: Identity) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(alice, protocol)
        with pytest.raises(TypeError):
            pickle.dumps({"identity": [alice]}, protocol)
    for copier in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copier(alice)


def test_nothing_printed_shows_a_secret() -> None:
    seeds = [hashlib.sha256(name).digest() for name in (b"signing", b"channel")]
    remaining = iter(seeds)
    identity = Identity.generate(lambda _: next(remaining))
    printed = f"{identity!r} {identity!s} {identity} {[identity]} {identity.node_id!r}"
    for seed in seeds:
        shown = (
            seed.hex(),
            seed.hex().upper(),
            repr(seed),
            base64.b64encode(seed).decode(),
            base64.urlsafe_b64encode(seed).decode(),
            base64.b32encode(seed).decode().lower(),
            str(int.from_bytes(seed, "little")),
        )
        assert not any(form.rstrip("=") in printed for form in shown)
    assert str(identity.node_id) in printed


def test_an_identity_equals_itself_only() -> None:
    """Comparing identities by their secrets would invite comparing secrets."""
    assert Identity.generate(lambda _: b"s" * 32) != Identity.generate(lambda _: b"s" * 32)


@given(st.binary(max_size=100), st.from_regex(r"[a-z0-9._-]{1,64}", fullmatch=True))
def test_what_a_node_has_signed_for_an_app_is_its_and_for_that_purpose_only(
    data: bytes, purpose: str
) -> None:
    ann, ben = Identity.generate(bytes), Identity.generate(random.Random(1).randbytes)
    signature = ann.sign_for(purpose, data)
    assert len(signature) == 96
    assert ann.node_id.has_signed(purpose, data, signature)
    assert not ben.node_id.has_signed(purpose, data, signature)
    assert not ann.node_id.has_signed(purpose, data + b"!", signature)
    assert not ann.node_id.has_signed("another." + purpose[:50], data, signature)


@given(st.binary(max_size=100))
def test_what_a_stranger_sends_as_a_signature_is_none(signature: bytes) -> None:
    ann = Identity.generate(bytes)
    assert not ann.node_id.has_signed("note", b"data", signature)


@given(st.integers(0, 95), st.integers(1, 255))
def test_a_signature_with_one_byte_changed_is_none(place: int, by: int) -> None:
    ann = Identity.generate(bytes)
    signature = bytearray(ann.sign_for("note", b"data"))
    signature[place] ^= by
    assert not ann.node_id.has_signed("note", b"data", bytes(signature))


@pytest.mark.parametrize("key", sorted(SMALL_ORDER_KEYS | NON_CANONICAL_SMALL_ORDER_KEYS))
def test_nobody_has_signed_anything_with_a_key_that_everybody_can_sign_with(key: str) -> None:
    """The constant signature that passes for any message under a key of small order."""
    weak = bytes.fromhex(key)
    signature = weak + bytes.fromhex("01" + 31 * "00" + 32 * "00")
    assert not NodeId.of_key(weak).has_signed("note", b"data", signature)


@pytest.mark.parametrize("purpose", ["", "Note", "a b", "a\0", "x" * 65, "\u00e4"])
def test_a_purpose_has_the_form_of_a_kind(purpose: str) -> None:
    ann = Identity.generate(bytes)
    with pytest.raises(LocalProtocolError, match="a purpose has 1 to 64 of the characters"):
        ann.sign_for(purpose, b"")


def test_signatures_for_apps_have_frozen_bytes(vectors: dict[str, Any]) -> None:
    frozen = vectors["app_signature"]
    seed = bytes.fromhex(vectors["identities"]["alice"]["signing_seed"])
    alice = Identity.generate(lambda size: seed[:size])
    signature = alice.sign_for(frozen["purpose"], bytes.fromhex(frozen["data"]))
    assert signature.hex() == frozen["signature"]
    assert alice.key.hex() == vectors["identities"]["alice"]["identity_key"]
