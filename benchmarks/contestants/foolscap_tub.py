"""Foolscap on Twisted: callRemote on a reference found by its furl, over Foolscap's own TLS."""

from __future__ import annotations

from typing import Any

from foolscap.api import Referenceable, Tub
from foolscap.util import allocate_tcp_port
from twisted.internet import defer, reactor, task, threads

from benchmarks.load import Load
from benchmarks.stations import Settings, next_work, say, take_part


class Echo(Referenceable):  # type: ignore[misc]
    def remote_echo(self, body: bytes) -> bytes:
        return body


def serve(_: Settings) -> None:
    tub = Tub()
    port = allocate_tcp_port()
    tub.listenOn(f"tcp:{port}:interface=127.0.0.1")
    tub.setLocation(f"127.0.0.1:{port}")
    tub.startService()
    say("ready", address=tub.registerReference(Echo()))
    _run()


def client(settings: Settings) -> None:
    tub = Tub()
    tub.startService()

    async def all_work() -> None:
        reference = await tub.getReference(settings["address"])

        def call(body: bytes) -> Any:
            return reference.callRemote("echo", body)

        assert await call(b"right?") == b"right?"
        say("ready")
        while True:
            load = Load(call, await threads.deferToThread(next_work))
            workers = [defer.ensureDeferred(load.worker()) for _ in range(load.at_once)]
            await load.watch(_sleep)
            await defer.gatherResults(workers)

    def failed(failure: Any) -> None:
        say("failed", reason=str(failure.value))
        reactor.stop()  # type: ignore[attr-defined]

    defer.ensureDeferred(all_work()).addErrback(failed)
    _run()


def _sleep(seconds: float) -> Any:
    return task.deferLater(reactor, seconds, lambda: None)


def _run() -> None:
    reactor.run(installSignalHandlers=False)  # type: ignore[attr-defined]


if __name__ == "__main__":
    take_part({"serve": serve, "client": client})
