"""This node's own record: signed anew when it changes, with a sequence that never goes backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from egtp.errors import EgtpError, InvalidRecord
from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.comm_strat import CommStrat
from egtp.values.identity import Identity, NodeId
from egtp.values.mutable_item import SEQUENCE_LIMIT

__all__ = ["MemorySequence", "OwnRecord", "SequenceStore"]


class SequenceStore(Protocol):
    """Remembers the highest sequence ever used, durably: using one twice would let the older record
    win."""

    def load_sequence(self) -> int:
        """The highest sequence used; 0 if none was. Raises :class:`EgtpError` if it cannot be
        read."""

    def store_sequence(self, sequence: int) -> None:
        """Return only once the sequence would survive a crash. Raises :class:`EgtpError` if it
        might not."""


class MemorySequence:
    """For identities that live only as long as their process."""

    def __init__(self) -> None:
        self._sequence = 0

    def load_sequence(self) -> int:
        return self._sequence

    def store_sequence(self, sequence: int) -> None:
        self._sequence = sequence


class OwnRecord:
    """Signs this node's records.

    Invariant: a sequence is signed only once it is stored. While none can be stored, as on a full
    disk, the previous record stays in use: it is true except for what has changed since, and its
    sequence is remembered.
    """

    def __init__(
        self,
        identity: Identity,
        incarnation: bytes,
        sequences: SequenceStore,
        unix_time: Callable[[], float],
        lifetime_s: float,
        signed_anew: Callable[[int], None],
        friends: Callable[[], tuple[NodeId, ...]],
        not_stored: Callable[[Exception], None],
    ) -> None:
        """``signed_anew`` is told the previous sequence whenever there is a new record.
        ``friends`` are those to name in it.
        ``not_stored`` is told why a new record that is due could not have its sequence stored: see
        :meth:`try_again`.

        Raises what the store raises: without a first record there is nothing to go on with.
        """
        self._identity = identity
        self._incarnation = incarnation
        self._sequences = sequences
        self._unix_time = unix_time
        self._lifetime_s = lifetime_s
        self._signed_anew = signed_anew
        self._not_stored = not_stored
        self._friends = friends
        self._strategies: tuple[CommStrat, ...] = ()
        self._above = 0
        """The highest sequence that others are known to hold."""
        self.is_behind = False
        """Whether a newer record is due whose sequence could not be stored. Until
        :meth:`try_again` succeeds, the other methods only note what the record should say: the
        store is not asked at every call."""
        self.current = self._sign(self._next_sequence())
        """The newest record."""

    def change(self, strategies: tuple[CommStrat, ...]) -> bool:
        """Name these strategies from now on. True if there is a new record; False if it named them
        already, or while it :attr:`is_behind`."""
        if strategies == self._strategies:
            return False
        before, self._strategies = self._strategies, strategies
        try:
            return self.renew()
        except BaseException:
            self._strategies = before
            raise

    def renew(self) -> bool:
        """Sign again, for another lifetime. False while it :attr:`is_behind`."""
        return not self.is_behind and self.try_again()

    def saw(self, sequence: int) -> bool:
        """Somebody holds a record of this identity with that sequence. True if a new one has been
        signed above it."""
        if sequence < self.current.sequence:
            return False
        before, self._above = self._above, max(self._above, sequence)
        try:
            return self.renew()
        except BaseException:
            self._above = before
            raise

    def try_again(self) -> bool:
        """Sign all that the record should say by now. False if its sequence cannot be stored."""
        try:
            sequence = self._next_sequence()
        except InvalidRecord:
            raise
        except (EgtpError, OSError) as error:
            self.is_behind = True
            self._not_stored(error)
            return False
        before, self.current = self.current.sequence, self._sign(sequence)
        self.is_behind = False
        self._signed_anew(before)
        return True

    def _next_sequence(self) -> int:
        """A sequence that was never used, and is stored already."""
        now = int(self._unix_time())
        sequence = max(self._sequences.load_sequence() + 1, self._above + 1, now)
        if sequence >= SEQUENCE_LIMIT:
            raise InvalidRecord("the last sequence of this identity is used up")
        self._sequences.store_sequence(sequence)
        return sequence

    def _sign(self, sequence: int) -> SignedCommRecord:
        """Strategies that do not fit into the record are left out, the last relays first: a node
        that names some of its strategies is better off than one that names none."""
        for count in range(len(self._strategies), -1, -1):
            content = CommRecord(
                expiry_unix_s=int(self._unix_time()) + int(self._lifetime_s),
                incarnation=self._incarnation,
                channels=((SUITE_AESGCM, self._identity.channel_key),),
                strategies=self._strategies[:count],
                friends=self._friends(),
            )
            try:
                return SignedCommRecord.sign(self._identity, sequence, content)
            except InvalidRecord as error:
                too_large = error
        raise too_large
