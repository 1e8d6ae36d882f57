"""simulate: run a story in a world of its own, from one seed to one end."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from simulations.virtual.errors import ImpossibleWorld, Overdue, SimulationError, Stalled, Unhandled
from simulations.virtual.garbage import no_other_collections
from simulations.virtual.network import Network
from simulations.virtual.process import current_process, process_of
from simulations.virtual.watchdog import unreal_calls_refused

__all__ = ["Run", "Session", "run_in", "simulate"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Run(Generic[_T]):
    """The result of a story."""

    value: _T
    """What it returned."""
    digest: str
    """The digest of everything that happened; equal runs have equal ones."""
    virtual_s: float
    """How long it took in the world, in seconds."""
    wall_s: float
    """How long it took in reality, in seconds."""
    packets: int
    """How many entries the trace has: packets, connections and faults."""


def simulate(
    story: Callable[[Network], Coroutine[Any, Any, _T]],
    *,
    seed: int = 0,
    limit_s: float | None = None,
    unreal: bool = True,
) -> Run[_T]:
    """Run ``story`` in a new world from one seed, and throw the world away.

    ::

        async def story(network: Network) -> None:
            alice = network.host("alice", "5.1.0.1")
            ...

        simulate(story, seed=7)

    :param limit_s: seconds of virtual time that the story may take; None for no limit.
    :param unreal: whether reading the real clock or entropy raises :class:`Unreal`.

    Raises what the story raises, and the errors of :mod:`simulations.virtual.errors`.
    """
    network = Network(seed)
    return run_in(network, story(network), limit_s=limit_s, unreal=unreal)


def run_in(
    network: Network,
    story: Coroutine[Any, Any, _T],
    *,
    limit_s: float | None = None,
    unreal: bool = True,
) -> Run[_T]:
    """As :func:`simulate`, in a world that was made before. It has ended afterwards."""
    began_s, began_virtual_s = time.perf_counter(), network.loop.now
    with Session(network, unreal=unreal) as session:
        value = session.run(story, limit_s=limit_s)
    return Run(
        value,
        network.trace.digest,
        network.loop.now - began_virtual_s,
        time.perf_counter() - began_s,
        network.trace.entries,
    )


class Session:
    """A world that goes on from one story to the next, and ends with the ``with`` block.

    Between two stories, time stands still and nothing happens.
    """

    def __init__(self, network: Network, *, unreal: bool = True) -> None:
        self.network: Final = network
        self._unreal = unreal
        self._unhandled: list[dict[str, Any]] = []
        self._main: asyncio.Task[Any] | None = None
        self._stories: Final[list[asyncio.Task[Any]]] = []
        """Unfinished stories, held until the end of the world, when they are closed."""

    def __enter__(self) -> Self:
        self.network.loop.set_exception_handler(self._fail)
        return self

    def run(self, story: Coroutine[Any, Any, _T], *, limit_s: float | None = None) -> _T:
        """Run a story and return what it returns. Raises as :func:`simulate` does."""
        loop = self.network.loop
        if limit_s is not None and not limit_s > 0:
            story.close()
            raise ImpossibleWorld(f"limit_s must be a time above 0 s, not {limit_s!r}")
        loop.limit_s = None if limit_s is None else loop.now + limit_s
        main: asyncio.Task[_T] = loop.create_task(story, name="the story")
        self._main = main
        refused = unreal_calls_refused(loop, self.network.story, refuse=self._unreal)
        with refused, no_other_collections():
            try:
                with self._says_where_it_was():
                    value = loop.run_until_complete(main)
            except (asyncio.CancelledError, Stalled, Overdue):
                # The first thing that went wrong explains the rest.
                if not self._unhandled:
                    raise
            finally:
                if not main.done():
                    self._stories.append(main)
        self._fail_if_unhandled()
        return value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gc.collect()  # Unretrieved exceptions are reported when their tasks are destroyed.
        self.network.loop.set_exception_handler(lambda *_: None)
        _end(self.network)
        if error is None:
            self._fail_if_unhandled()

    @contextmanager
    def _says_where_it_was(self) -> Iterator[None]:
        """Add to whatever is raised the moment and the seed: what a reader needs to play it
        again."""
        try:
            yield
        except BaseException as error:
            network = self.network
            error.add_note(f"at {network.loop.now:.3f} s of the world with seed {network.seed}")
            raise

    def _fail_if_unhandled(self) -> None:
        if self._unhandled:
            with self._says_where_it_was():
                raise _unhandled(self._unhandled[0])

    def _fail(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        task = context.get("task", context.get("future"))
        if isinstance(task, asyncio.Task):
            process = process_of(task)
            if process is not None and not process.alive:
                # The program that would have handled it is dead.
                return
        else:
            # A callback, or a program that reports something itself.
            process = current_process(getattr(context.get("handle"), "_context", None))
        if process is not None:
            context = {**context, "message": f"{process.name}: {context.get('message')}"}
        self._unhandled.append(context)
        if self._main is not None:
            self._main.cancel()


def _unhandled(context: dict[str, Any]) -> SimulationError:
    error = context.get("exception")
    if isinstance(error, SimulationError):
        return error
    text = str(context.get("message", "an error"))
    raised = Unhandled(text if error is None else f"{text}: {type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised


def _end(network: Network) -> None:
    """End the world, leaving no task, timer or file behind."""

    def end_all() -> None:
        for host in (*network.hosts.values(), network.story):
            host.end()

    network.loop.end(end_all)
