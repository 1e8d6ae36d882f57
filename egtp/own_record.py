"""This node's own record: signed anew when it changes, numbered so that it never goes backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from egtp.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.comm_strat import CommStrat
from egtp.errors import InvalidRecord
from egtp.identity import Identity, NodeId
from egtp.mutable_item import SEQUENCE_LIMIT

__all__ = ["MemorySequence", "OwnRecord", "SequenceStore"]


class SequenceStore(Protocol):
    """Remembers the highest sequence ever used, durably: one used twice would let the older
    record win."""

    def load_sequence(self) -> int:
        """0 if none was ever used."""

    def store_sequence(self, sequence: int) -> None:
        """Returns only once the number would survive a crash."""


class MemorySequence:
    """For identities that live only as long as their process."""

    def __init__(self) -> None:
        self._sequence = 0

    def load_sequence(self) -> int:
        return self._sequence

    def store_sequence(self, sequence: int) -> None:
        self._sequence = sequence


class OwnRecord:
    """Signs this node's records."""

    def __init__(
        self,
        identity: Identity,
        incarnation: bytes,
        sequences: SequenceStore,
        unix_time: Callable[[], float],
        lifetime_s: float,
        signed_anew: Callable[[int], None] | None = None,
        friends: tuple[NodeId, ...] = (),
    ) -> None:
        """``signed_anew`` is told the sequence before, whenever there is a new one."""
        self._identity = identity
        self._incarnation = incarnation
        self._sequences = sequences
        self._unix_time = unix_time
        self._lifetime_s = lifetime_s
        self._signed_anew = signed_anew
        self._friends = friends
        self._strategies: tuple[CommStrat, ...] = ()
        self._current = self._sign()

    @property
    def current(self) -> SignedCommRecord:
        """The newest record."""
        return self._current

    def _replace(self, record: SignedCommRecord) -> None:
        before, self._current = self._current.sequence, record
        if self._signed_anew is not None:
            self._signed_anew(before)

    def change(self, strategies: tuple[CommStrat, ...]) -> bool:
        """Say from now on that this node is reached so. False if that is what it said already."""
        if strategies == self._strategies:
            return False
        before, self._strategies = self._strategies, strategies
        try:
            self._replace(self._sign())
        except BaseException:
            self._strategies = before
            raise
        return True

    def renew(self) -> None:
        """Sign again, to last for another lifetime."""
        self._replace(self._sign())

    def saw(self, sequence: int) -> bool:
        """Somebody holds a record of this identity. True if ours had to be numbered above it."""
        if sequence < self.current.sequence:
            return False
        self._replace(self._sign(above=sequence))
        return True

    def _sign(self, above: int = 0) -> SignedCommRecord:
        now = int(self._unix_time())
        sequence = max(self._sequences.load_sequence() + 1, above + 1, now)
        if sequence >= SEQUENCE_LIMIT:
            raise InvalidRecord("the last sequence of this identity is used up")
        self._sequences.store_sequence(sequence)
        content = CommRecord(
            expiry_unix_s=now + int(self._lifetime_s),
            incarnation=self._incarnation,
            channels=((SUITE_AESGCM, self._identity.channel_key),),
            strategies=self._strategies,
            friends=self._friends,
        )
        return SignedCommRecord.sign(self._identity, sequence, content)
