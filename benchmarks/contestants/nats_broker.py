"""NATS: request and reply through a nats-server, each side with mutual TLS to it.

Three parties by nature: the broker counts as the server's side when called directly, and as the
relay in the relay suite. Sealed to the broker, not end to end.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nats

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.certificates import client_context

started: list[subprocess.Popen[bytes]] = []
kept: list[Any] = []

CONFIG = """
host: 127.0.0.1
port: {port}
max_payload: 33554432
max_pending: 536870912
tls {{ cert_file: "{at}/server.pem", key_file: "{at}/server.key", ca_file: "{at}/ca.pem",
       verify: true }}
"""


async def relay(settings: dict[str, Any]) -> object:
    program = shutil.which("nats-server")
    if program is None:
        raise FileNotFoundError("no nats-server on this machine")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = Path(tempfile.mkdtemp()) / "nats.conf"
    config.write_text(CONFIG.format(port=port, at=settings["certificates"]), encoding="ascii")
    # Ends with the station: the harness ends all descendants.
    started.append(subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL))  # noqa: S603, ASYNC220
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return port
    raise TimeoutError("nats-server did not come up")


async def _client(settings: dict[str, Any], port: object) -> Any:
    return await nats.connect(
        f"tls://127.0.0.1:{port}",
        tls=client_context(settings["certificates"]),
        tls_hostname="localhost",
        pending_size=2**28,
        allow_reconnect=False,
    )


async def serve(settings: dict[str, Any]) -> object:
    port = settings.get("relay") or await relay(settings)
    client = await _client(settings, port)

    async def echo(message: Any) -> None:
        await message.respond(message.data)

    await client.subscribe("echo", cb=echo, pending_bytes_limit=2**30)
    await client.flush()
    kept.append(client)
    return port


class Session:
    def __init__(self, client: Any) -> None:
        self._client = client

    async def call(self, body: bytes) -> bytes:
        reply = await self._client.request("echo", body, timeout=30)
        return bytes(reply.data)

    async def close(self) -> None:
        await self._client.close()


async def connect(settings: dict[str, Any]) -> Session:
    return Session(await _client(settings, settings["address"]))


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect, relay=relay)
