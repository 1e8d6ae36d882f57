# The loop builds on asyncio's BaseEventLoop, of which typeshed declares little.
# mypy: disable-error-code="override"
"""What a simulated event loop lacks: threads, file descriptors, child processes.

Using them raises an error at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from simulations.virtual.errors import NotSimulated

__all__ = ["Unthreaded"]

_T = TypeVar("_T")


class Unthreaded(asyncio.BaseEventLoop):
    """An event loop that does everything in the thread that runs it."""

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> Any:  # noqa: ARG002
        """Run ``func`` right here: a simulation has no other threads."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> NoReturn:
        raise NotSimulated("there are no threads in a simulation: use call_soon")

    def _process_events(self, event_list: Any) -> None:  # noqa: ARG002
        raise NotSimulated("there is no selector in a simulation")

    def _write_to_self(self) -> None:
        pass


for _name in (
    "add_reader", "add_writer", "sock_connect", "sock_recv", "sock_sendall", "sock_accept",
    "subprocess_exec", "subprocess_shell", "add_signal_handler", "create_unix_connection",
    "create_unix_server", "sendfile", "start_tls", "connect_read_pipe", "connect_write_pipe",
):  # fmt: skip

    def _refuse(*_: Any, _name: str = _name, **__: Any) -> NoReturn:
        raise NotSimulated(f"a simulated event loop has no {_name}")

    setattr(Unthreaded, _name, _refuse)
