"""Timeline: the record of a run, for people to look at.

The recorder calls one method per event; ``simulations.page`` draws :meth:`Timeline.as_dict`. Times
are seconds since the run began, and are arguments: a timeline has no clock, so a run in virtual
time is recorded like one on this machine.

A run may be long and is kept in memory, so each kind of entry has a limit. Entries beyond it are
counted but not kept, which the page says. The limits are separate, so that a storm of events leaves
room for the expectation that it broke.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Final, TypeAlias

__all__ = ["Timeline", "TimelineLimits"]

Options: TypeAlias = Mapping[str, str | int | float | bool | None]

_DECIMALS: Final = 6
"""Digits kept of times and figures: nobody needs less than a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineLimits:
    """How much is kept: at most 200,000 entries in all, which a browser draws without a pause."""

    events_max: int = 100_000
    queries_max: int = 40_000
    paths_max: int = 30_000
    lookups_max: int = 14_000
    states_max: int = 6_000
    addresses_max: int = 4_000
    nodes_max: int = 2_000
    faults_max: int = 1_500
    story_max: int = 1_000
    expectations_max: int = 1_000
    figures_max: int = 500
    text_chars_max: int = 1_000
    """Longer texts are cut, such as a reason that quotes a whole packet."""


@dataclass(frozen=True, slots=True)
class TimelineNode:
    """One lane of the picture."""

    name: str
    role: str
    """``relay``, ``peer``, ``hidden``, ``bootstrap``, or the scenario's own word."""


@dataclass(frozen=True, slots=True)
class State:
    """A node changes its state."""

    node: str
    at_s: float
    state: str
    """``up``, ``asleep``, ``down`` or ``gone``."""


@dataclass(frozen=True, slots=True)
class Address:
    """A node changes its address."""

    node: str
    at_s: float
    address: str


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of a node."""

    at_s: float
    node: str
    kind: str
    peer: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a node's messages to ``peer`` changes."""

    at_s: float
    node: str
    peer: str
    way: str
    """``direct``, ``relay`` or ``none``."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that affects some nodes for a while."""

    from_s: float
    to_s: float | None
    """None if it lasts to the end of the run."""
    text: str
    nodes: tuple[str, ...]
    """Empty if it affects all nodes."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the scenario's story."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Expected:
    """A claim of the scenario, and what was observed."""

    at_s: float
    text: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Query:
    """A query, from its start to its outcome."""

    at_s: float
    took_s: float
    node: str
    peer: str
    way: str
    outcome: str
    """In words, such as ``reply``, ``fast fail``, ``hard timeout`` or ``open``."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A lookup in the DHT, from start to end."""

    at_s: float
    took_s: float
    node: str
    peer: str
    found: bool


_Row: TypeAlias = (
    TimelineNode | State | Address | Happening | Way | Fault | Sentence | Expected | Query | Lookup
)
_TABLES: Final[Mapping[str, type[_Row]]] = MappingProxyType(
    {
        "nodes": TimelineNode,
        "states": State,
        "addresses": Address,
        "events": Happening,
        "paths": Way,
        "faults": Fault,
        "story": Sentence,
        "expectations": Expected,
        "queries": Query,
        "lookups": Lookup,
    }
)


class Timeline:
    """The record of one run. Entries may come in any order: the page sorts them by time."""

    def __init__(
        self,
        title: str,
        *,
        summary: str = "",
        seed: int = 0,
        world: str = "virtual",
        command: str | None = None,
        options: Options | None = None,
        limits: TimelineLimits | None = None,
    ) -> None:
        """``world`` is ``virtual`` or ``loopback``; ``command`` is the one that repeats the run."""
        self._head: Final = {
            "title": title,
            "summary": summary,
            "seed": seed,
            "world": world,
            "command": command,
            "options": dict(options or {}),
        }
        self.limits: Final = limits or TimelineLimits()
        self.trace_digest: str | None = None
        self.ended_s = 0.0
        """Until :meth:`end` is called, the time of the latest entry."""
        self.figures: Final[dict[str, float]] = {}
        self.left_out: Final[Counter[str]] = Counter()
        """How many entries of each kind were beyond its limit."""
        self.left_out_from_s: float | None = None
        """When the picture starts to be incomplete."""
        self._kept: Final[dict[str, list[_Row]]] = {kind: [] for kind in _TABLES}

    # Nodes

    def node(self, name: str, role: str) -> None:
        """Add a lane. Lanes are drawn in the order in which they are added."""
        self._keep("nodes", TimelineNode(name, role), None)

    def state(self, node: str, at_s: float, state: str) -> None:
        self._keep("states", State(node, at_s, state), at_s)

    def address(self, node: str, at_s: float, address: str) -> None:
        self._keep("addresses", Address(node, at_s, self._cut(address)), at_s)

    # Events

    def event(
        self, at_s: float, node: str, kind: str, peer: str | None = None, text: str = ""
    ) -> None:
        """``kind`` is ``dial``, ``path opened``, ``path lost``, ``record learned``,
        ``record published``, ``search failed``, or the scenario's own word."""
        self._keep("events", Happening(at_s, node, kind, peer, self._cut(text)), at_s)

    def path(self, at_s: float, node: str, peer: str, way: str) -> None:
        """The way from ``node`` to ``peer`` is now ``direct``, ``relay`` or ``none``."""
        self._keep("paths", Way(at_s, node, peer, way), at_s)

    def query(
        self, at_s: float, took_s: float, node: str, peer: str, way: str, outcome: str
    ) -> None:
        """Called when it ends; ``at_s`` is its start."""
        self._keep("queries", Query(at_s, took_s, node, peer, way, outcome), at_s + took_s)

    def lookup(self, at_s: float, took_s: float, node: str, peer: str, *, found: bool) -> None:
        """Called when it ends; ``at_s`` is its start."""
        self._keep("lookups", Lookup(at_s, took_s, node, peer, found), at_s + took_s)

    # The world

    def fault(self, from_s: float, text: str, nodes: Sequence[str] = ()) -> int | None:
        """A fault begins, for all nodes if none are named. Returns its number for
        :meth:`fault_over`; None if it is beyond the limit."""
        value = Fault(from_s, None, self._cut(text), tuple(nodes))
        kept = self._keep("faults", value, from_s)
        return len(self._kept["faults"]) - 1 if kept else None

    def fault_over(self, fault: int | None, at_s: float) -> None:
        """A fault ends."""
        self.ended_s = max(self.ended_s, at_s)
        if fault is not None:
            value = self._kept["faults"][fault]
            assert isinstance(value, Fault)
            self._kept["faults"][fault] = replace(value, to_s=at_s)

    # The scenario

    def sentence(self, at_s: float, text: str) -> None:
        self._keep("story", Sentence(at_s, self._cut(text)), at_s)

    def expectation(self, at_s: float, text: str, held: bool, detail: str = "") -> None:
        value = Expected(at_s, self._cut(text), held, self._cut(detail))
        self._keep("expectations", value, at_s)

    def figure(self, name: str, value: float) -> None:
        """``name`` ends in the unit: ``crash_to_next_reply_ms``."""
        if name in self.figures or len(self.figures) < self.limits.figures_max:
            self.figures[name] = value
        else:
            self.left_out["figures"] += 1

    def end(self, at_s: float, trace_digest: str | None = None) -> None:
        """The run is over; its digest is the same for every run with the same seed."""
        self.ended_s = max(self.ended_s, at_s)
        self.trace_digest = trace_digest

    # For the page

    def as_dict(self) -> dict[str, object]:
        """The record as values for JSON. For brevity, tables are rows, with the column names once.

        A figure that is not finite (the time of an event that never came) is None.
        """
        return {
            **self._head,
            "trace_digest": self.trace_digest,
            "began_s": 0.0,
            "ended_s": _plain(self.ended_s),
            **{kind: _table(row, self._kept[kind]) for kind, row in _TABLES.items()},
            "figures": {
                name: _plain(value) if math.isfinite(value) else None
                for name, value in self.figures.items()
            },
            "left_out": dict(self.left_out),
            "left_out_from_s": _plain(self.left_out_from_s),
        }

    def _keep(self, kind: str, value: _Row, at_s: float | None) -> bool:
        if at_s is not None:
            self.ended_s = max(self.ended_s, at_s)
        kept = self._kept[kind]
        if len(kept) < getattr(self.limits, f"{kind}_max"):
            kept.append(value)
            return True
        self.left_out[kind] += 1
        if at_s is not None and (self.left_out_from_s is None or at_s < self.left_out_from_s):
            self.left_out_from_s = at_s
        return False

    def _cut(self, text: str) -> str:
        longest = self.limits.text_chars_max
        return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _table(kind: type[_Row], kept: Sequence[_Row]) -> dict[str, object]:
    columns = [field.name for field in fields(kind)]
    return {
        "columns": columns,
        "rows": [[_plain(getattr(row, column)) for column in columns] for row in kept],
    }


def _plain(value: object) -> object:
    """The value as JSON represents it."""
    if isinstance(value, float):
        return round(value, _DECIMALS)
    return list(value) if isinstance(value, tuple) else value
