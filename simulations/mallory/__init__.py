"""Mallory: an attacker for virtual networks.

She sits on every line (:class:`Line`), runs relays of her own (:class:`CrookedRelay`), and has a
machine from which she sends recorded packets to anybody (:class:`OwnSockets`). She has nobody's
keys. To let her loose on your own app's network::

    line = Line(network, own=frozenset({"mallory"}))
    mallory = OwnSockets(network.host("mallory", "66.0.0.1"))
    ...
    first = next(one for one in line.recorded if one.is_initiation)
    mallory.visit(first.endpoint, [first.packet])

``python -m simulations.mallory`` plays thousands of random schedules against the engine itself;
:data:`ATTACKS` has the attacks that the engine was built against, by name. The :class:`Judge` finds
out what she achieved.
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
