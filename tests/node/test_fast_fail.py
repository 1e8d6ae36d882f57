"""Fast fails of this very machine: sockets that nobody answers at, and one's own address. Every
cause is in ``test_fast_fail_causes`` and ``test_fast_fail_by_strategy``, in virtual time."""

from __future__ import annotations

import socket
import time

import pytest

from egtp import AttemptReason, Node, NodeConfig
from tests.node.at_hand import Config, Start, engine_of, fast_fail


@pytest.mark.parametrize("accepts", [False, True], ids=["backlog full", "accepts, says nothing"])
async def test_a_silent_address_is_bounded_by_the_dial_timeout(
    start: Start, config: Config, accepts: bool
) -> None:
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(16 if accepts else 0)
    crowd = []
    if not accepts:
        # Fill the queue of connections that nobody accepts; the kernel then answers no more.
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
            crowd.append(one)
    try:
        host, port = silent.getsockname()
        node = await start(listen=(), announce=f"{host}:{port}")
        other = await start(config=config(dial_timeout_s=0.3))
        failure, took_s = await fast_fail(other.query(node.node_id, "x"))
        assert 0.25 < took_s < 1
        assert [a.strategy is not None for a in failure.attempts] == [True, False]
        assert failure.attempts[0].duration_s >= 0.25
        expected = AttemptReason.NO_HANDSHAKE if accepts else AttemptReason.SILENT
        assert failure.attempts[0].reason is expected
        assert len(engine_of(other).comms) == 0
    finally:
        silent.close()
        for one in crowd:
            one.close()


async def test_a_record_that_names_my_own_address_fails_fast(start: Start, greeter: Node) -> None:
    node = await start(listen=(), announce=greeter.listening)
    await fast_fail(greeter.query(node.node_id, "greet"))
    assert await greeter.query(greeter.node_id, "greet") == b"hello "


async def test_private_addresses_are_not_dialled_without_the_option(
    start: Start, greeter: Node
) -> None:
    node = await start(config=NodeConfig())
    failure, took_s = await fast_fail(node.query(greeter.node_id, "greet"))
    assert took_s < 0.2
    assert "private_addresses" in failure.attempts[0].reason


async def test_a_good_address_is_found_beside_bad_ones(
    start: Start, greeter: Node, config: Config
) -> None:
    with socket.socket() as silent, socket.socket() as refusing:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        refusing.bind(("127.0.0.1", 0))
        bad = [f"127.0.0.1:{one.getsockname()[1]}" for one in (silent, refusing)]
        clone = await start(greeter.identity, listen=(), announce=[*bad, *greeter.listening])
        await clone.close()
        asker = await start(listen=(), config=config(dial_timeout_s=2))
        started = time.monotonic()
        assert await asker.query(greeter.node_id, "greet") == b"hello "
        assert time.monotonic() - started < 1
        assert len(engine_of(asker).comms) == 1
