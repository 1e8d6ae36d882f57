"""A Discovery Service with a fixed list, and what it shares with the other one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp.discovery_service import DiscoveryService, Introduction
from egtp.errors import WrongLoop
from egtp.values.contact_link import ContactLink


@pytest.fixture
def introductions(links: list[ContactLink]) -> tuple[Introduction, ...]:
    return tuple(Introduction(link.peer_id, link.record) for link in links)


async def until_the_calls_under_way_are_made() -> None:
    """Callbacks run in the order in which they were scheduled; this one is the last."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


async def test_the_list_is_introduced_after_the_call_not_inside(
    introductions: tuple[Introduction, ...],
) -> None:
    service: DiscoveryService = StaticDiscovery(iter(introductions))
    calls: list[Sequence[Introduction]] = []
    service.meet_relay_servers(calls.append)
    assert calls == []
    await until_the_calls_under_way_are_made()
    assert calls == [introductions]


async def test_an_empty_list_is_introduced_too() -> None:
    calls: list[Sequence[Introduction]] = []
    StaticDiscovery(()).meet_relay_servers(calls.append)
    await until_the_calls_under_way_are_made()
    assert calls == [()]


async def test_who_forgets_at_once_is_never_called(
    introductions: tuple[Introduction, ...],
) -> None:
    service = StaticDiscovery(introductions)
    kept: list[Sequence[Introduction]] = []
    forgotten: list[Sequence[Introduction]] = []
    service.meet_relay_servers(forgotten.append)
    service.meet_relay_servers(kept.append)
    service.forget(forgotten.append)
    service.forget(print)  # never registered
    await until_the_calls_under_way_are_made()
    assert kept == [introductions]
    assert forgotten == []


async def test_who_asks_twice_in_a_row_is_called_once_and_who_asks_later_again(
    introductions: tuple[Introduction, ...],
) -> None:
    service = StaticDiscovery(introductions)
    calls: list[Sequence[Introduction]] = []
    service.meet_relay_servers(calls.append)
    service.meet_relay_servers(calls.append)
    await until_the_calls_under_way_are_made()
    assert len(calls) == 1
    service.meet_relay_servers(calls.append)
    await until_the_calls_under_way_are_made()
    assert len(calls) == 2


async def test_a_failing_listener_is_reported_and_the_next_is_still_called(
    introductions: tuple[Introduction, ...],
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    failure = RuntimeError("a bug of the listener")

    def fail(_: Sequence[Introduction]) -> None:
        raise failure

    service = StaticDiscovery(introductions)
    calls: list[Sequence[Introduction]] = []
    service.meet_relay_servers(fail)
    service.meet_relay_servers(calls.append)
    await until_the_calls_under_way_are_made()
    assert calls == [introductions]
    assert [context["exception"] for context in reported] == [failure]


async def test_r15_a_call_from_another_thread_fails_at_once() -> None:
    service = StaticDiscovery(())
    with pytest.raises(WrongLoop):
        await asyncio.to_thread(service.meet_relay_servers, print)


def test_r15_a_call_from_another_loop_fails_at_once() -> None:
    service = StaticDiscovery(())

    async def meet() -> None:
        service.meet_relay_servers(lambda _: None)

    asyncio.run(meet())
    with pytest.raises(WrongLoop):
        asyncio.run(meet())
