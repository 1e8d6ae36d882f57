"""Mallory: an attacker for virtual networks.

She sits on every line (:class:`Line`), runs relays of her own (:class:`CrookedRelay`), and has a
machine from which she writes to anybody what she recorded (:class:`OwnSockets`). She has nobody's
keys. Let her loose on an app's own network::

    line = Line(network, own=frozenset({"mallory"}))
    mallory = OwnSockets(network.host("mallory", "66.0.0.1"))
    ...
    first = next(one for one in line.recorded if one.is_initiation)
    mallory.visit(first.endpoint, [first.packet])

``python -m simulations.mallory`` plays thousands of drawn schedules against the engine itself, and
:data:`ATTACKS` has the attacks that it was built against, by name. The :class:`Judge` says what she
brought about.
"""

from __future__ import annotations

from simulations.mallory.attacks import ATTACKS, attack
from simulations.mallory.judge import Judge, Question
from simulations.mallory.line import Flow, Line, Recorded
from simulations.mallory.relay import CrookedRelay, Manner, Passed
from simulations.mallory.schedule import Played, Step, draw, play
from simulations.mallory.small_world import Conditions, Party, SmallWorld
from simulations.mallory.sockets import OwnSockets, Visit
from simulations.mallory.xray import XRay

__all__ = [
    "ATTACKS",
    "Conditions",
    "CrookedRelay",
    "Flow",
    "Judge",
    "Line",
    "Manner",
    "OwnSockets",
    "Party",
    "Passed",
    "Played",
    "Question",
    "Recorded",
    "SmallWorld",
    "Step",
    "Visit",
    "XRay",
    "attack",
    "draw",
    "play",
]
