"""A query gets its own reply, whole, whatever its size and however many there are."""

from __future__ import annotations

import asyncio

import pytest

from egtp import HandlerFailed, Incoming, Node, ReplyCode
from tests.node.at_hand import Config, Held, Start, check_nothing_is_kept_of_queries, engine_of

MIB = 1024 * 1024


async def test_a_query_gets_its_reply(start: Start, greeter: Node) -> None:
    node = await start(listen=())
    assert await node.query(greeter.node_id, "greet", b"world") == b"hello world"
    check_nothing_is_kept_of_queries(node)


async def test_both_ends_of_a_connection_ask(start: Start, greeter: Node) -> None:
    node = await start(listen=())

    @node.handler("name")
    async def name(query: Incoming) -> bytes:
        return b"I am " + query.peer_id

    @greeter.handler("who")
    async def who(query: Incoming) -> bytes:
        return await greeter.query(query.peer_id, "name")

    assert await node.query(greeter.node_id, "who") == b"I am " + greeter.node_id


async def test_a_handler_is_told_who_asks_and_what(start: Start) -> None:
    told: list[Incoming] = []
    node, other = await start(), await start()

    @node.handler("tell")
    async def tell(query: Incoming) -> None:
        told.append(query)

    assert await other.query(node.node_id, "tell", b"body") == b""
    assert (told[0].peer_id, told[0].kind, told[0].body) == (other.node_id, "tell", b"body")
    assert told[0].wants_reply
    assert told[0].reply_bytes_max == other.config.body_bytes_max
    assert 0 <= told[0].age_s < 5


async def test_a_peer_id_can_be_a_body(greeter: Node, start: Start) -> None:
    """It is bytes to a type checker as well."""
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    @greeter.handler("friend")
    async def friend(query: Incoming) -> None:
        bodies.put_nowait(query.body)

    node = await start(listen=())
    await node.query(greeter.node_id, "friend", node.node_id)
    await node.send(greeter.node_id, "friend", node.node_id)
    assert [await bodies.get(), await bodies.get()] == [node.node_id] * 2


async def test_500_queries_at_once_each_get_their_own_reply(start: Start, greeter: Node) -> None:
    node = await start(listen=())
    bodies = [b"%d" % number for number in range(500)]
    replies = await asyncio.gather(*(node.query(greeter.node_id, "greet", body) for body in bodies))
    assert replies == [b"hello " + body for body in bodies]
    assert len(engine_of(node).comms) == 1
    check_nothing_is_kept_of_queries(node)


async def test_200_queries_of_40_kib_at_once_each_get_their_own_reply(
    start: Start, greeter: Node
) -> None:
    """More large messages than one path may have under way in chunks at a time."""
    node = await start(listen=())
    bodies = [number.to_bytes(2, "big") * 20_000 for number in range(200)]
    replies = await asyncio.gather(
        *(node.query(greeter.node_id, "greet", body, hard_timeout_s=5) for body in bodies)
    )
    assert replies == [b"hello " + body for body in bodies]


async def test_more_than_the_other_side_reassembles_at_a_time_arrives_all_the_same(
    start: Start, config: Config
) -> None:
    small = config(body_bytes_max=MIB, reassembly_bytes_max=MIB)
    node = await start(config=small)

    @node.handler("size")
    async def size(query: Incoming) -> bytes:
        return b"%d" % len(query.body)

    other = await start(listen=())
    await other.query(node.node_id, "size")
    replies = await asyncio.gather(
        *(other.query(node.node_id, "size", bytes(MIB - n), hard_timeout_s=5) for n in range(4))
    )
    assert replies == [b"%d" % (MIB - n) for n in range(4)]


@pytest.mark.parametrize("warm", [False, True])
async def test_5_mib_go_both_ways_and_delay_no_small_query_until_their_end(
    start: Start, warm: bool
) -> None:
    node, other = await start(), await start(listen=())
    order: list[str] = []

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    async def ask(name: str, body: bytes) -> bytes:
        reply = await other.query(node.node_id, "echo", body)
        order.append(name)
        return reply

    if warm:
        await other.query(node.node_id, "echo")
    large = bytes(range(256)) * (5 * MIB // 256)
    replies = await asyncio.gather(
        ask("large", large), *(ask("small", b"%d" % number) for number in range(20))
    )
    assert replies == [large, *(b"%d" % number for number in range(20))]
    assert order[-1] == "large"


@pytest.mark.parametrize("size", [16_000, 16_300, 16_384, 16_500, 65_000, 65_536, 100_000])
async def test_a_first_query_of_any_size_gets_through(start: Start, size: int) -> None:
    """The first packet of a connection comes before its sender is confirmed."""
    node, other = await start(), await start(listen=())

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    body = bytes(range(250)) * (size // 250 + 1)
    assert await other.query(node.node_id, "echo", body[:size], hard_timeout_s=3) == body[:size]


async def test_a_body_of_exactly_the_limit_passes_both_ways(start: Start, config: Config) -> None:
    settings = config(body_bytes_max=100_000)
    node, other = await start(config=settings), await start(config=settings, listen=())

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    assert await other.query(node.node_id, "echo", bytes(100_000)) == bytes(100_000)


async def test_a_query_to_oneself_is_answered_without_a_socket(greeter: Node) -> None:
    assert await greeter.query(greeter.node_id, "greet", b"me") == b"hello me"
    assert len(engine_of(greeter).comms) == 0
    with pytest.raises(HandlerFailed) as failed:
        await greeter.query(greeter.node_id, "unknown")
    assert failed.value.code == ReplyCode.NO_SUCH_KIND


async def test_cancelling_a_query_to_oneself_cancels_the_handler(start: Start) -> None:
    node, stuck = await start(), Held()
    node.handle("stuck", stuck)
    task = asyncio.ensure_future(node.query(node.node_id, "stuck"))
    await stuck.called.wait()
    task.cancel()
    async with asyncio.timeout(2):
        await stuck.cancelled.wait()
