"""egtp.blocking: the same outcomes without an event loop, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import egtp
from egtp import (
    FastFail,
    FastFailReason,
    HandlerFailed,
    HardTimeout,
    Identity,
    Incoming,
    InvalidConfig,
    LocalProtocolError,
    MemoryLookup,
    NodeClosed,
    NodeConfig,
    PublishFailed,
    ReplyCode,
    WrongLoop,
)
from egtp.blocking import Node
from lookup_dht import DHTLookup
from lookup_dht.records.record_file import RecordFile

LIMIT_S = 5.0
"""How long anything may take here. Nothing comes near it."""

Make = Callable[..., Node]


def greet(query: Incoming) -> bytes:
    return b"hello " + query.body


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Neither a thread nor what the garbage collector would complain about."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    assert set(threading.enumerate()) <= before


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a node on loopback that is closed after the test; all share a lookup service."""
    lookup, nodes = MemoryLookup(), []

    def one(**options: Any) -> Node:
        settings: dict[str, Any] = {
            "lookup": lookup,
            "config": NodeConfig(private_addresses=True, hard_timeout_s=LIMIT_S),
        }
        node = Node(Identity.generate(os.urandom), **(settings | options))
        nodes.append(node)
        return node

    yield one
    for node in reversed(nodes):
        node.close()


@pytest.fixture
def start(make: Make) -> Make:
    def started(**options: Any) -> Node:
        node = make(**({"listen": "127.0.0.1:0"} | options))
        node.start()
        node.published()
        return node

    return started


@pytest.fixture
def greeter(start: Make) -> Node:
    node = start()
    node.handle("greet", greet)
    return node


@pytest.fixture
def asker(make: Make) -> Node:
    node = make()
    node.start()
    return node


class Stuck:
    """A plain handler that waits to be let go."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.go = threading.Event()
        self.calls = 0

    def __call__(self, query: Incoming) -> bytes:
        self.calls += 1
        self.called.set()
        assert self.go.wait(LIMIT_S)
        return b"stuck no more"


def open_queries(node: Node, peer: Node) -> int:
    return node.why(peer.node_id).open_queries


# Talking


def test_a_query_gets_its_reply_and_with_closes(make: Make, greeter: Node) -> None:
    with make() as node:
        assert node.query(greeter.node_id, "greet", b"world", hard_timeout_s=5) == b"hello world"
        assert node.why(greeter.node_id).paths
    with pytest.raises(NodeClosed, match="closed"):
        node.query(greeter.node_id, "greet")


def test_all_that_the_node_tells_of_itself_is_told_here_too(start: Make) -> None:
    node, other = start(), start()
    assert node.listening == tuple(str(way.address) for way in node.record.tcp)
    assert node.node_id == node.identity.node_id == node.record.peer_id
    assert (node.relays, len(node.own_addresses)) == ((), 1)
    assert other.add_contact(node.link) == node.node_id
    assert other.connected == ()
    node.listen("127.0.0.1:0")
    node.throttle(send_bytes_per_s=1e6)
    node.throttle()
    counters = node.counters
    counters["mine"] += 1
    assert "mine" not in node.counters
    assert node.statistics()["peer_id"] == str(node.node_id)
    assert node.published().stored == 1


def test_a_friend_made_while_the_node_runs_is_told_its_record(start: Make) -> None:
    friend, node = start(friends=egtp.Friends()), start(friends=egtp.Friends())
    assert node.published().stored == 1
    node.change_friends(tell=[friend.node_id])
    assert node.published(timeout_s=LIMIT_S).stored == 2


def test_a_send_arrives(greeter: Node, asker: Node) -> None:
    told, arrived = [], threading.Event()

    @greeter.handler("tell")
    def tell(query: Incoming) -> None:
        told.append((query.peer_id, query.body, query.wants_reply))
        arrived.set()

    asker.send(greeter.node_id, "tell", b"news")
    assert arrived.wait(LIMIT_S)
    assert told == [(asker.node_id, b"news", False)]


def test_r6_a_hedge_replaces_a_slow_peer_and_the_soft_timeout_is_called(
    start: Make, greeter: Node, asker: Node
) -> None:
    slow, stuck, soft = start(), Stuck(), threading.Event()
    slow.handle("greet", stuck)
    with pytest.raises(HardTimeout):
        asker.query(
            slow.node_id,
            "greet",
            hard_timeout_s=0.2,
            soft_timeout_s=0.1,
            on_soft_timeout=soft.set,
        )
    assert soft.is_set()
    reply = asker.hedge([slow.node_id, greeter.node_id], "greet", b"x", soft_timeout_s=0.1)
    assert reply == (b"hello x", greeter.node_id)
    assert open_queries(asker, slow) == 0
    stuck.go.set()


def test_20_threads_ask_100_queries_each_gets_its_own_replies(greeter: Node, asker: Node) -> None:
    def ask(thread: int) -> list[bytes]:
        return [
            asker.query(greeter.node_id, "greet", b"%d %d" % (thread, number))
            for number in range(5)
        ]

    with ThreadPoolExecutor(20) as threads:
        replies = list(threads.map(ask, range(20)))
    assert replies == [[b"hello %d %d" % (t, n) for n in range(5)] for t in range(20)]


def test_what_has_no_method_is_run_on_the_loop(greeter: Node, asker: Node) -> None:
    async def ask_all_at_once(node: egtp.Node) -> list[bytes]:
        bodies = [b"1", b"2", b"3"]
        queries = [node.query(greeter.node_id, "greet", body) for body in bodies]
        return await asyncio.gather(*queries)

    assert asker.run(ask_all_at_once) == [b"hello 1", b"hello 2", b"hello 3"]
    assert asker.call(lambda node: node.node_id) == asker.node_id


def test_few_methods_are_left_to_be_run_on_the_loop() -> None:
    there, here = (
        {name for name in vars(kind) if not name.startswith("_")} for kind in (egtp.Node, Node)
    )
    assert there - here == {"open_query", "move", "throttle_peer", "relay_server", "elapsed_s"}


def test_what_is_to_be_called_and_what_is_to_be_run_are_told_apart(asker: Node) -> None:
    with pytest.raises(LocalProtocolError, match=r"async: use run\(\)"):
        asker.call(lambda node: node.published())  # type: ignore[unused-coroutine]
    with pytest.raises(LocalProtocolError, match=r"not async: use call\(\)"):
        asker.run(lambda node: node.node_id)  # type: ignore[arg-type, return-value]


def test_a_handler_without_the_parentheses_of_its_decorator_is_told(asker: Node) -> None:
    with pytest.raises(LocalProtocolError, match="a kind must be"):
        asker.handler(lambda _: b"")  # type: ignore[arg-type]


def test_an_async_function_that_takes_too_long_is_cancelled(asker: Node) -> None:
    cancelled = threading.Event()

    async def wait(node: egtp.Node) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        asker.run(wait, timeout_s=0.1)
    assert cancelled.wait(LIMIT_S)


# Errors


def test_the_outcomes_are_the_same_typed_errors(greeter: Node, asker: Node) -> None:
    with pytest.raises(HandlerFailed) as failed:
        asker.query(greeter.node_id, "unknown")
    assert failed.value.code == ReplyCode.NO_SUCH_KIND
    with pytest.raises(FastFail) as fast:
        asker.query(Identity.generate(os.urandom).node_id, "greet")
    assert fast.value.attempts[0].reason == "no record found"
    with pytest.raises(LocalProtocolError):
        asker.query(greeter.node_id, "NOT A KIND")
    with pytest.raises(LocalProtocolError):
        greeter.handle("greet", greet)


def test_a_traceback_shows_the_call_and_where_it_went_wrong(asker: Node) -> None:
    with pytest.raises(FastFail) as failed:
        asker.query(Identity.generate(os.urandom).node_id, "greet")
    frames = traceback.extract_tb(failed.value.__traceback__)
    files = [Path(frame.filename).name for frame in frames]
    assert files[0] == "test_blocking.py"
    assert "node.py" in files[files.index("blocking.py") :]


def test_settings_that_cannot_work_are_told_where_the_node_is_made(make: Make) -> None:
    for options in (
        {"listen": "nowhere"},
        {"services": egtp.MemoryLookup()},
        {"services": [egtp.MemoryLookup()]},
        {"handler_threads": 0},
        {"handler_threads": float("nan")},
        {"handlers_waiting_max": -1},
        {"close_timeout_s": None},
        {"close_timeout_s": "x"},
        {"close_timeout_s": -1},
        {"close_timeout_s": float("nan")},
    ):
        (name,) = options
        with pytest.raises(InvalidConfig, match="nowhere" if name == "listen" else name):
            make(**options)


def test_what_became_of_it_can_be_read_after_its_end(start: Make, asker: Node) -> None:
    node = start()
    with pytest.raises(HandlerFailed):
        asker.query(node.node_id, "no-such-kind")
    record = node.record
    node.close()
    assert node.counters["no such kind"] == 1
    assert node.statistics()["counters"]["no such kind"] == 1
    assert node.record == record
    assert node.why(asker.node_id).peer_id == asker.node_id


def test_a_start_that_fails_says_why_and_leaves_nothing(make: Make, greeter: Node) -> None:
    (taken,) = greeter.listening
    node = make(listen=taken)
    with pytest.raises(InvalidConfig, match="cannot listen"):
        node.start()
    with pytest.raises(NodeClosed):
        node.query(greeter.node_id, "greet")
    with pytest.raises(LocalProtocolError, match="create a new one"):
        node.start()


def test_a_node_whose_start_failed_is_not_kept_for_the_end_of_the_process(greeter: Node) -> None:
    def fails() -> weakref.ref[Node]:
        node = Node(Identity.generate(os.urandom), listen=greeter.listening)
        with pytest.raises(InvalidConfig):
            node.start()
        return weakref.ref(node)

    node = fails()
    gc.collect()
    assert node() is None


def test_a_node_that_runs_is_closed_at_the_end_of_the_process_though_started_again(
    greeter: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_alone: list[object] = []
    monkeypatch.setattr("atexit.unregister", left_alone.append)
    with pytest.raises(LocalProtocolError, match="create a new one"):
        greeter.start()
    assert left_alone == []


def test_of_two_threads_that_start_a_node_one_does_and_the_other_is_told(
    make: Make, greeter: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    start = threading.Thread.start
    outcomes: list[str] = []

    def also_start() -> None:
        with pytest.raises(LocalProtocolError, match="already started"):
            node.start()
        outcomes.append(f"told, and a query is answered {node.query(greeter.node_id, 'greet')!r}")

    second = threading.Thread(target=also_start)

    def in_the_moment_of_the_start(thread: threading.Thread) -> None:
        monkeypatch.undo()
        second.start()
        second.join(0.2)  # the second one waits for the first, which waits here
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", in_the_moment_of_the_start)
    node.start()
    second.join()
    assert outcomes == ["told, and a query is answered b'hello '"]


def test_a_node_that_is_closed_while_it_starts_does_not_start(make: Make) -> None:
    begun, left = threading.Event(), threading.Event()

    @contextlib.asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        begun.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            left.set()

    node = make(services=[slow()])

    def close() -> None:
        assert begun.wait(LIMIT_S)
        node.close()

    with ThreadPoolExecutor() as threads:
        closed = threads.submit(close)
        with pytest.raises(NodeClosed, match="closed before it had started"):
            node.start()
        closed.result()
    assert left.is_set()


def test_before_the_start_a_call_says_what_to_do(make: Make) -> None:
    node = make()
    with pytest.raises(NodeClosed, match="with node"):
        node.query(node.node_id, "greet")


def test_published_raises_as_in_asyncio(make: Make) -> None:
    with make(lookup=None) as node, pytest.raises(PublishFailed):
        node.published()


# Handlers


def test_a_handler_given_before_the_start_answers(make: Make, asker: Node) -> None:
    node = make(listen="127.0.0.1:0")
    node.handle("greet", greet)
    with node:
        node.published()
        assert asker.query(node.node_id, "greet", b"x") == b"hello x"


def test_a_handler_is_removed_before_the_start_while_it_runs_and_after_the_end(
    make: Make, asker: Node
) -> None:
    node = make(listen="127.0.0.1:0")
    node.handle("greet", lambda _: b"too early")
    node.remove_handler("greet")
    node.handle("greet", lambda _: b"old")
    node.start()
    node.published()
    assert asker.query(node.node_id, "greet") == b"old"
    node.remove_handler("greet")
    with pytest.raises(HandlerFailed) as caught:
        asker.query(node.node_id, "greet")
    assert not caught.value.may_have_run
    node.handle("greet", lambda _: b"new")
    assert asker.query(node.node_id, "greet") == b"new"
    node.close()
    node.remove_handler("greet")
    with pytest.raises(LocalProtocolError, match="has no handler"):
        node.remove_handler("greet")


def test_a_plain_handler_has_a_thread_of_its_own_and_may_ask_back(
    greeter: Node, asker: Node
) -> None:
    @asker.handler("name")
    def name(query: Incoming) -> bytes:
        return b"the asker"

    @greeter.handler("who")
    def who(query: Incoming) -> bytes:
        return (
            greeter.query(query.peer_id, "name") + b" " + threading.current_thread().name.encode()
        )

    reply = asker.query(greeter.node_id, "who").decode()
    assert reply == f"the asker egtp {greeter.node_id} handler 1"


def test_no_handler_sees_the_context_variables_of_another(make: Make, asker: Node) -> None:
    number = contextvars.ContextVar("number", default=b"0")

    def plain(_: Incoming) -> bytes:
        seen = number.get()
        number.set(b"1")
        return seen

    async def on_loop(query: Incoming) -> bytes:
        return plain(query)

    with make(listen="127.0.0.1:0", handler_threads=1) as node:
        node.handle("plain", plain)
        node.handle("on_loop", on_loop)
        peer_id = asker.add_contact(node.link)
        for kind in ("plain", "on_loop"):
            assert [asker.query(peer_id, kind) for _ in range(3)] == [b"0"] * 3


def test_an_async_handler_runs_on_the_loop(greeter: Node, asker: Node) -> None:
    class Hello:
        async def __call__(self, query: Incoming) -> bytes:
            return b"hello " + threading.current_thread().name.encode()

    @greeter.handler("function")
    async def function(query: Incoming) -> bytes:
        return await Hello()(query)

    @greeter.handler("coroutine")
    def coroutine(query: Incoming) -> Any:
        return function(query)

    greeter.handle("object", Hello())
    on_loop = b"hello egtp " + str(greeter.node_id).encode()
    for kind in ("function", "object", "coroutine"):
        assert asker.query(greeter.node_id, kind) == on_loop


def test_a_plain_handler_answers_with_a_code_of_its_own(greeter: Node, asker: Node) -> None:
    @greeter.handler("fail")
    def fail(query: Incoming) -> bytes:
        raise HandlerFailed(77, b"details")

    with pytest.raises(HandlerFailed) as failed:
        asker.query(greeter.node_id, "fail")
    assert (failed.value.code, failed.value.body) == (77, b"details")


@pytest.mark.parametrize("error", [RuntimeError("bug"), SystemExit(3), StopIteration()])
def test_a_plain_handler_that_raises_is_a_handler_error_and_its_thread_goes_on(
    start: Make, asker: Node, error: BaseException
) -> None:
    node = start(handler_threads=1)
    told: list[dict[str, Any]] = []
    node.call(
        lambda _: asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context)
        )
    )

    @node.handler("fail")
    def fail(query: Incoming) -> bytes:
        raise error

    node.handle("greet", greet)
    with pytest.raises(HandlerFailed) as failed:
        asker.query(node.node_id, "fail")
    assert failed.value.code == ReplyCode.HANDLER_ERROR
    assert "the handler of kind 'fail' raised an exception" in told[0]["message"]
    assert asker.query(node.node_id, "greet") == b"hello "


def test_more_plain_handlers_than_may_run_or_wait_are_answered_busy(
    start: Make, asker: Node
) -> None:
    node, stuck = start(handler_threads=2, handlers_waiting_max=1), Stuck()
    node.handle("stuck", stuck)
    with ThreadPoolExecutor(3) as threads:
        accepted = [threads.submit(asker.query, node.node_id, "stuck") for _ in range(3)]
        while open_queries(asker, node) < 3 or stuck.calls < 2:
            time.sleep(0.005)
        with pytest.raises(HandlerFailed) as failed:
            asker.query(node.node_id, "stuck")
        assert failed.value.code == ReplyCode.BUSY
        assert node.counters["busy: all handler threads are taken"] == 1
        assert stuck.calls == 2
        stuck.go.set()
        assert [reply.result() for reply in accepted] == [b"stuck no more"] * 3


@pytest.mark.parametrize("there_are", [0, 1])
def test_when_no_thread_can_be_started_no_place_is_lost(
    start: Make, asker: Node, monkeypatch: pytest.MonkeyPatch, there_are: int
) -> None:
    node = start(handler_threads=2, handlers_waiting_max=1)
    node.call(lambda _: asyncio.get_running_loop().set_exception_handler(lambda *_: None))
    node.handle("greet", greet)
    for _ in range(there_are):
        asker.query(node.node_id, "greet")

    def cannot_start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", cannot_start)
        for _ in range(5):
            if there_are:
                assert asker.query(node.node_id, "greet") == b"hello "
                continue
            with pytest.raises(HandlerFailed) as failed:
                asker.query(node.node_id, "greet")
            assert failed.value.code == ReplyCode.HANDLER_ERROR
    assert asker.query(node.node_id, "greet") == b"hello "


def test_a_plain_handler_whose_asker_gave_up_before_its_turn_does_not_run(
    start: Make, asker: Node
) -> None:
    node, stuck, turns = start(handler_threads=1), Stuck(), []
    node.handle("stuck", stuck)
    node.handle("turn", lambda query: turns.append(query.body))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(asker.query, node.node_id, "stuck")
        assert stuck.called.wait(LIMIT_S)
        with pytest.raises(HardTimeout):
            asker.query(node.node_id, "turn", b"in vain", hard_timeout_s=0.1)
        # The asker says so, and the node sees it by itself; whichever is first.
        reasons = "cancelled by the asker", "handler cancelled: its query is past its lifetime"
        while not any(node.counters[reason] for reason in reasons):
            time.sleep(0.005)
        stuck.go.set()
        first.result()
    asker.query(node.node_id, "turn", b"in time")
    assert turns == [b"in time"]


# The end


def test_closing_ends_calls_of_other_threads(start: Make, asker: Node) -> None:
    node, stuck = start(), Stuck()
    node.handle("stuck", stuck)

    has_begun = threading.Event()

    async def forever(_: egtp.Node) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(2) as threads:
        query = threads.submit(asker.query, node.node_id, "stuck")
        other = threads.submit(asker.run, forever)
        assert stuck.called.wait(LIMIT_S)
        assert has_begun.wait(LIMIT_S)
        asker.close()
        for call in (query, other):
            error = call.exception(LIMIT_S)
            assert isinstance(error, NodeClosed)
            assert error.may_have_run
    stuck.go.set()
    asker.close()


def test_a_handler_that_never_returns_is_told_of_and_keeps_nobody(make: Make, asker: Node) -> None:
    node, stuck = make(listen="127.0.0.1:0", close_timeout_s=0.1), Stuck()
    node.handle("stuck", stuck)
    node.start()
    node.published()
    with ThreadPoolExecutor(1) as threads:
        query = threads.submit(asker.query, node.node_id, "stuck", hard_timeout_s=1)
        assert stuck.called.wait(LIMIT_S)
        with pytest.warns(ResourceWarning, match="^1 handler still runs after .* was closed"):
            node.close()
        stuck.go.set()
        assert isinstance(query.exception(), egtp.EgtpError)


def test_services_are_entered_before_the_node_and_left_after_it(make: Make) -> None:
    story = []

    class Service:
        def __init__(self, name: str) -> None:
            self.name = name

        async def __aenter__(self) -> None:
            story.append(f"enter {self.name} {threading.current_thread().name[:4]}")

        async def __aexit__(self, *error: object) -> None:
            closed = node.on_loop._engine is not None and node.on_loop._engine.is_closed
            story.append(f"leave {self.name}, node closed: {closed}")

    node = make(services=[Service("a"), Service("b")])
    with node:
        story.append("here")
    assert story == [
        "enter a egtp",
        "enter b egtp",
        "here",
        "leave b, node closed: True",
        "leave a, node closed: True",
    ]


def test_a_service_keeps_its_records_in_a_file_that_it_opened_in_another_thread(
    make: Make, tmp_path: Path
) -> None:
    path, counters = tmp_path / "records", Counter[str]()
    lookup = DHTLookup("127.0.0.1:0", private_addresses=True, store=path)
    with make(listen="127.0.0.1:0", lookup=lookup, services=[lookup]) as node:
        node.published()
    assert lookup.counters["record_file_failed"] == 0
    file = RecordFile(path, counters)  # It has one user at a time: the service has let it go.
    assert [peer_id for peer_id, *_ in file.records()] == [bytes(node.node_id)]
    file.close()


def test_what_goes_wrong_at_the_end_is_raised_once(make: Make) -> None:
    class Service:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            raise RuntimeError("cannot end")

    node = make(services=[Service()])
    node.handle("echo", lambda query: query.body)
    node.start()
    assert node.query(node.node_id, "echo", b"x") == b"x"
    with pytest.raises(RuntimeError, match="cannot end"):
        node.close()
    assert not [one for one in threading.enumerate() if str(node.node_id) in one.name]
    node.close()


# The wrong place


def test_r15_a_call_on_its_own_loop_raises_instead_of_waiting_for_itself(
    greeter: Node, asker: Node
) -> None:
    told: list[str] = []

    @greeter.handler("clumsy")
    async def clumsy(query: Incoming) -> bytes:
        for call in (lambda: greeter.query(query.peer_id, "x"), greeter.close):
            with pytest.raises(WrongLoop) as wrong:
                call()
            told.append(str(wrong.value))
        return b""

    asker.query(greeter.node_id, "clumsy")
    assert len(told) == 2
    assert all("on_loop" in text for text in told)


def test_a_node_that_is_drained_answers_what_its_handlers_have_begun(
    greeter: Node, asker: Node
) -> None:
    begun, end = threading.Event(), threading.Event()

    @greeter.handler("wait")
    def wait(_: Incoming) -> bytes:
        begun.set()
        end.wait(LIMIT_S)
        return b"done"

    def refuses_all() -> bool:
        try:
            asker.query(greeter.node_id, "dance")
        except HandlerFailed as error:
            return error.code == ReplyCode.BUSY
        except FastFail as error:
            return error.reason is FastFailReason.AWAY
        return False

    with ThreadPoolExecutor() as threads:
        reply = threads.submit(asker.query, greeter.node_id, "wait")
        assert begun.wait(LIMIT_S)
        closing = threads.submit(greeter.close, drain_s=LIMIT_S)
        while not refuses_all():
            pass
        end.set()
        assert reply.result() == b"done"
        closing.result()
    greeter.close(drain_s=1)
    with pytest.raises(InvalidConfig, match="drain_s"):
        greeter.close(drain_s=-1)


def test_r15_a_handler_that_closes_its_node_raises_instead_of_waiting_for_itself(
    greeter: Node, asker: Node
) -> None:
    @greeter.handler("close")
    def close(query: Incoming) -> bytes:
        with pytest.raises(WrongLoop, match="would wait for the handler"):
            greeter.close()
        return b"still here"

    assert asker.query(greeter.node_id, "close") == b"still here"


def test_an_interrupt_in_the_moment_in_which_a_call_is_handed_over_ends_the_call(
    start: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.new_event_loop()
    node = start(loop_factory=lambda: loop)
    hand_over = loop.call_soon_threadsafe
    begun, ended = threading.Event(), threading.Event()

    def interrupted(*call: Any) -> None:
        monkeypatch.undo()
        hand_over(*call)
        assert begun.wait(LIMIT_S)
        raise KeyboardInterrupt

    async def without_end(_: egtp.Node) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        node.run(without_end)
    assert ended.wait(LIMIT_S)
