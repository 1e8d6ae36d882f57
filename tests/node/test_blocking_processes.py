"""egtp.blocking in whole processes: Ctrl-C, forks, and programs that forget to close."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


PREFACE = """
import os, signal, sys, threading, time
import egtp

lookup = egtp.MemoryLookup()
def node(**options):
    config = egtp.NodeConfig(private_addresses=True)
    made = egtp.blocking.Node(
        egtp.Identity.generate(os.urandom), lookup=lookup, config=config, **options
    )
    made.start()
    return made
"""


def printed_by(program: str) -> str:
    """What a program that begins with ``PREFACE`` prints; of errors, nothing."""
    done = run("-c", PREFACE + program)
    assert done.stderr == ""
    return done.stdout


def test_ctrl_c_during_a_query_frees_everything_and_tells_the_peer() -> None:
    program = """
called, cancelled = threading.Event(), threading.Event()
async def stuck(query):
    called.set()
    try:
        await egtp.blocking.asyncio.Event().wait()
    except BaseException:
        cancelled.set()
        raise
peer, asker = node(listen="127.0.0.1:0"), node()
peer.handle("stuck", stuck)
peer.published()
killer = threading.Thread(target=lambda: called.wait() and os.kill(os.getpid(), signal.SIGINT))
killer.start()
try:
    asker.query(peer.node_id, "stuck")
except KeyboardInterrupt:
    assert asker.why(peer.node_id).open_queries == 0
    assert cancelled.wait(5)
    asker.close(), peer.close(), killer.join()
    assert threading.active_count() == 1, threading.enumerate()
    print("free")
"""
    assert printed_by(program) == "free\n"


def test_ctrl_c_during_the_start_leaves_nothing() -> None:
    program = """
class Slow:
    async def __aenter__(self):
        os.kill(os.getpid(), signal.SIGINT)
        await egtp.blocking.asyncio.Event().wait()
    async def __aexit__(self, *error): ...
try:
    node(services=[Slow()])
except KeyboardInterrupt:
    assert threading.active_count() == 1, threading.enumerate()
    print("free")
"""
    assert printed_by(program) == "free\n"


@pytest.mark.parametrize("while_it", ["starts", "asks", "ends"])
def test_ctrl_c_just_before_a_thread_falls_asleep_still_wakes_it(while_it: str) -> None:
    """Then Python has noted the signal, but nothing interrupts the sleep. So it is with
    ``interrupt_main``, too, by which debuggers and IDEs pass on a Ctrl-C."""
    program = f"""
import _thread
slept = False
async def sleep():
    global slept
    threading.Timer(0.2, _thread.interrupt_main).start()
    await egtp.blocking.asyncio.sleep(3)
    slept = True
class Slow:
    async def __aenter__(self):
        if {while_it!r} == "starts":
            await sleep()
    async def __aexit__(self, *error):
        if {while_it!r} == "ends":
            await sleep()
try:
    made = node(services=[Slow()])
    if {while_it!r} == "asks":
        made.run(lambda _: sleep())
    made.close()
except KeyboardInterrupt:
    assert not slept
    if {while_it!r} != "starts":
        made.close()
    assert threading.active_count() == 1, threading.enumerate()
    print("free")
"""
    assert printed_by(program) == "free\n"


def test_ctrl_c_in_whatever_moment_of_the_start_does_not_hold_up_the_thread() -> None:
    """Such as just after the lock of an event or a future was taken, which is then kept. In that of
    Python's own, as a thread is made, nobody can help it."""
    program = """
came = threading.Lock()
def interrupt(frame, what, _):
    if frame.f_code is threading.Condition.__enter__.__code__ and what == "return":
        if frame.f_back.f_back.f_code is not threading.Thread.start.__code__:
            if came.acquire(blocking=False):
                raise KeyboardInterrupt
    return interrupt
class Slow:
    async def __aenter__(self):
        await egtp.blocking.asyncio.sleep(0.2)
        if came.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        await egtp.blocking.asyncio.Event().wait()
    async def __aexit__(self, *error): ...
sys.settrace(interrupt)
try:
    node(services=[Slow()])
except KeyboardInterrupt:
    sys.settrace(None)
    assert threading.active_count() == 1, threading.enumerate()
    print("free")
"""
    assert printed_by(program) == "free\n"


def test_ctrl_c_as_a_node_is_told_to_end_leaves_one_that_can_be_closed() -> None:
    program = """
loop = egtp.blocking.asyncio.new_event_loop()
made = node(loop_factory=lambda: loop)
def interrupted(*call):
    del loop.call_soon_threadsafe
    raise KeyboardInterrupt
loop.call_soon_threadsafe = interrupted
try:
    made.close()
except KeyboardInterrupt:
    made.close()
    assert threading.active_count() == 1, threading.enumerate()
    print("free")
"""
    assert printed_by(program) == "free\n"


def test_a_signal_handler_closes_the_node_in_the_midst_of_a_call() -> None:
    """As a SIGTERM handler does. What it interrupts must hold nothing that the end needs."""
    program = """
loop = egtp.blocking.asyncio.new_event_loop()
peer, asker = node(listen="127.0.0.1:0"), node(loop_factory=lambda: loop)
peer.published()
signal.signal(signal.SIGTERM, lambda *_: asker.close())
hand_over = loop.call_soon_threadsafe
def interrupted(*call):
    del loop.call_soon_threadsafe
    signal.raise_signal(signal.SIGTERM)
    hand_over(*call)
loop.call_soon_threadsafe = interrupted
try:
    asker.query(peer.node_id, "greet")
except egtp.NodeClosed:
    peer.close()
    assert threading.active_count() == 1, threading.enumerate()
    print("closed")
"""
    assert printed_by(program) == "closed\n"


def test_a_signal_handler_asks_in_the_midst_of_a_call() -> None:
    program = """
loop = egtp.blocking.asyncio.new_event_loop()
peer, asker = node(listen="127.0.0.1:0"), node(loop_factory=lambda: loop)
peer.handle("greet", lambda query: b"hello " + query.body)
peer.published()
signal.signal(
    signal.SIGTERM, lambda *_: print(asker.query(peer.node_id, "greet", b"handler").decode())
)
hand_over = loop.call_soon_threadsafe
def interrupted(*call):
    del loop.call_soon_threadsafe
    signal.raise_signal(signal.SIGTERM)
    hand_over(*call)
loop.call_soon_threadsafe = interrupted
print(asker.query(peer.node_id, "greet", b"world").decode())
"""
    assert printed_by(program) == "hello handler\nhello world\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_r15_a_forked_child_is_told_so_at_once_and_can_end() -> None:
    program = """
import warnings; warnings.simplefilter("ignore")
asker = node(listen="127.0.0.1:0")
asker.handle("greet", lambda query: b"hello")
child = os.fork()
if child == 0:
    try:
        asker.query(asker.node_id, "greet")
    except egtp.WrongLoop as error:
        assert "forked" in str(error)
        asker.close()
        sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert asker.query(asker.node_id, "greet") == b"hello"
print("told")
"""
    assert printed_by(program) == "told\n"


def test_a_process_that_forgets_to_close_ends_all_the_same() -> None:
    program = """
peer = node(listen="127.0.0.1:0")
peer.handle("stuck", lambda query: time.sleep(1000))
peer._close_timeout_s = 0.1
asker = node()
peer.published()
asker.send(peer.node_id, "stuck")
print("forgets")
"""
    done = run("-c", PREFACE + program)
    assert (done.returncode, done.stdout) == (0, "forgets\n")


def test_the_example_runs_as_it_stands() -> None:
    done = run("-W", "error", "examples/without_a_loop.py")
    assert done.stderr == ""
    *greetings, failure, cancelled = done.stdout.splitlines()
    assert greetings == ["hello, world", "hello, Alice", "hello, Bob", "hello, Carol"]
    assert cancelled == "given up"
    assert failure.endswith(" answered 'dance' with code 1, no such kind")
