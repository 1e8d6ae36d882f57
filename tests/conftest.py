"""How hard the property tests search: ``HYPOTHESIS_PROFILE=thorough make test`` for a long look.

No example has a deadline: how long one takes is the machine's affair, and benchmarks measure it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from egtp.message import Reply
from egtp.reassembly import RoomForChunks

DEFAULT = "ci" if os.environ.get("CI") else "dev"

settings.register_profile(
    "dev",
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# The same commit gets the same verdict: examples are derived from the test, not from entropy.
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.register_profile(
    "thorough", settings.get_profile("dev"), max_examples=2_000, stateful_step_count=100
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", DEFAULT))


class AmpleRoom:
    """As much as anybody wants."""

    def take_room(self, size: int) -> bool:
        return True

    def give_room_back(self, size: int) -> None:
        pass

    is_strangers = True

    def is_awaited(self, reply: Reply) -> bool:
        return True


@pytest.fixture(scope="session")
def ample_room() -> RoomForChunks:
    """For the chunks of a path that no limit of its node stops."""
    return AmpleRoom()
