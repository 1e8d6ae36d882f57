"""Timeline: what is kept of a run, for people who want to look at it.

The one that records calls a method for each thing that happens; :meth:`Timeline.as_dict` is what
``simulations.page`` draws. Times are seconds since the run began, and are given by whoever records:
a timeline knows no clock, so a run in virtual time is recorded like one on this machine.

A run may be long, and what is drawn has to be held: each kind of thing has a limit. What is beyond
it is counted and not kept, and the page says so. The kinds do not share a limit, lest a storm of
events leave no room for the expectation that it broke.
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
"""Of a second, and of a figure: nobody looks at less than a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineLimits:
    """How much is kept: at most 200,000 things in all, which a browser draws without a pause."""

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
    """Of one text: a reason that quotes a whole packet is cut."""


@dataclass(frozen=True, slots=True)
class TimelineNode:
    """One lane of the picture."""

    name: str
    role: str
    """``relay``, ``peer``, ``hidden``, ``bootstrap``, or a word of the scenario's own."""


@dataclass(frozen=True, slots=True)
class State:
    """A node is in another state from now on."""

    node: str
    at_s: float
    state: str
    """``up``, ``asleep``, ``down`` or ``gone``."""


@dataclass(frozen=True, slots=True)
class Address:
    """A node is at another address from now on."""

    node: str
    at_s: float
    address: str


@dataclass(frozen=True, slots=True)
class Happening:
    """A turning point in a node."""

    at_s: float
    node: str
    kind: str
    peer: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Way:
    """From now on a node's messages to ``peer`` go another way."""

    at_s: float
    node: str
    peer: str
    way: str
    """``direct``, ``relay`` or ``none``."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The world does something to some nodes for a while."""

    from_s: float
    to_s: float | None
    """None: to the end of the run."""
    text: str
    nodes: tuple[str, ...]
    """None named: all of them."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the scenario's story."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Expected:
    """A claim of the scenario, and what was seen."""

    at_s: float
    text: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Query:
    """A query, from its beginning to its outcome."""

    at_s: float
    took_s: float
    node: str
    peer: str
    way: str
    outcome: str
    """``reply``, ``fast fail``, ``hard timeout``, ``handler failed``, ``open``: in words."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A lookup in the DHT, from its beginning to its end."""

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
    """The record of one run. Things may come in any order: the page sorts them by time."""

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
        """``world`` is ``virtual`` or ``loopback``; ``command`` is what plays the run again."""
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
        """Until :meth:`end` says it: when the last thing so far happened."""
        self.figures: Final[dict[str, float]] = {}
        self.left_out: Final[Counter[str]] = Counter()
        """How many of each kind came after its limit was reached."""
        self.left_out_from_s: float | None = None
        """From when on the picture is not complete."""
        self._kept: Final[dict[str, list[_Row]]] = {kind: [] for kind in _TABLES}

    # Who

    def node(self, name: str, role: str) -> None:
        """A lane. They are drawn in the order in which they are named."""
        self._keep("nodes", TimelineNode(name, role), None)

    def state(self, node: str, at_s: float, state: str) -> None:
        self._keep("states", State(node, at_s, state), at_s)

    def address(self, node: str, at_s: float, address: str) -> None:
        self._keep("addresses", Address(node, at_s, self._cut(address)), at_s)

    # What

    def event(
        self, at_s: float, node: str, kind: str, peer: str | None = None, text: str = ""
    ) -> None:
        """``kind`` is ``dial``, ``path opened``, ``path lost``, ``record learned``,
        ``record published``, ``search failed``, or a word of the scenario's own."""
        self._keep("events", Happening(at_s, node, kind, peer, self._cut(text)), at_s)

    def path(self, at_s: float, node: str, peer: str, way: str) -> None:
        """The way in use from ``node`` to ``peer`` is ``direct``, ``relay`` or ``none`` now."""
        self._keep("paths", Way(at_s, node, peer, way), at_s)

    def query(
        self, at_s: float, took_s: float, node: str, peer: str, way: str, outcome: str
    ) -> None:
        """Told at its end; ``at_s`` is its beginning."""
        self._keep("queries", Query(at_s, took_s, node, peer, way, outcome), at_s + took_s)

    def lookup(self, at_s: float, took_s: float, node: str, peer: str, *, found: bool) -> None:
        """Told at its end; ``at_s`` is its beginning."""
        self._keep("lookups", Lookup(at_s, took_s, node, peer, found), at_s + took_s)

    # The world

    def fault(self, from_s: float, text: str, nodes: Sequence[str] = ()) -> int | None:
        """Something is wrong from now on, for all nodes if none are named. Returns what
        :meth:`fault_over` takes; None if the fault is beyond the limit."""
        value = Fault(from_s, None, self._cut(text), tuple(nodes))
        kept = self._keep("faults", value, from_s)
        return len(self._kept["faults"]) - 1 if kept else None

    def fault_over(self, fault: int | None, at_s: float) -> None:
        """What went wrong is right again."""
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
        """The run is over; its digest is the same for every run of the same seed."""
        self.ended_s = max(self.ended_s, at_s)
        self.trace_digest = trace_digest

    # For the page

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON. Tables are rows beside the names of their columns: that is short.

        A figure that is no finite number (a time that never came) is None.
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
    """As JSON has it."""
    if isinstance(value, float):
        return round(value, _DECIMALS)
    return list(value) if isinstance(value, tuple) else value
