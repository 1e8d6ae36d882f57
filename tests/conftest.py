"""How hard the property tests search: ``HYPOTHESIS_PROFILE=thorough make test`` for a long look;
and identities that are the same in every run.

No example has a deadline: how long one takes is the machine's affair, and benchmarks measure it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import hashlib
import os
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from egtp.paths.reassembly import RoomForChunks
from egtp.values.identity import Identity
from egtp.values.message import Reply

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


@pytest.fixture(scope="session", autouse=True)
def frozen_garbage() -> None:
    """Whatever looks for tasks and worlds that are left collects garbage, thousands of times in
    all; what was imported need not be looked at each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """To show where a test failed, pytest parses its source. Python before 3.11.8 raises a
    SystemError, and so ends all of pytest, if garbage is collected at that moment whose finalizer
    shows a traceback and parses, too (https://github.com/python/cpython/issues/106905)."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return (yield)
    finally:
        if collects:
            gc.enable()


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


@pytest.fixture(scope="session")
def eager_task_factory() -> Any:
    """asyncio's own, on every loop: uvloop gives it an ``eager_start`` on 3.13, which it takes from
    3.13.3 on."""

    def eagerly(
        loop: Any, coroutine: Any, *, context: contextvars.Context | None = None, **_: object
    ) -> Any:
        factory: Any = asyncio.eager_task_factory  # type: ignore[attr-defined, unused-ignore]
        return factory(loop, coroutine, context=context)

    return eagerly


@pytest.fixture
async def problems() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler was told. A test that causes a problem on purpose empties
    the list; any other one, and any task that is left, fails the test."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    before = asyncio.all_tasks()
    yield told
    others = asyncio.all_tasks() - before - {asyncio.current_task()}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.gather(*others, return_exceptions=True)
    assert not [task for task in others if not task.done()], "tasks are left"
    assert told == []


def fixed_identity(name: str) -> Identity:
    """The same keys in every run: failures can be compared and vectors can be frozen."""
    parts = iter((b"signing", b"channel"))
    return Identity.generate(lambda _: hashlib.sha256(name.encode() + next(parts)).digest())


@pytest.fixture(scope="session")
def alice() -> Identity:
    return fixed_identity("alice")


@pytest.fixture(scope="session")
def bob() -> Identity:
    return fixed_identity("bob")


@pytest.fixture(scope="session")
def mallory() -> Identity:
    return fixed_identity("mallory")


@pytest.fixture
def stranger() -> Iterator[None]:
    """Not the super-user, who may read everything, for as long as the test lasts."""
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)
    yield
    if privileged:
        os.seteuid(0)
