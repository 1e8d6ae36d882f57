"""A SignedCommRecord: how a peer can be reached, stated and signed by the peer itself.

Its value is the canonical array ``[format, expiry, flags, incarnation, channels, strategies,
friends, extensions]``, wrapped in a BEP 44 item. ``format`` and ``expiry`` stay first for ever, so
that a DHT node can store records in formats that it cannot read, and drop them when they expire.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from egtp.errors import CanonicalError, InvalidRecord
from egtp.values import canonical
from egtp.values.canonical import Value
from egtp.values.comm_strat import CommStrat, RelayStrat, TCPStrat, parse_strategy
from egtp.values.identity import Identity, NodeId
from egtp.values.mutable_item import MutableItem

__all__ = [
    "FORMAT",
    "INCARNATION_BYTES",
    "SUITE_AESGCM",
    "CommRecord",
    "SignedCommRecord",
    "claims_of",
    "owner_of",
    "supersedes",
]

FORMAT: Final = 1
INCARNATION_BYTES: Final = 8
SUITE_AESGCM: Final = 1
"""Noise_IK_25519_AESGCM_SHA256."""
CRITICAL_FLAGS: Final = 0xFFFF0000
"""A record with an unknown flag among these must not be used; the low 16 may be ignored."""
STRATEGIES_MAX: Final = 8
FRIENDS_MAX: Final = 8
CHANNELS_MAX: Final = 8
EXPIRY_LIMIT: Final = 2**48


@dataclass(frozen=True, slots=True)
class CommRecord:
    """The content of a record, before it is signed."""

    expiry_unix_s: int
    """When the record expires, in Unix seconds. This governs storing, serving and resolving; a live
    session may outlast it."""
    incarnation: bytes
    """Eight random bytes, new at each start of the process."""
    channels: tuple[tuple[int, bytes], ...]
    """The channel keys as (suite, key) pairs, best first."""
    strategies: tuple[CommStrat, ...] = ()
    friends: tuple[NodeId, ...] = ()
    """Peers that can be asked for this record. Opt-in, since it reveals who is whose friend."""
    flags: int = 0

    def encode(self) -> bytes:
        """The value to sign. Raises :class:`LocalProtocolError` if it has no canonical form."""
        return canonical.encode(
            (
                FORMAT,
                self.expiry_unix_s,
                self.flags,
                self.incarnation,
                self.channels,
                tuple(strategy.fields() for strategy in self.strategies),
                self.friends,
                (),
            )
        )

    @classmethod
    def decode(cls, value: bytes) -> CommRecord:
        """Read a value. Raises :class:`InvalidRecord` unless it is a valid record of format 1."""
        return cls._of_fields(_outer(value))

    @classmethod
    def _of_fields(cls, fields: list[Value]) -> CommRecord:
        form, expiry = _head(fields)
        if form != FORMAT:
            raise InvalidRecord(f"the record is of format {form}")
        match fields:
            case [_, _, int(flags), bytes(incarnation), list(channels),
                  list(strategies), list(friends), list(extensions), *_] if (
                type(flags) is int
                and 0 <= flags < 2**32
                and len(incarnation) == INCARNATION_BYTES
            ):  # fmt: skip
                if flags & CRITICAL_FLAGS:
                    raise InvalidRecord("the record has a critical flag of a later version")
                for extension in extensions:
                    _check_extension(extension)
                return cls(
                    expiry,
                    incarnation,
                    _parse_channels(channels),
                    _parse_strategies(strategies),
                    _parse_friends(friends),
                    flags,
                )
        raise InvalidRecord("the record's fields are not those of format 1")


@dataclass(frozen=True, slots=True)
class SignedCommRecord:
    """A record whose signature has been verified (R8). Only :meth:`sign`, :meth:`decode` and
    :meth:`of_item` make one.

    ``content`` is None for a record of a later format, which can be stored and passed on, but not
    used.
    """

    item: MutableItem
    peer_id: NodeId
    expiry_unix_s: int
    content: CommRecord | None

    @classmethod
    def sign(cls, identity: Identity, sequence: int, content: CommRecord) -> SignedCommRecord:
        """Sign a record. Of two records of a peer, the one with the higher ``sequence`` wins.
        Raises :class:`InvalidRecord` if the content is too large or outside the limits."""
        return cls.of_item(MutableItem.sign(identity, sequence, content.encode()))

    @classmethod
    def decode(cls, data: bytes) -> SignedCommRecord:
        """Read and verify the canonical bytes ``[k, seq, v, sig]``. Raises
        :class:`InvalidRecord`."""
        return cls.of_item(MutableItem.decode(data))

    @classmethod
    def of_item(cls, item: MutableItem) -> SignedCommRecord:
        """Read a verified BEP 44 item. Raises :class:`InvalidRecord` if its value is not a
        record."""
        fields = _outer(item.value)
        form, expiry = _head(fields)
        content = CommRecord._of_fields(fields) if form == FORMAT else None
        return cls(item, NodeId.of_key(item.key), expiry, content)

    @property
    def key(self) -> bytes:
        """The peer's Ed25519 public key, 32 bytes."""
        return self.item.key

    @property
    def sequence(self) -> int:
        """The number of this record: of two, the higher is the newer."""
        return self.item.sequence

    @property
    def strategies(self) -> tuple[CommStrat, ...]:
        """The ways to reach the peer, in its order of preference; empty for a later format."""
        return () if self.content is None else self.content.strategies

    @property
    def tcp(self) -> tuple[TCPStrat, ...]:
        """The TCP addresses among the strategies."""
        return tuple([s for s in self.strategies if isinstance(s, TCPStrat)])

    @property
    def relays(self) -> tuple[RelayStrat, ...]:
        """The relays among the strategies."""
        return tuple([s for s in self.strategies if isinstance(s, RelayStrat)])

    @property
    def incarnation(self) -> bytes | None:
        """The incarnation of the process that signed it; None for a record of a later format."""
        return None if self.content is None else self.content.incarnation

    def channel_key(self, suite: int = SUITE_AESGCM) -> bytes | None:
        """The peer's channel key for ``suite``, 32 bytes; None if the record lists none."""
        if self.content is not None:
            for listed, key in self.content.channels:
                if listed == suite and len(key) == 32:
                    return key
        return None

    def expired(self, unix_s: float) -> bool:
        """Whether the record has expired at ``unix_s``, in Unix seconds."""
        return unix_s >= self.expiry_unix_s

    def encode(self) -> bytes:
        """The canonical bytes ``[k, seq, v, sig]``, which :meth:`decode` reads."""
        return self.item.encode()

    def __str__(self) -> str:
        ways = ", ".join(map(str, self.strategies)) or "no strategies"
        return f"record {self.sequence} of {self.peer_id} ({ways})"

    def __repr__(self) -> str:
        """Without keys and signature, for people who read an event or an attempt."""
        return f"<{self}>"


def supersedes(new: SignedCommRecord, old: SignedCommRecord | None) -> bool:
    """Whether ``new`` replaces ``old``. The higher sequence wins; between different records of one
    sequence, the lower SHA-256 of the item, so that everybody settles on the same one."""
    if old is None or new is old or new.sequence != old.sequence:
        return old is None or new.sequence > old.sequence
    ours, theirs = old.encode(), new.encode()
    return ours != theirs and hashlib.sha256(theirs).digest() < hashlib.sha256(ours).digest()


def claims_of(data: bytes) -> tuple[NodeId, int]:
    """The peer and the sequence that an encoded record claims, unverified: verifying takes many
    times as long. Raises :class:`InvalidRecord`."""
    key, sequence, _, _ = MutableItem.fields_of(data)
    return NodeId.of_key(key), sequence


def owner_of(data: bytes) -> NodeId:
    """The peer that an encoded record claims; an arbitrary one if ``data`` is not a record."""
    return NodeId.of_key(data[3:35])


def expiry_of(value: bytes) -> int:
    """When a record of any format expires, in Unix seconds. Raises :class:`InvalidRecord`."""
    return _head(_outer(value))[1]


def _head(fields: list[Value]) -> tuple[int, int]:
    form, expiry = fields[0], fields[1]
    if type(form) is not int or type(expiry) is not int:
        raise InvalidRecord("a record's value starts with its format and expiry")
    if form < 1 or not 0 <= expiry < EXPIRY_LIMIT:
        raise InvalidRecord("format or expiry out of range")
    return form, expiry


def _outer(value: bytes) -> list[Value]:
    try:
        fields = canonical.decode(value)
    except CanonicalError as error:
        raise InvalidRecord(f"record value: {error}") from None
    if not isinstance(fields, list) or len(fields) < 2:
        raise InvalidRecord("a record's value is an array of at least format and expiry")
    return fields


def _parse_channels(channels: list[Value]) -> tuple[tuple[int, bytes], ...]:
    parsed: list[tuple[int, bytes]] = []
    for channel in channels:
        match channel:
            case [int(suite), bytes(key), *_] if type(suite) is int and suite > 0:
                parsed.append((suite, key))
            case _:
                raise InvalidRecord("a channel is [suite, key]")
    if len(parsed) > CHANNELS_MAX:
        raise InvalidRecord(f"a record has at most {CHANNELS_MAX} channels")
    return tuple(parsed)


def _parse_strategies(strategies: list[Value]) -> tuple[CommStrat, ...]:
    if len(strategies) > STRATEGIES_MAX:
        raise InvalidRecord(f"a record has at most {STRATEGIES_MAX} strategies")
    parsed = map(parse_strategy, strategies)
    return tuple(strategy for strategy in parsed if strategy is not None)


def _parse_friends(friends: list[Value]) -> tuple[NodeId, ...]:
    if len(friends) > FRIENDS_MAX:
        raise InvalidRecord(f"a record has at most {FRIENDS_MAX} friends")
    parsed = []
    for friend in friends:
        if not isinstance(friend, bytes) or len(friend) != 20:
            raise InvalidRecord("a friend is a 20-byte peerId")
        parsed.append(NodeId(friend))
    return tuple(parsed)


def _check_extension(extension: Value) -> None:
    match extension:
        case [int(tag), bytes(_), *_] if type(tag) is int:
            return
    raise InvalidRecord("an extension is [tag, bytes]")
