"""Host names that a program has to ask the system for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from egtp.program import getaddrinfo, program_loop


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, program_loop()])
def test_a_program_ends_while_a_name_server_is_silent(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over, was_given_up = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> None:
        if not is_over.wait(10):
            was_given_up.set()

    async def ask() -> None:
        async with asyncio.timeout(0.1):
            await getaddrinfo("dht.example.org", 9100)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(TimeoutError):
        runner.run(ask())
    assert not was_given_up.is_set()
    is_over.set()


async def test_an_address_is_found_and_an_error_is_the_systems_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"family": socket.AF_INET, "type": socket.SOCK_DGRAM}
    ((*_, address),) = await getaddrinfo("127.0.0.1", 9100, **options)
    assert address == ("127.0.0.1", 9100)

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror, match="try again"):
        await getaddrinfo("dht.example.org", 9100, **options)
