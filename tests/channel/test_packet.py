"""Packets: their exact bytes, and what is refused. The vectors are for second implementers too."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.frames import frame
from egtp.channel.packet import (
    Data,
    Initiation,
    Packet,
    Response,
    UnknownSession,
    decode_packet,
    is_initiation_for,
    mac1,
)
from egtp.channel.session import InOrder, Session
from egtp.errors import InvalidPacket

INDICES = st.integers(0, 2**64 - 1)
KEYS = st.binary(min_size=32, max_size=32)
INITIATIONS = st.builds(
    Initiation,
    INDICES,
    st.binary(min_size=96, max_size=400),
    st.binary(min_size=16, max_size=16),
)
RESPONSES = st.builds(Response, INDICES, INDICES, st.binary(min_size=48, max_size=400))
NOTES = st.builds(UnknownSession, INDICES, st.binary(min_size=16, max_size=16))
PACKETS: st.SearchStrategy[Initiation | Response | UnknownSession] = st.one_of(
    INITIATIONS, RESPONSES, NOTES
)


@given(PACKETS)
def test_every_packet_survives_the_round_trip(
    packet: Initiation | Response | UnknownSession,
) -> None:
    assert decode_packet(packet.encode()) == packet


@given(INDICES, INDICES, st.binary(min_size=16, max_size=200))
def test_a_data_packet_gives_its_header_and_what_is_sealed(
    receiver: int, counter: int, ciphertext: bytes
) -> None:
    header = struct.pack(">BBBBQQ", 3, 1, 1, 0, receiver, counter)
    packet = decode_packet(header + ciphertext)
    assert packet == Data(receiver, counter, header, ciphertext)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_packet_or_invalid(data: bytes) -> None:
    decoded: Packet | None = None
    try:
        decoded = decode_packet(data)
    except InvalidPacket:
        return
    if not isinstance(decoded, Data):
        assert decoded.encode() == data


@given(st.integers(1, 4), st.binary(max_size=300))
def test_a_good_beginning_and_arbitrary_bytes_are_a_packet_or_invalid(
    kind: int, rest: bytes
) -> None:
    data = bytes((kind, 1, 1, 0)) + rest
    least = {1: 12 + 96 + 16, 2: 20 + 48, 3: 20 + 16, 4: 12 + 16}[kind]
    fits = len(data) == least if kind == 4 else len(data) >= least
    if not fits:
        with pytest.raises(InvalidPacket):
            decode_packet(data)
        return
    decoded = decode_packet(data)
    if isinstance(decoded, Data):
        assert decoded.header + decoded.ciphertext == data
    else:
        assert decoded.encode() == data


@given(PACKETS, st.sampled_from([0, 1, 2, 3]), st.integers(1, 255))
def test_an_unknown_type_version_or_suite_is_refused(
    packet: Initiation | Response | UnknownSession, place: int, change: int
) -> None:
    bent = bytearray(packet.encode())
    bent[place] ^= change
    if place == 0 and 1 <= bent[0] <= 4:
        bent[0] += 4
    with pytest.raises(InvalidPacket):
        decode_packet(bytes(bent))


@given(KEYS, KEYS, INDICES, st.binary(min_size=96, max_size=200))
def test_mac1_is_under_the_responders_channel_key(
    key: bytes, other: bytes, index: int, noise: bytes
) -> None:
    initiation = Initiation.with_mac(index, noise, key)
    assert initiation.mac_is_right(key)
    assert initiation.mac_is_right(other) == (key == other)


@given(KEYS, INDICES, st.binary(min_size=96, max_size=120), st.integers(0))
def test_mac1_covers_every_bit_before_it(key: bytes, index: int, noise: bytes, place: int) -> None:
    packet = bytearray(Initiation.with_mac(index, noise, key).encode())
    # The first four bytes are checked by the decoder before anybody looks at mac1.
    place %= 8 * (len(packet) - 4)
    packet[4 + place // 8] ^= 1 << place % 8
    bent = decode_packet(bytes(packet))
    assert isinstance(bent, Initiation)
    assert not bent.mac_is_right(key)


@given(KEYS, KEYS, INITIATIONS, RESPONSES, st.integers(0), st.integers(1, 255))
def test_an_initiation_for_somebody_is_whole_of_this_version_and_under_his_key(
    key: bytes, other: bytes, made_up: Initiation, response: Response, place: int, flip: int
) -> None:
    packet = Initiation.with_mac(made_up.sender_index, made_up.noise, key).encode()
    assert is_initiation_for(key, packet)
    assert is_initiation_for(other, packet) == (key == other)
    assert not is_initiation_for(key, packet[: place % len(packet)])
    bent = bytearray(packet)
    bent[place % len(packet)] ^= flip
    assert not is_initiation_for(key, bytes(bent))
    assert not is_initiation_for(key, response.encode())


def test_mac1_is_hmac_sha256_cut_to_16_bytes(vectors: dict[str, Any]) -> None:
    packet = bytes.fromhex(vectors["packets"]["initiation"]["bytes"])
    channel_key = bytes.fromhex(vectors["identities"]["bob"]["channel_key"])
    key = hashlib.sha256(b"EGTP1 mac1" + channel_key).digest()
    assert key.hex() == vectors["handshake"]["mac1_key"]
    assert packet[-16:] == hmac.digest(key, packet[:-16], "sha256")[:16]
    assert mac1(channel_key, packet[:-16]) == packet[-16:]


# The frozen vectors.


def hexed(vectors: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vectors["packets"][name]["bytes"])


def index(vectors: dict[str, Any], side: str) -> int:
    return int(vectors["handshake"][f"{side}_index"], 16)


def session(vectors: dict[str, Any], side: str) -> Session:
    """The session of the frozen handshake, as alice or as bob has it."""
    shake = vectors["handshake"]
    keys = [
        bytes.fromhex(shake["initiator_to_responder_key"]),
        bytes.fromhex(shake["responder_to_initiator_key"]),
    ]
    indices = [index(vectors, "initiator"), index(vectors, "responder")]
    if side == "bob":
        keys.reverse()
        indices.reverse()
    return Session(
        index=indices[0],
        remote_index=indices[1],
        send_key=keys[0],
        receive_key=keys[1],
        window=InOrder(),
        started_s=0.0,
    )


def test_the_frozen_initiation(vectors: dict[str, Any]) -> None:
    data = hexed(vectors, "initiation")
    packet = decode_packet(data)
    assert isinstance(packet, Initiation)
    assert packet.sender_index == index(vectors, "initiator")
    assert (packet.noise, packet.mac1) == (data[12:-16], data[-16:])
    assert packet.header == data[:12]
    assert packet.encode() == data


def test_the_frozen_response(vectors: dict[str, Any]) -> None:
    data = hexed(vectors, "response")
    packet = decode_packet(data)
    assert isinstance(packet, Response)
    assert packet.receiver_index == index(vectors, "initiator")
    assert packet.sender_index == index(vectors, "responder")
    assert (packet.header, packet.noise) == (data[:20], data[20:])
    assert packet.encode() == data


@pytest.mark.parametrize(
    ("sender", "names"),
    [("alice", ["data_confirming", "data_query"]), ("bob", ["data_reply"])],
)
def test_the_frozen_data_packets_in_both_directions(
    vectors: dict[str, Any], sender: str, names: list[str]
) -> None:
    sealing = session(vectors, sender)
    opening = session(vectors, {"alice": "bob", "bob": "alice"}[sender])
    for counter, name in enumerate(names):
        data, plaintext = hexed(vectors, name), vectors["packets"][name]["plaintext"]
        packet = decode_packet(data)
        assert isinstance(packet, Data)
        assert packet.counter == counter == vectors["packets"][name]["counter"]
        assert packet.receiver_index == opening.index
        assert opening.open(packet).hex() == plaintext
        assert sealing.seal(bytes.fromhex(plaintext)) == data


def test_the_frozen_unknown_session_note(vectors: dict[str, Any]) -> None:
    data = hexed(vectors, "unknown_session")
    offending = hexed(vectors, vectors["packets"]["unknown_session"]["about"])
    note = UnknownSession(index(vectors, "responder"), offending[-16:])
    assert decode_packet(data) == note
    assert note.encode() == data


def test_the_frozen_frame(vectors: dict[str, Any]) -> None:
    framed = vectors["frame"]
    assert frame(hexed(vectors, framed["packet"])).hex() == framed["bytes"]


def test_the_frozen_invalid_packets(vectors: dict[str, Any]) -> None:
    assert len(vectors["invalid_packets"]) >= 12
    for vector in vectors["invalid_packets"]:
        with pytest.raises(InvalidPacket):
            decode_packet(bytes.fromhex(vector["bytes"]))
            pytest.fail(vector["description"])
