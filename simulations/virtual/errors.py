"""What can be wrong with a simulated run.

::

    SimulationError
    ├── ImpossibleWorld   what was asked for cannot be: a negative latency, an address twice
    ├── NotSimulated      the program asked for something that is not simulated
    ├── Unreal            the program reads the real clock or real entropy, or really waits
    ├── Blocked           a callback blocks the event loop for seconds
    ├── Stalled           nothing more can happen, and the story has not ended
    ├── Overdue           the story takes longer than its limit
    ├── Unhandled         a task or callback raised something that nobody caught
    └── HostDown          the machine is down, or crashed during the work
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
    """The root: anything that is wrong with a simulated run."""


class ImpossibleWorld(SimulationError, ValueError):
    """There can be no such world; the message says why."""


class NotSimulated(SimulationError, NotImplementedError):
    """The simulation does not have it: threads, raw sockets, child processes, TLS."""


class Unreal(SimulationError):
    """The program went around the simulation; the message names the place."""


class Blocked(SimulationError):
    """A callback blocks the event loop; the message names the place."""


class Stalled(SimulationError):
    """Nobody can go on; the message says who waits for what."""


class Overdue(SimulationError):
    """The virtual time of the story is up; the message says who waits for what."""


class Unhandled(SimulationError):
    """A task or callback raised something that nobody caught: it is the ``__cause__``."""


class HostDown(SimulationError, ConnectionError):
    """The machine is down, or crashed during the work."""
