"""How much is remembered of the queries of others."""

from __future__ import annotations

from dataclasses import dataclass

from egtp.errors import InvalidConfig
from egtp.limits.shares import strangers_part
from egtp.values.settings import check_settings

__all__ = ["AnswerLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """What is remembered for others. When a limit is hit, what is new is refused; nothing that was
    promised is forgotten."""

    askers_max: int = 20_000
    """Askers: as many as there are remembered peers. An idle one takes about half a kilobyte."""
    window: int = 4096
    """Queries of one asker above its settled mark: as many as it may have open."""
    entries_max: int = 262_144
    """Queries of all askers, and exceptions: about 100 MB if none is ever settled."""
    lifetime_s_max: float = 3600.0
    """A query older than this is dropped, whatever lifetime it names: otherwise it would have to be
    remembered for as long as its asker likes."""
    bytes_max: int = 64 * 1024 * 1024
    """Bodies of answers, in all. Beyond it, bodies are dropped, and "it ran" is kept (code 7)."""

    def __post_init__(self) -> None:
        check_settings(self, ())
        if self.lifetime_s_max < 1:
            raise InvalidConfig("lifetime_s_max is at least 1")

    @property
    def asker_bytes_max(self) -> int:
        """Of one asker: a sixteenth of what is there for all. A larger answer is not kept: if its
        path is lost, its asker hears that it ran (code 7)."""
        return self.bytes_max // 16

    @property
    def strangers_max(self) -> int:
        """Of peers that nobody here has to do with: an eighth of the room is left to the others,
        who are few, so that no crowd keeps them out."""
        return strangers_part(self.askers_max)

    @property
    def strangers_many(self) -> int:
        """When there are so many, those who are gone are forgotten at the next look: while there is
        still room, so that nobody's first query waits for it."""
        return self.strangers_max - self.strangers_max // 16

    @property
    def strangers_entries_max(self) -> int:
        """Once there are so many entries, only those of whom somebody here knows make more."""
        return strangers_part(self.entries_max)

    @property
    def strangers_crowded(self) -> int:
        """Once there are so many entries, half of what strangers may have, each of them has only a
        few more: what is left is for whoever comes."""
        return self.strangers_entries_max // 2

    @property
    def strangers_few(self) -> int:
        """Entries of one stranger, however many others there are: so many that all strangers
        together, each with that, find room in the other half. So it takes as many identities to
        use up the entries as to use up the askers."""
        return max(1, self.strangers_crowded // self.strangers_max)

    @property
    def peer_askers_max(self) -> int:
        """Of one peer, which may say as often as it likes that it was started anew: a sixty-fourth
        of all, or a few where there is not much."""
        return max(16, self.askers_max // 64)

    @property
    def peer_entries_max(self) -> int:
        """Of all askers of one peer: a quarter, and in any case enough for one of them, exceptions
        and all."""
        return max(2 * self.window, self.entries_max // 4)
