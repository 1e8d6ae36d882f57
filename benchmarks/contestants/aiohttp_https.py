"""aiohttp: a POST over HTTPS for each call, with mutual TLS 1.3 and kept-alive connections."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientSession, TCPConnector, web

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.certificates import client_context, server_context

LIMIT = 2**26
CONNECTIONS = 64


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def serve(settings: dict[str, Any]) -> object:
    app = web.Application(client_max_size=LIMIT)
    app.router.add_post("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(settings["certificates"]))
    await site.start()
    return runner.addresses[0][1]


class Session:
    def __init__(self, session: ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def call(self, body: bytes) -> bytes:
        async with self._session.post(self._url, data=body) as response:
            return await response.read()

    async def close(self) -> None:
        await self._session.close()


async def connect(settings: dict[str, Any]) -> Session:
    connector = TCPConnector(ssl=client_context(settings["certificates"]), limit=CONNECTIONS)
    return Session(ClientSession(connector=connector), f"https://127.0.0.1:{settings['address']}/")


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect)
