"""Send a peer one query without EGTP: docs/protocol.md, with a socket and two libraries.

    python examples/without_egtp.py egtp:PEERID.RECORD [KIND [BODY]]    # - reads BODY from stdin

A starting point for implementing EGTP in another language. The numbers in the comments are the
sections of that page. It leaves out what a single query over TCP does not need: relays, lookup,
early data, resending a query, and answering others.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NETWORK = b"main"
TIMEOUT_S = 10.0
SALT = b"EGTP nodeId 1"
BODY_BYTES_MAX, CHUNK_BYTES = 16 * 2**20, 16_384
INITIATION, RESPONSE, DATA = (bytes([kind, 1, 1, 0]) for kind in (1, 2, 3))
MESSAGE, CHUNK, PING, PONG, CLOSE = 1, 2, 5, 6, 10

# 1. Canonical values: msgpack in its shortest forms

encode = msgpack.packb


def decode(data: bytes) -> Any:
    value = msgpack.unpackb(data)
    if encode(value) != data:
        raise ValueError("not canonical")
    return value


# 2 and 3. Identities and records


def node_id(key: bytes) -> bytes:
    return hashlib.sha1(key + SALT, usedforsecurity=False).digest()


def signed_bytes(sequence: int, value: bytes) -> bytes:
    return b"4:salt13:%b3:seqi%de1:v%d:%b" % (SALT, sequence, len(value), value)


@dataclass
class Record:
    key: bytes
    sequence: int
    channel_key: bytes
    incarnation: bytes
    strategies: list[list[Any]]

    @classmethod
    def parse(cls, data: bytes) -> "Record":
        key, sequence, value, signature = decode(data)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed_bytes(sequence, value))
        _form, _expiry, flags, incarnation, channels, strategies, *_ = decode(value)
        if flags >> 16:
            raise ValueError("a record that this client must not use")
        channel_key = next(key for suite, key, *_ in channels if suite == 1)
        return cls(key, sequence, channel_key, incarnation, strategies)


def parse_link(link: str) -> Record:
    peer_id, _, data = link.removeprefix("egtp:").partition(".")
    if not data:
        sys.exit("this client looks nobody up: give it a link with a record, egtp:PEERID.RECORD")
    record = Record.parse(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)))
    if node_id(record.key) != base64.b32decode(peer_id.upper()):
        raise ValueError("the record is of another peer")
    return record


class Myself:
    """A short-lived peer that nobody can reach."""

    def __init__(self) -> None:
        signing, self.channel = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.channel_key = self.channel.public_key().public_bytes_raw()
        self.incarnation = os.urandom(8)
        self.started_s = time.monotonic()
        now_s = int(time.time())
        channels = [[1, self.channel_key]]
        value = encode([1, now_s + 3600, 0, self.incarnation, channels, [], [], []])
        signature = signing.sign(signed_bytes(now_s, value))
        key = signing.public_key().public_bytes_raw()
        self.record = encode([key, now_s, value, signature])


# 5. Noise_IK_25519_AESGCM_SHA256


def two_keys(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF."""
    pseudo_random = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(pseudo_random, b"\1", "sha256")
    return first, hmac.digest(pseudo_random, first + b"\2", "sha256")


def nonce(counter: int) -> bytes:
    return struct.pack(">IQ", 0, counter)


class Handshake:
    """The initiator's side."""

    def __init__(self, me: Myself, peer: Record) -> None:
        self.me, self.peer, self.index = me, peer, os.urandom(8)
        self.ephemeral = X25519PrivateKey.generate()
        self.hash = self.chaining_key = b"Noise_IK_25519_AESGCM_SHA256".ljust(32, b"\0")
        self.key = b""
        self.mix_hash(b"EGTP1 IK\0" + bytes([1, len(NETWORK)]) + NETWORK + peer.key)
        self.mix_hash(peer.channel_key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def agree(self, mine: X25519PrivateKey, theirs: bytes) -> None:
        secret = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
        self.chaining_key, self.key = two_keys(self.chaining_key, secret)

    def seal(self, data: bytes) -> bytes:
        sealed = AESGCM(self.key).encrypt(nonce(0), data, self.hash)
        self.mix_hash(sealed)
        return sealed

    def initiation(self) -> bytes:
        me, peer = self.me, self.peer
        limits = [BODY_BYTES_MAX, 2 * BODY_BYTES_MAX, 1, 65_536]
        uptime_ms = int(1000 * (time.monotonic() - me.started_s))
        payload = [
            *(me.record, int(1000 * time.time()), peer.sequence, peer.incarnation),
            *(me.incarnation, limits, b"", uptime_ms, None),
        ]
        header = INITIATION + self.index
        ephemeral = self.ephemeral.public_key().public_bytes_raw()
        self.mix_hash(header)
        self.mix_hash(ephemeral)
        self.agree(self.ephemeral, peer.channel_key)
        static = self.seal(me.channel_key)
        self.agree(me.channel, peer.channel_key)
        packet = header + ephemeral + static + self.seal(encode(payload))
        mac_key = hashlib.sha256(b"EGTP1 mac1" + peer.channel_key).digest()
        return packet + hmac.digest(mac_key, packet, "sha256")[:16]

    def finish(self, packet: bytes) -> tuple[bytes, bytes, bytes]:
        """From the response: the peer's index, and the keys to send and to receive with."""
        header, ephemeral = packet[:20], packet[20:52]
        if header[:12] != RESPONSE + self.index:
            raise ValueError("not the response")
        self.mix_hash(header)
        self.mix_hash(ephemeral)
        self.agree(self.ephemeral, ephemeral)
        self.agree(self.me.channel, ephemeral)
        # One query needs nothing from the payload, but it must be genuine.
        AESGCM(self.key).decrypt(nonce(0), packet[52:], self.hash)
        return header[12:], *two_keys(self.chaining_key, b"")


# 4 and 6. Frames, packets, and what is inside


class Session:
    def __init__(self, connection: socket.socket, peer: Record) -> None:
        self.connection = connection
        self.incoming: BinaryIO = connection.makefile("rb")
        handshake = Handshake(Myself(), peer)
        self.send_frame(handshake.initiation())
        self.their_index, send_key, receive_key = handshake.finish(self.frame())
        self.index, self.began_s = handshake.index, time.monotonic()
        self.sender, self.receiver = AESGCM(send_key), AESGCM(receive_key)
        self.sent = self.received = 0
        self.chunks: dict[bytes, bytes] = {}
        self.send_packet(b"")  # This proves who we are; before it the peer takes no large frame.

    def send_frame(self, packet: bytes) -> None:
        self.connection.sendall(struct.pack(">I", len(packet)) + packet)

    def frame(self) -> bytes:
        head = self.incoming.read(4)
        packet = self.incoming.read(int.from_bytes(head))
        if len(head) < 4 or len(packet) < int.from_bytes(head):
            raise ConnectionError("the peer has ended the connection")
        return packet

    def send(self, kind: int, data: bytes) -> None:
        self.send_packet(struct.pack(">BI", kind, len(data)) + data)

    def send_packet(self, items: bytes) -> None:
        """The settled mark is 0: no query has ended yet."""
        since_ms = int(1000 * (time.monotonic() - self.began_s))
        inside = struct.pack(">IQ", since_ms, 0) + items
        header = DATA + self.their_index + struct.pack(">Q", self.sent)
        self.send_frame(header + self.sender.encrypt(nonce(self.sent), inside, header))
        self.sent += 1

    def send_message(self, message: bytes) -> None:
        aged = bytes(4) + message
        if len(message) <= CHUNK_BYTES:
            self.send(MESSAGE, aged)
            return
        for offset in range(0, len(aged), CHUNK_BYTES):
            head = struct.pack(">III", 1, len(aged), offset)
            self.send(CHUNK, head + aged[offset : offset + CHUNK_BYTES])

    def messages(self) -> list[bytes]:
        """The messages that end in the next packet."""
        packet = self.frame()
        header = DATA + self.index + struct.pack(">Q", self.received)
        if packet[:20] != header:
            raise ValueError("not the next packet of this session")
        inside = self.receiver.decrypt(nonce(self.received), packet[20:], header)
        self.received += 1
        ended, at = [], 12
        while at < len(inside):
            kind, size = struct.unpack_from(">BI", inside, at)
            data, at = inside[at + 5 : at + 5 + size], at + 5 + size
            if kind == MESSAGE:
                ended.append(data[4:])
            elif kind == CHUNK:
                message_id, total = data[:4], int.from_bytes(data[4:8])
                whole = self.chunks.pop(message_id, b"") + data[12:]
                if len(whole) == total:
                    ended.append(whole[4:])
                else:
                    self.chunks[message_id] = whole
            elif kind == PING:
                self.send(PONG, data)
            elif kind == CLOSE:
                raise ConnectionError("the peer has closed the session")
        return ended


# 7. Messages


def ask(peer: Record, kind: str, body: bytes) -> bytes:
    addresses = [strategy for strategy in peer.strategies if strategy[0] == 1]
    if not addresses:
        sys.exit("the record names no TCP address, and this client takes no relay")
    _, ip, port, *_ = addresses[0]
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    query = [1, os.urandom(16), None, 0, kind, int(1000 * TIMEOUT_S), BODY_BYTES_MAX, body]
    message = encode(query)
    reference = hashlib.sha256(message).digest()
    with socket.create_connection((socket.inet_ntop(family, ip), port), TIMEOUT_S) as connection:
        session = Session(connection, peer)
        session.send_message(message)
        while True:
            for data in session.messages():
                reply = decode(data)
                if reply[0] == 2 and reply[2] == reference:
                    session.send(CLOSE, b"")
                    if reply[3]:
                        sys.exit(f"the peer answered with code {reply[3]}")
                    return bytes(reply[4])


if not 2 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
link, kind, text = sys.argv[1:] + ["echo", ""][len(sys.argv) - 2 :]
body = sys.stdin.buffer.read() if text == "-" else text.encode()
sys.stdout.buffer.write(ask(parse_link(link), kind, body))
