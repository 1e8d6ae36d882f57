"""What could not leave this machine fails fast, on real sockets, and says why."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from egtp import AttemptReason, Identity, Incoming, MemoryLookup, Node, NodeConfig, TCPStrat
from tests.node.at_hand import Config, Start, check_nothing_is_kept_of_queries, engine_of, fast_fail


async def test_a_refused_port_fails_fast_and_names_every_attempt(
    start: Start, lookup: MemoryLookup
) -> None:
    node, other = await start(), await start()
    record = node.record
    await node.close()
    failure, took_s = await fast_fail(other.query(node.node_id, "x"))
    assert took_s < 0.5
    refused, looked_up = failure.attempts
    assert isinstance(refused.strategy, TCPStrat)
    assert refused.strategy == record.tcp[0]
    assert refused.reason == "connection refused"
    assert 0 <= refused.duration_s < 0.5
    assert looked_up.strategy is None
    assert str(refused.strategy) in str(failure)
    assert "refused" in str(other.why(node.node_id))
    check_nothing_is_kept_of_queries(other)


async def test_nothing_known_and_nothing_found_fails_at_once(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start()
    failure, took_s = await fast_fail(node.query(identity().node_id, "x"))
    assert took_s < 0.2
    assert [attempt.strategy for attempt in failure.attempts] == [None]
    assert failure.attempts[0].reason == "no record found"
    check_nothing_is_kept_of_queries(node)


async def test_nothing_known_and_no_lookup_service_fails_at_once(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start(lookup=None)
    failure, took_s = await fast_fail(node.query(identity().node_id, "x"))
    assert took_s < 0.2
    assert failure.attempts == ()
    assert str(failure)


async def test_a_record_without_any_strategy_fails_at_once(start: Start) -> None:
    node, other = await start(listen=()), await start()
    _, took_s = await fast_fail(other.query(node.node_id, "x"))
    assert took_s < 0.2


async def test_a_body_too_large_for_this_node_fails_before_anything_is_tried(
    start: Start, greeter: Node, config: Config
) -> None:
    node = await start(config=config(body_bytes_max=1000))
    failure, _ = await fast_fail(node.query(greeter.node_id, "greet", bytes(1001)))
    assert "1001" in str(failure)
    assert len(engine_of(node).comms) == 0
    await fast_fail(node.send(greeter.node_id, "greet", bytes(1001)))


async def test_a_body_too_large_for_the_other_node_fails_fast_and_the_connection_stays(
    start: Start, config: Config
) -> None:
    node = await start(config=config(body_bytes_max=1000))

    @node.handler("size")
    async def size(query: Incoming) -> bytes:
        return b"%d" % len(query.body)

    other = await start(listen=())
    failure, _ = await fast_fail(other.query(node.node_id, "size", bytes(2000)))
    assert "1000" in str(failure)
    assert await other.query(node.node_id, "size", bytes(1000)) == b"1000"


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


async def test_an_address_that_now_belongs_to_somebody_else_fails_fast(
    start: Start, greeter: Node
) -> None:
    node = await start(listen=(), announce=greeter.listening)
    other = await start()
    failure, took_s = await fast_fail(other.query(node.node_id, "greet"))
    assert took_s < 1
    assert failure.attempts[0].strategy == greeter.record.tcp[0]
    assert await other.query(greeter.node_id, "greet") == b"hello "


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


async def test_the_same_address_is_left_alone_for_a_moment_and_the_attempt_says_so(
    start: Start,
) -> None:
    node, other = await start(), await start()
    await node.close()
    await fast_fail(other.query(node.node_id, "x"))
    failure, took_s = await fast_fail(other.query(node.node_id, "x"))
    assert took_s < 0.1
    assert "a moment ago" in failure.attempts[0].reason


async def test_a_good_address_is_found_beside_bad_ones(start: Start, config: Config) -> None:
    with socket.socket() as silent, socket.socket() as refusing:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        refusing.bind(("127.0.0.1", 0))
        bad = [f"127.0.0.1:{one.getsockname()[1]}" for one in (silent, refusing)]
        node = await start()
        await node.listen(node.listening)
        node._announce = None
        good = node.listening[0]
        other = await start(listen=(), announce=[*bad, good], identity=None)
        await other.close()
        clone = await start(node.identity, listen=(), announce=[*bad, good])
        await clone.close()

        @node.handler("greet")
        async def greet(query: Incoming) -> bytes:
            return b"hello"

        asker = await start(listen=(), config=config(dial_timeout_s=2))
        started = time.monotonic()
        assert await asker.query(node.node_id, "greet") == b"hello"
        assert time.monotonic() - started < 1
        assert len(engine_of(asker).comms) == 1
