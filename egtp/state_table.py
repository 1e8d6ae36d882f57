"""State tables: the states of a machine, and what leads from one to another.

The code runs on these tables, and the diagrams in the documentation are drawn from them, so the two
cannot disagree.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

__all__ = ["State", "StateTable"]


class State(enum.Enum):
    """Base class of a machine's states and events. The values are what people read."""

    # Enum hashes the name, in slow Python code; members are equal only if they are identical.
    __hash__ = object.__hash__


S = TypeVar("S", bound=State)
E = TypeVar("E", bound=State)


class StateTable(Generic[S, E]):
    """Rows of (state, event, next state). An event that has no row changes nothing."""

    def __init__(self, start: S, rows: Iterable[tuple[S, E, S]]) -> None:
        """Raises ValueError if a state has two rows for one event, or can never be reached."""
        self.start: Final = start
        self.rows: Final = tuple(rows)
        self._next: Final = {(state, event): after for state, event, after in self.rows}
        if len(self._next) != len(self.rows):
            raise ValueError("a state has two rows for one event")
        self.states: Final = tuple(dict.fromkeys([start, *(after for *_, after in self.rows)]))
        if missing := {state for state, *_ in self.rows} - set(self.states):
            raise ValueError(f"nothing leads to {missing}")

    def after(self, state: S, event: E) -> S:
        return self._next.get((state, event), state)

    def on(self, event: E) -> Mapping[S, S]:
        """What each state becomes on one event: a single lookup, for busy code."""
        return {state: self.after(state, event) for state in self.states}

    def mermaid(self) -> str:
        """The diagram, as a ``stateDiagram-v2`` of https://mermaid.js.org."""
        arrows: defaultdict[tuple[S, S], list[str]] = defaultdict(list)
        for state, event, after in self.rows:
            arrows[state, after].append(str(event.value))
        lines = ["stateDiagram-v2"]
        lines += [f'    state "{state.value}" as {_id(state)}' for state in self.states]
        lines.append(f"    [*] --> {_id(self.start)}")
        for (state, after), events in arrows.items():
            lines.append(f"    {_id(state)} --> {_id(after)}: {' / '.join(events)}")
        going_on = {state for state, *_ in self.rows}
        lines += [f"    {_id(state)} --> [*]" for state in self.states if state not in going_on]
        return "\n".join(lines) + "\n"


def _id(state: State) -> str:
    return state.name.lower()
