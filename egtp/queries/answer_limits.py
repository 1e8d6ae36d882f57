"""Limits on what is remembered of the queries of others."""

from __future__ import annotations

from dataclasses import dataclass

from egtp.errors import InvalidConfig
from egtp.limits.shares import strangers_part
from egtp.values.settings import check_settings

__all__ = ["AnswerLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """Limits on what a node remembers of the queries of others, so that none runs twice: durations
    in seconds, sizes in bytes. When one is reached, new queries are refused; nothing that was
    promised is forgotten. See docs/at-most-once.md.

    Raises :class:`InvalidConfig` for a value that cannot work.
    """

    askers_max: int = 20_000
    """Askers that are remembered: as many as peers. An idle one takes about a kilobyte."""
    window: int = 4096
    """Queries of one asker above its settled mark: as many as it may have open."""
    entries_max: int = 262_144
    """Queries of all askers, and exceptions to their settled marks: about 100 MB if none is ever
    settled."""
    lifetime_s_max: float = 3600.0
    """A query older than this is dropped, whatever its own lifetime: otherwise it would have to be
    remembered for as long as its asker likes."""
    bytes_max: int = 64 * 1024 * 1024
    """Bodies of all remembered replies. Beyond it bodies are dropped, and only "it ran" is kept
    (code 7)."""

    def __post_init__(self) -> None:
        check_settings(self, ())
        if self.lifetime_s_max < 1:
            raise InvalidConfig("lifetime_s_max must be at least 1")

    @property
    def asker_bytes_max(self) -> int:
        """One asker's part of :attr:`bytes_max`: a sixteenth. A larger reply is not kept: if its
        path is lost, the asker is told that the query ran (code 7)."""
        return self.bytes_max // 16

    @property
    def strangers_max(self) -> int:
        """How many askers may be strangers. An eighth of the room is kept for the other peers, who
        are few, so that no crowd keeps them out."""
        return strangers_part(self.askers_max)

    @property
    def strangers_many(self) -> int:
        """From this many strangers on, those that are gone are forgotten at the next clean-up:
        while there is still room, so that nobody's first query waits for it."""
        return self.strangers_max - self.strangers_max // 16

    @property
    def strangers_entries_max(self) -> int:
        """From this many entries on, strangers may add no more."""
        return strangers_part(self.entries_max)

    @property
    def strangers_crowded(self) -> int:
        """From this many entries on, half of what strangers may have, each stranger may only add a
        few (:attr:`strangers_few`): the rest is for newcomers."""
        return self.strangers_entries_max // 2

    @property
    def strangers_few(self) -> int:
        """Entries that one stranger may always have. All strangers together, each with this many,
        fit into the other half; so using up the entries takes as many identities as using up the
        askers."""
        return max(1, self.strangers_crowded // self.strangers_max)

    @property
    def peer_askers_max(self) -> int:
        """How many askers one peer may be, since it may claim any number of restarts: a
        sixty-fourth of :attr:`askers_max`, and at least 16. Its idle ones make way for the next."""
        return max(16, self.askers_max // 64)

    @property
    def peer_entries_max(self) -> int:
        """Entries of all askers of one peer: a quarter of :attr:`entries_max`, and at least enough
        for one asker with its exceptions."""
        return max(2 * self.window, self.entries_max // 4)
