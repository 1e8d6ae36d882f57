"""The handshake, in which two nodes prove their identities to each other: EGTP's use of Noise IK.

The initiation carries the initiator's record, the response what the responder has to say. The
prologue names the responder by its identity key: otherwise, if Mallory's record listed Alice's
channel key, Bob would talk to Alice and believe that she is Mallory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.noise import Handshake
from egtp.channel.packet import Initiation, Response
from egtp.errors import CanonicalError, HandshakeFailed, InvalidRecord
from egtp.values import canonical
from egtp.values.canonical import Value
from egtp.values.comm_record import INCARNATION_BYTES, SUITE_AESGCM, SignedCommRecord, owner_of
from egtp.values.comm_strat import Address
from egtp.values.identity import Identity, NodeId
from egtp.values.message import U64_LIMIT

__all__ = [
    "CHECK_TOKEN_BYTES",
    "InitiationPayload",
    "Initiator",
    "PeerLimits",
    "Responder",
    "ResponsePayload",
    "SessionKeys",
    "prologue",
]

PORT_LIMIT: Final = 65_536
CHECK_TOKEN_BYTES: Final = 16
RECORD_ROOM_BYTES: Final = 1100
"""The padding of an initiation to a peer whose record is not known: the response, which must not be
larger, then has room for that record."""


def prologue(network: str, responder_key: bytes) -> bytes:
    """What both sides must agree on before the handshake begins."""
    tag = network.encode("ascii")
    return b"EGTP1 IK\0" + bytes((SUITE_AESGCM, len(tag))) + tag + responder_key


class PeerLimits(NamedTuple):
    """What one side accepts from the other; exchanged in the handshake."""

    body_bytes_max: int
    """The largest body of a message."""
    reassembly_bytes_max: int
    """How much may be under way in chunks at a time."""
    open_queries_max: int
    """How many queries may be unanswered at a time."""
    relayed_bytes_max: int
    """How much may be in flight over relays at a time."""

    @classmethod
    def parse(cls, fields: Value) -> PeerLimits:
        """Raises :class:`HandshakeFailed`. Elements of later versions are skipped."""
        if isinstance(fields, list) and len(fields) >= 4:
            return cls(*map(_unsigned, fields[:4]))
        raise HandshakeFailed("limits are four numbers")


@dataclass(frozen=True, slots=True)
class InitiationPayload:
    """The payload of an initiation."""

    record: bytes
    time_ms: int
    responder_sequence: int
    """The sequence of the responder's record that the initiator used; 0 if it knows none."""
    responder_incarnation: bytes | None
    incarnation: bytes
    limits: PeerLimits
    early: bytes = b""
    uptime_ms: int = 0
    """The age of the initiator's incarnation."""
    check: bytes | None = None
    """In a dial-back, the token of the node that asked to be dialled, to see whether it can be.
    Such a handshake serves no other purpose, and is not answered."""

    def encode(self) -> bytes:
        return canonical.pack(
            (
                self.record,
                self.time_ms,
                self.responder_sequence,
                self.responder_incarnation,
                self.incarnation,
                self.limits,
                self.early,
                self.uptime_ms,
                self.check,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> InitiationPayload:
        """Raises :class:`HandshakeFailed`."""
        match _decode(data):
            case [bytes(record), time, sequence, None | bytes() as theirs, bytes(ours), limits,
                  bytes(early), uptime, None | bytes() as check, *_] if (
                len(ours) == INCARNATION_BYTES
                and (check is None or len(check) == CHECK_TOKEN_BYTES)
                and (theirs is None or len(theirs) == INCARNATION_BYTES)
            ):  # fmt: skip
                return cls(
                    record,
                    _unsigned(time),
                    _unsigned(sequence),
                    theirs,
                    ours,
                    PeerLimits.parse(limits),
                    early,
                    _unsigned(uptime),
                    check,
                )
        raise HandshakeFailed("the initiation's payload is malformed")


@dataclass(frozen=True, slots=True)
class ResponsePayload:
    """The payload of a response."""

    incarnation: bytes
    uptime_ms: int
    early_accepted: bool
    observed: Address | None
    """Where the responder sees the initiator, on a TCP connection."""
    time_ms: int
    limits: PeerLimits
    record: bytes | None = None
    """The responder's record, if it is newer than the one that the initiator used."""

    def encode(self) -> bytes:
        observed = None if self.observed is None else (self.observed.ip, self.observed.port)
        return canonical.pack(
            (
                self.incarnation,
                self.uptime_ms,
                self.early_accepted,
                observed,
                self.time_ms,
                self.limits,
                self.record,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> ResponsePayload:
        """Raises :class:`HandshakeFailed`."""
        match _decode(data):
            case [bytes(incarnation), uptime, bool(early), observed, time, limits,
                  None | bytes() as record, *_] if (
                len(incarnation) == INCARNATION_BYTES
            ):  # fmt: skip
                return cls(
                    incarnation,
                    _unsigned(uptime),
                    early,
                    _observed(observed),
                    _unsigned(time),
                    PeerLimits.parse(limits),
                    record,
                )
        raise HandshakeFailed("the response's payload is malformed")


class SessionKeys(NamedTuple):
    """The result of a handshake, as one side sees it."""

    send: bytes
    receive: bytes


class Initiator:
    """The side that begins. ``responder_key`` and ``responder_channel_key`` are those that the
    caller believes to be the peer's; only that peer can answer."""

    def __init__(
        self,
        identity: Identity,
        network: str,
        responder_key: bytes,
        responder_channel_key: bytes,
        sender_index: int,
    ) -> None:
        self._responder_channel_key = responder_channel_key
        self._sender_index = sender_index
        self._noise = Handshake(
            prologue(network, responder_key), identity.channel, responder_channel_key
        )

    def initiate(self, payload: InitiationPayload, ephemeral: X25519PrivateKey) -> Initiation:
        self._noise.mix_header(Initiation.header_of(self._sender_index))
        noise = self._noise.write_initiation(
            ephemeral, self._responder_channel_key, payload.encode()
        )
        return Initiation.with_mac(self._sender_index, noise, self._responder_channel_key)

    def finish(self, response: Response) -> tuple[ResponsePayload, SessionKeys]:
        """Raises :class:`HandshakeFailed` unless the dialled peer made the response, for this very
        initiation.

        Can be called again after a failure: each response is read by a copy of the state, so that a
        forged one does not spoil the handshake for the real one.
        """
        noise = self._noise.copy()
        noise.mix_header(response.header)
        payload = ResponsePayload.decode(noise.read_response(response.noise))
        ours, theirs = noise.split()
        return payload, SessionKeys(send=ours, receive=theirs)


def _nobody(_: NodeId) -> None:
    return None


class Responder:
    """The side that answers. The constructor reads and checks the initiation; that makes no state
    in the node."""

    def __init__(
        self,
        identity: Identity,
        network: str,
        initiation: Initiation,
        known_record: Callable[[NodeId], SignedCommRecord | None] = _nobody,
    ) -> None:
        """Raises :class:`HandshakeFailed` or :class:`InvalidRecord`. If the mac1 is right, this
        costs two key agreements and one signature check, about 160 microseconds; for a peer that
        comes back with the record already known here, one key agreement."""
        if not initiation.mac_is_right(identity.channel_key):
            raise HandshakeFailed("mac1 is wrong: not meant for this node's channel key")
        self._noise = Handshake(
            prologue(network, identity.key), identity.channel, identity.channel_key
        )
        self._noise.mix_header(initiation.header)
        self.payload: Final = InitiationPayload.decode(
            self._noise.read_initiation(initiation.noise)
        )
        self.record: Final = _verified(self.payload.record, known_record)
        """The initiator's record, verified; it names the channel key that the handshake proved."""
        if self.record.channel_key() != self._noise.remote:
            raise InvalidRecord("the initiator's record names another channel key")
        self._receiver_index = initiation.sender_index
        self._room = len(initiation.noise)

    def respond(
        self, payload: ResponsePayload, sender_index: int, ephemeral: X25519PrivateKey
    ) -> tuple[Response, SessionKeys]:
        """Leaves the record out if it would make the response larger than the initiation: a
        response must not amplify."""
        encoded = payload.encode()
        if len(encoded) > self._room - 80:
            encoded = replace(payload, record=None).encode()
        self._noise.mix_header(Response.header_of(self._receiver_index, sender_index))
        noise = self._noise.write_response(ephemeral, encoded)
        theirs, ours = self._noise.split()
        response = Response(self._receiver_index, sender_index, noise)
        return response, SessionKeys(send=ours, receive=theirs)


def _verified(
    data: bytes, known_record: Callable[[NodeId], SignedCommRecord | None]
) -> SignedCommRecord:
    """The verified record in ``data``; bytes that are already known need no second check. Raises
    :class:`InvalidRecord`."""
    known = known_record(owner_of(data))
    if known is not None and known.encode() == data:
        return known
    return SignedCommRecord.decode(data)


def _decode(data: bytes) -> Value:
    try:
        return canonical.decode(data)
    except CanonicalError as error:
        raise HandshakeFailed(f"handshake payload: {error}") from None


def _unsigned(value: Value, limit: int = U64_LIMIT) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise HandshakeFailed("a number out of its range")
    return value


def _observed(value: Value) -> Address | None:
    match value:
        case None:
            return None
        case [bytes(ip), int(port), *_] if len(ip) in (4, 16):
            return Address(ip, _unsigned(port, PORT_LIMIT))
    raise HandshakeFailed("an observed address is [ip, port] or nil")
