"""What a user cannot have meant is said at once, in words that say what to do."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import (
    AnswerLimits,
    FastFail,
    Friends,
    HandlerFailed,
    Identity,
    InvalidConfig,
    LocalProtocolError,
    LookupChain,
    LookupFailed,
    MemoryLookup,
    Node,
    NodeClosed,
    NodeConfig,
    NodeId,
    RelayLimits,
    WrongLoop,
)
from egtp.engine.asking import KINDS_KEPT
from lookup_dht import DHTLookup
from lookup_dht.settings import DHTLimits
from tests.node.at_hand import Held, Start, echo, engine_of


@pytest.mark.parametrize("identity", [None, "identity.pem", b"key"])
def test_an_identity_is_no_file_name(identity: Any) -> None:
    with pytest.raises(InvalidConfig, match="identity must be an Identity or an open IdentityFile"):
        Node(identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lookup": "127.0.0.1:9100"}, "lookup must be a lookup service"),
        (
            {"lookup": LookupChain(), "config": NodeConfig(lookup_timeout_s=5)},
            "publish_timeout_s of a LookupChain must be at most 4,",
        ),
        ({"lookup": Friends([])}, "pass Friends as friends="),
        ({"friends": 5}, "friends must be a Friends"),
        ({"discovery": "relays.toml"}, "discovery must be a discovery service"),
        ({"relay_server": "yes"}, "relay_server must be True, False or RelayLimits"),
        ({"listen": 5}, "addresses must be strings"),
        ({"listen": [("127.0.0.1", 4000)]}, "addresses must be strings"),
        ({"announce": "0.0.0.0:4000"}, "nobody can dial 0.0.0.0:4000"),
        ({"announce": "192.0.2.7:0"}, "nobody can dial 192.0.2.7:0"),
        ({"lookup": MemoryLookup}, r"not the class: write MemoryLookup\(\)"),
        ({"config": {}}, "config must be a NodeConfig"),
        ({"config": {"private_addresses": True}}, "config must be a NodeConfig"),
        ({"environment": 5}, "environment must be an Environment"),
        ({"observer": 5}, "observer must be a function"),
        ({"observer": echo}, "observer must be a plain function"),
        ({"dial_from": 5}, "dial_from must be an IP address"),
        ({"dial_from": "127.0.0.1:4000"}, "dial_from must be an IP address"),
    ],
)
def test_a_part_of_the_wrong_kind_is_told_when_the_node_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Node(Identity.generate(os.urandom), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"listen": 5}, "listen must be a string"),
        ({"network": 5}, "a network name must be"),
        ({"server": "no"}, "server must be True, False"),
        ({"limits": {}}, "limits must be DHTLimits"),
        ({"bootstrap": "nowhere"}, "'nowhere'"),
        ({"private_addresses": "false"}, "private_addresses must be True or False, not 'false'"),
    ],
)
def test_a_dht_node_that_cannot_be_meant_is_told_as_well(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        DHTLookup(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"announce": "no"}, "announce must be True or False, not 'no'"),
        ({"strangers_max": 1.5}, "strangers_max must be a whole number of at least 0, not 1.5"),
        ({"timeout_s": "x"}, "timeout_s must be a number of seconds above 0"),
    ],
)
def test_friends_that_cannot_be_meant_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Friends(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_once_max": 1.5}, "at_once_max must be a whole number of at least 1"),
        ({"at_once_max": 0}, "at_once_max must be a whole number of at least 1"),
        ({"idempotent": "no"}, "idempotent must be True or False"),
        ({"early": None}, "early must be True or False"),
    ],
)
async def test_options_of_a_handler_that_cannot_be_meant_are_told(
    start: Start, options: dict[str, Any], message: str
) -> None:
    node = await start()
    with pytest.raises(InvalidConfig, match=message):
        node.handle("echo", echo, **options)
    node.handle("echo", echo)


def test_a_text_is_no_introduction() -> None:
    introductions: Any = ["egtp:" + "a" * 32]
    with pytest.raises(InvalidConfig, match="introductions must be a list of Introduction"):
        StaticDiscovery(introductions)


def test_one_node_to_join_through_need_not_be_in_a_list() -> None:
    DHTLookup(bootstrap="127.0.0.1:9100", private_addresses=True)


@pytest.mark.parametrize("kind", [AnswerLimits, RelayLimits, DHTLimits])
@pytest.mark.parametrize("value", ["5", -5, 1.5, math.nan, None, True])
def test_a_limit_that_cannot_work_is_told_when_it_is_given(kind: Any, value: Any) -> None:
    (name, *_) = (one.name for one in fields(kind) if one.type == "int")
    with pytest.raises(InvalidConfig, match=name):
        kind(**{name: value})


def test_a_limit_may_be_zero_where_that_is_meant() -> None:
    assert RelayLimits(mailbox_packets_max=0).mailbox_packets_max == 0
    assert DHTLimits(witnesses=0).witnesses == 0
    for kind, name in ((RelayLimits, "leases_max"), (DHTLimits, "replication")):
        with pytest.raises(InvalidConfig, match=name):
            kind(**{name: 0})


@pytest.mark.parametrize("value", [None, 5, "a" * 20, "a" * 32, b"short", [1]])
async def test_what_is_no_peer_id_is_told_by_whoever_is_given_it(start: Start, value: Any) -> None:
    node: Any = await start()
    told = pytest.raises(LocalProtocolError, match="a nodeId must be 20 bytes")
    with told:
        node.why(value)
    with told:
        await node.query(value, "kind")
    with told:
        await node.send(value, "kind")
    with told:
        await node.disconnect(value)
    with told:
        Friends(value if isinstance(value, list) else [value])


@pytest.mark.parametrize("contact", [None, 5, b"egtp:", NodeId(bytes(20))])
async def test_what_is_no_contact_is_told(start: Start, contact: Any) -> None:
    node: Any = await start()
    with pytest.raises(LocalProtocolError, match="a contact must be a record or a contact link"):
        node.add_contact(contact)


async def test_a_node_may_be_told_its_own_contact(start: Start) -> None:
    """As everybody is who is given the list of all."""
    node = await start()
    assert node.add_contact(node.link) == node.node_id
    assert node.add_contact(node.record) == node.node_id
    assert node.counters["this identity runs elsewhere"] == 0


def test_a_decorator_without_its_parentheses_is_told() -> None:
    node: Any = Node(Identity.generate(os.urandom))
    with pytest.raises(LocalProtocolError, match="a kind must be"):
        node.handler(echo)
    with pytest.raises(LocalProtocolError, match="the handler of 'echo' must be a function"):
        node.handle("echo", b"hello")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("idempotent", 1, "idempotent must be True or False, not 1"),
        ("idempotent", None, "idempotent must be True or False, not None"),
        ("early", 0, "early must be True, False or None, not 0"),
        ("early", "no", "early must be True, False or None, not 'no'"),
    ],
)
async def test_a_promise_about_a_query_that_is_neither_yes_nor_no_is_told(
    start: Start, option: str, value: object, message: str
) -> None:
    node: Any = await start()
    with pytest.raises(LocalProtocolError, match=message):
        await node.query(node.node_id, "echo", **{option: value})
    with pytest.raises(LocalProtocolError, match=message):
        node.open_query(node.node_id, "echo", **{option: value})


async def test_a_notice_that_would_never_be_heard_is_told(start: Start) -> None:
    node: Any = await start()

    async def awaited() -> None: ...

    for options, message in (
        ({"on_soft_timeout": print}, "soft_timeout_s"),
        ({"on_soft_timeout": awaited, "soft_timeout_s": 1}, "called, not awaited"),
    ):
        with pytest.raises(LocalProtocolError, match=message):
            await node.query(node.node_id, "echo", **options)
        with pytest.raises(LocalProtocolError, match=message):
            node.open_query(node.node_id, "echo", **options)


async def test_what_a_node_has_counted_can_be_read_after_its_end(start: Start) -> None:
    node, other = await start(), await start(listen=())
    with pytest.raises(HandlerFailed, match="code 1, no such kind") as failed:
        await other.query(node.node_id, "nothing")
    assert not failed.value.may_have_run
    record = node.record
    await node.close()
    assert node.counters["no such kind"] == 1
    assert node.statistics()["counters"]["no such kind"] == 1
    assert node.record is record
    assert node.why(other.node_id).paths == ()


@pytest.mark.parametrize(("code", "may_have_run"), [(1, False), (3, False), (2, True), (70, True)])
def test_an_answer_tells_whether_the_query_may_have_run(code: int, may_have_run: bool) -> None:
    assert HandlerFailed(code).may_have_run is may_have_run


async def test_an_observer_that_raises_disturbs_nobody_and_is_told(
    start: Start, problems: list[dict[str, Any]]
) -> None:
    def observe(event: object) -> None:
        raise ValueError(event)

    node, other = await start(), await start(listen=(), observer=observe)
    node.handle("echo", echo)
    assert await other.query(node.node_id, "echo", b"x") == b"x"
    assert other.connected == (node.node_id,)
    # Once, though a path was dialled and opened, since it always fails in the same place.
    assert [problem["message"] for problem in problems] == ["an observer raised an exception"]
    problems.clear()


# By whoever asks


@pytest.mark.parametrize("kind", ["", "A", "with space", "egtp.relay", "x" * 65, "ä", None, 5, []])
async def test_a_wrong_kind_is_refused_with_a_reason(greeter: Node, kind: Any) -> None:
    for call in (greeter.query, greeter.send):
        with pytest.raises(LocalProtocolError):
            await call(greeter.node_id, kind)
    with pytest.raises(LocalProtocolError):
        greeter.handle(kind, Held())


async def test_a_node_that_is_closed_takes_no_handler_any_more(start: Start) -> None:
    node = await start()
    await node.close()
    with pytest.raises(NodeClosed):
        node.handle("late", Held())


async def test_a_kind_has_one_handler(greeter: Node) -> None:
    with pytest.raises(
        LocalProtocolError, match=r"already has a handler: call remove_handler\(\) first"
    ):
        greeter.handle("greet", Held())


@pytest.mark.parametrize("body", ["text", bytearray(b"x"), memoryview(b"x"), None, 5])
async def test_a_body_that_is_no_bytes_is_refused(greeter: Node, body: Any) -> None:
    for call in (greeter.query, greeter.send):
        with pytest.raises(LocalProtocolError):
            await call(greeter.node_id, "greet", body)
    assert len(engine_of(greeter).exchanges) == 0


@pytest.mark.parametrize(
    ("hard_s", "soft_s"),
    [
        (0, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (2**32, None),
        pytest.param(10**400, None, id="10**400-None"),
        (1, 1),
        (1, 2),
        (1, 0),
        (1, -1),
        (1, float("nan")),
        ("1", None),
        (1, "1"),
    ],
)
async def test_a_wrong_timeout_is_refused(greeter: Node, hard_s: Any, soft_s: Any) -> None:
    with pytest.raises(LocalProtocolError):
        await greeter.query(greeter.node_id, "greet", hard_timeout_s=hard_s, soft_timeout_s=soft_s)
    assert len(engine_of(greeter).exchanges) == 0


@pytest.mark.parametrize("peer_id", [b"", bytes(19), bytes(21)])
async def test_a_peer_id_of_a_wrong_size_is_refused(greeter: Node, peer_id: Any) -> None:
    with pytest.raises(LocalProtocolError):
        await greeter.query(peer_id, "greet")


async def test_another_thread_and_another_loop_are_refused(greeter: Node) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        for call in (
            lambda: asyncio.run(greeter.query(greeter.node_id, "greet")),
            lambda: asyncio.run(greeter.send(greeter.node_id, "greet")),
            lambda: asyncio.run(greeter.close()),
            lambda: asyncio.run(greeter.published()),
            lambda: greeter.open_query(greeter.node_id, "greet"),
            lambda: greeter.record,
            lambda: greeter.why(greeter.node_id),
            lambda: greeter.add_contact(greeter.link),
            lambda: greeter.handle("elsewhere", Held()),
            lambda: greeter.remove_handler("greet"),
        ):
            try:
                call()
            except BaseException as error:
                caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert [type(error) for error in caught] == [WrongLoop] * 10
    assert await greeter.query(greeter.node_id, "greet") == b"hello "


async def test_a_query_from_another_thread_goes_through_the_loop_of_the_node(
    greeter: Node,
) -> None:
    loop = asyncio.get_running_loop()

    def elsewhere() -> bytes:
        query = greeter.query(greeter.node_id, "greet", b"thread")
        return asyncio.run_coroutine_threadsafe(query, loop).result(5)

    assert await asyncio.to_thread(elsewhere) == b"hello thread"


def test_a_node_whose_loop_does_not_run_is_not_to_be_asked_through_that_loop(
    identity: Callable[[], Identity],
) -> None:
    """As after the first of two asyncio.run(), or in pytest with fixtures of another loop."""
    with asyncio.Runner() as runner:
        node = Node(identity())
        runner.run(node.start())
        for call in (
            lambda: asyncio.run(node.query(node.node_id, "greet")),
            lambda: node.connected,
        ):
            with pytest.raises(WrongLoop, match=r"in one asyncio\.run\(\), or use egtp\.blocking"):
                call()
        runner.run(node.close())


async def test_an_address_in_use_is_refused_and_leaves_nothing(
    start: Start, greeter: Node, identity: Callable[[], Identity]
) -> None:
    node = Node(identity(), listen=greeter.listening)
    with pytest.raises(ValueError, match="cannot listen on"):
        await node.start()


async def test_lookup_failed_is_not_raised_by_a_query(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start()
    try:
        await node.query(identity().node_id, "x")
    except LookupFailed:
        pytest.fail("a lookup failure is an attempt, not an outcome")
    except FastFail:
        pass


async def test_a_program_that_asks_for_ever_new_kinds_fills_no_memory(start: Start) -> None:
    node = await start()
    for number in range(KINDS_KEPT + 10):
        with pytest.raises(HandlerFailed):
            await node.query(node.node_id, f"kind{number}")
    assert len(engine_of(node).asking._kinds_asked) == KINDS_KEPT
