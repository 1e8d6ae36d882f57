"""Gives a program's figures to Prometheus: ``--metrics IP:PORT``.

The least of HTTP/1.1 that a scraper needs: one GET per connection. Whoever connects may be slow,
send too much or never read: there are few connections at a time, and each ends after a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final, cast

from egtp.metrics import Part, exposition
from egtp.tcp.listening import Listeners
from egtp.values.comm_strat import Address

__all__ = ["serving_metrics"]

CONNECTIONS_MAX: Final = 16
REQUEST_BYTES_MAX: Final = 8192
SCRAPE_TIMEOUT_S: Final = 5.0
"""From accepting a connection to the end of the response."""


@contextlib.asynccontextmanager
async def serving_metrics(
    address: str | None, parts: Callable[[], Iterable[Part]]
) -> AsyncIterator[tuple[str, ...]]:
    """Answer scrapers at ``address``; nobody if that is None. ``parts`` is called for each scrape,
    on the event loop. Gives the lines that tell a user so. Raises :class:`egtp.InvalidConfig` if
    the address cannot be used."""
    if address is None:
        yield ()
        return
    scrapes: set[_Scrape] = set()
    listeners = Listeners(lambda: _Scrape(scrapes, parts))
    try:
        (listening,) = await listeners.listen([Address.parse(address)])
        yield (f"metrics at http://{listening}/metrics",)
    finally:
        listeners.close()
        for scrape in list(scrapes):
            scrape.abort()


class _Scrape(asyncio.Protocol):
    """One connection: a request and its response."""

    def __init__(self, scrapes: set[_Scrape], parts: Callable[[], Iterable[Part]]) -> None:
        self._scrapes = scrapes
        self._parts = parts
        self._request = bytearray()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        # Slow readers end, too.
        self._timer = loop.call_later(SCRAPE_TIMEOUT_S, self.abort)
        self._scrapes.add(self)
        if len(self._scrapes) > CONNECTIONS_MAX:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._request += data
        if len(self._request) > REQUEST_BYTES_MAX:
            self.abort()
        elif b"\r\n\r\n" in self._request:
            self._answered = True
            self._transport.write(self._response())
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self._scrapes.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def _response(self) -> bytes:
        method, _, rest = self._request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return _response("405 Method Not Allowed", "only GET\n", "Allow: GET\r\n")
        if path != b"/metrics":
            return _response("404 Not Found", "see /metrics\n")
        return _response("200 OK", exposition([*self._parts(), _of_process()]))


def _response(status: str, text: str, headers: str = "") -> bytes:
    body = text.encode()
    return (
        f"HTTP/1.1 {status}\r\n"
        "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{headers}Connection: close\r\n\r\n"
    ).encode() + body


def _of_process() -> Part:
    """What the libraries of Prometheus tell of each process, as far as this system tells it."""
    times = os.times()
    figures: dict[str, float] = {"cpu_seconds": times.user + times.system}
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        figures["resident_memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
        figures["open_fds"] = len(list(Path("/proc/self/fd").iterdir()))
    return Part("process", {}, figures)
