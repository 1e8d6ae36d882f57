"""What can be wrong with a simulated run.

::

    SimulationError
    ├── ImpossibleWorld   what was asked for cannot be: a negative latency, an address twice
    ├── NotSimulated      the program asked for something that a simulation has not
    ├── Unreal            the program reads the real clock or real entropy, or waits for real
    ├── Blocked           a callback keeps the event loop for seconds
    ├── Stalled           nothing is left that could happen, and the story is not at its end
    ├── Overdue           the story takes longer than it was given
    ├── Unhandled         a task or callback raised what nobody was there to take
    └── HostDown          the machine that was asked to do something crashed over it
"""

from __future__ import annotations

__all__ = [
    "Blocked",
    "HostDown",
    "ImpossibleWorld",
    "NotSimulated",
    "Overdue",
    "SimulationError",
    "Stalled",
    "Unhandled",
    "Unreal",
]


class SimulationError(Exception):
    """Anything below."""


class ImpossibleWorld(SimulationError, ValueError):
    """There can be no such world; the text says why."""


class NotSimulated(SimulationError, NotImplementedError):
    """There is no such thing in a simulation: threads, raw sockets, child processes, TLS."""


class Unreal(SimulationError):
    """The program went around the simulation: the text names the place."""


class Blocked(SimulationError):
    """A callback keeps the event loop busy; the text names the place."""


class Stalled(SimulationError):
    """Nobody can go on; the text says who waits for what."""


class Overdue(SimulationError):
    """The virtual time that the story was given is over; the text says who waits for what."""


class Unhandled(SimulationError):
    """The cause is what a task or callback raised."""


class HostDown(SimulationError, ConnectionError):
    """The machine crashed, or is down."""
