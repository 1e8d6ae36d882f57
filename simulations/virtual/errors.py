"""What can be wrong with a simulated run.

::

    SimulationError
    ├── ImpossibleWorld   no world can be like that: a negative latency, an address used twice
    ├── NotSimulated      the program uses something that is not simulated
    ├── Unreal            the program reads the real clock or real entropy, or really waits
    ├── Blocked           a callback blocks the event loop for seconds
    ├── Stalled           nothing more can happen, and the story has not ended
    ├── Overdue           the story takes longer than its limit
    ├── Unhandled         a task or callback raised an exception that nobody caught
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
    """The root of all errors of a simulated run."""


class ImpossibleWorld(SimulationError, ValueError):
    """No such world can exist; the message says why."""


class NotSimulated(SimulationError, NotImplementedError):
    """Not part of the simulation: threads, raw sockets, child processes, TLS."""


class Unreal(SimulationError):
    """The program bypassed the simulation; the message names the place."""


class Blocked(SimulationError):
    """A callback blocks the event loop; the message names the place."""


class Stalled(SimulationError):
    """No task can go on; the message says who waits for what."""


class Overdue(SimulationError):
    """The virtual time of the story is up; the message says who waits for what."""


class Unhandled(SimulationError):
    """A task or callback raised an exception that nobody caught: the ``__cause__``."""


class HostDown(SimulationError, ConnectionError):
    """The machine is down, or crashed during the work."""
