"""Workers on asyncio's own event loop, on uvloop, and on the simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop

from simulations.virtual import Network


def virtual_loop() -> asyncio.AbstractEventLoop:
    return Network(seed=1).loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test once per event loop."""
    return {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
        "virtual": virtual_loop,
    }
