"""The relay file is edited while the program runs (R10, R11): real files, real edits."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from discovery import FILE_BYTES_MAX, DiscoveryMan
from egtp.discovery_service import DiscoveryService, Introduction
from egtp.errors import InvalidConfig, WrongLoop
from egtp.values.contact_link import ContactLink

POLL_INTERVAL_S = 0.01
BROKEN = "[[relay]]\ncontact = 'nobody'\n"


class Listener:
    """Keeps what it is called with; ``next()`` waits for a call that nobody waited for yet."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Introduction]] = []
        self._unseen: asyncio.Queue[Sequence[Introduction]] = asyncio.Queue()

    def __call__(self, introductions: Sequence[Introduction]) -> None:
        self.calls.append(introductions)
        self._unseen.put_nowait(introductions)

    async def next(self) -> Sequence[Introduction]:
        async with asyncio.timeout(5):
            return await self._unseen.get()


class Complaints:
    """The errors of a DiscoveryMan, waited for in the same way."""

    def __init__(self) -> None:
        self.errors: list[InvalidConfig] = []
        self._unseen: asyncio.Queue[InvalidConfig] = asyncio.Queue()

    def __call__(self, error: InvalidConfig) -> None:
        self.errors.append(error)
        self._unseen.put_nowait(error)

    async def next(self) -> InvalidConfig:
        async with asyncio.timeout(5):
            return await self._unseen.get()


class Lists:
    """Four lists of relays: as the text of a file, and as what has to be introduced."""

    def __init__(self, links: list[ContactLink]) -> None:
        self.texts = []
        self.expected = []
        for start in range(0, 8, 2):
            chosen = links[start : start + 2]
            self.texts.append("".join(f'[[relay]]\ncontact = "{link}"\n' for link in chosen))
            self.expected.append(tuple(Introduction(link.peer_id, link.record) for link in chosen))


@pytest.fixture
def lists(links: list[ContactLink]) -> Lists:
    return Lists(links)


@pytest.fixture
def path(tmp_path: Path, lists: Lists) -> Path:
    path = tmp_path / "relays.toml"
    path.write_text(lists.texts[0])
    return path


@pytest.fixture
async def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
async def man(path: Path, complaints: Complaints) -> AsyncIterator[DiscoveryMan]:
    async with DiscoveryMan(
        path, poll_interval_s=POLL_INTERVAL_S, on_error=complaints
    ) as discovery_man:
        yield discovery_man


@pytest.fixture
async def polls_pass(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Awaiting ``polls_pass()`` lets every man with this interval poll at least twice more.

    A second man, who polls as often, is given four edits to find one after the other.
    """
    path = tmp_path / "witness.toml"
    path.write_text(BROKEN.replace("nobody", "0"))
    path.write_text("")
    witness = Complaints()
    edits = iter(range(1000))

    async def pass_polls() -> None:
        for _ in range(4):
            path.write_text(BROKEN.replace("nobody", f"{next(edits)}"))
            await witness.next()

    async with DiscoveryMan(path, poll_interval_s=POLL_INTERVAL_S, on_error=witness):
        yield pass_polls


def replace(path: Path, text: str) -> None:
    """What most editors do: write another file and give it the name."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


async def test_r10_relays_are_introduced_after_the_call_not_inside(
    man: DiscoveryMan, lists: Lists
) -> None:
    service: DiscoveryService = man
    listener = Listener()
    service.meet_relay_servers(listener)
    assert listener.calls == []
    assert await listener.next() == lists.expected[0]
    assert man.introductions == lists.expected[0]


async def test_who_asks_before_the_start_is_called_after_it(path: Path, lists: Lists) -> None:
    man = DiscoveryMan(path)
    listener = Listener()
    man.meet_relay_servers(listener)
    assert man.introductions == ()
    async with man:
        assert listener.calls == []
        assert await listener.next() == lists.expected[0]


@pytest.mark.parametrize("edit", [Path.write_text, replace])
async def test_r11_edits_are_picked_up_while_running(
    man: DiscoveryMan, path: Path, lists: Lists, edit: Callable[[Path, str], object]
) -> None:
    listener = Listener()
    man.meet_relay_servers(listener)
    assert await listener.next() == lists.expected[0]
    for text, expected in zip(lists.texts[1:], lists.expected[1:], strict=True):
        edit(path, text)
        assert await listener.next() == expected
    edit(path, "")
    assert await listener.next() == ()
    assert len(listener.calls) == 5


async def test_an_edit_in_the_instant_of_the_start_is_seen(path: Path, lists: Lists) -> None:
    # The same size, inode and, where time stamps are coarse, the same time.
    listener = Listener()
    status = path.stat()
    async with DiscoveryMan(path, poll_interval_s=POLL_INTERVAL_S) as man:
        path.write_text(lists.texts[1])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        man.meet_relay_servers(listener)
        assert await listener.next() == lists.expected[0]
        assert await listener.next() == lists.expected[1]


async def test_a_file_that_is_still_being_written_is_not_read(path: Path, lists: Lists) -> None:
    errors: list[InvalidConfig] = []
    async with DiscoveryMan(path, poll_interval_s=3600, on_error=errors.append) as man:
        for text in (BROKEN, lists.texts[1]):
            path.write_text(text)
            man._file.poll()
            assert man.introductions == lists.expected[0]
        man._file.poll()
        assert man.introductions == lists.expected[1]
    assert not errors


async def test_two_listeners_are_both_told_and_the_one_who_forgets_no_more(
    man: DiscoveryMan, path: Path, lists: Lists
) -> None:
    one, two = Listener(), Listener()
    man.meet_relay_servers(one)
    man.meet_relay_servers(two)
    for listener in (one, two):
        assert await listener.next() == lists.expected[0]
    path.write_text(lists.texts[1])
    for listener in (one, two):
        assert await listener.next() == lists.expected[1]
    man.forget(one)
    path.write_text(lists.texts[2])
    assert await two.next() == lists.expected[2]
    assert len(one.calls) == 2


async def test_a_broken_edit_keeps_the_last_list_and_is_reported_once(
    man: DiscoveryMan,
    path: Path,
    lists: Lists,
    complaints: Complaints,
    polls_pass: Callable[[], Any],
) -> None:
    listener = Listener()
    man.meet_relay_servers(listener)
    await listener.next()
    path.write_text(BROKEN)
    error = await complaints.next()
    assert str(path) in str(error)
    assert "relay entry 1" in str(error)
    await polls_pass()
    assert len(complaints.errors) == man.counters["edit rejected"] == 1
    assert man.introductions == lists.expected[0]
    assert len(listener.calls) == 1

    path.write_text(BROKEN + "\n")
    await complaints.next()
    assert man.counters == {"edit rejected": 2}

    path.write_text(lists.texts[1])
    assert await listener.next() == lists.expected[1]
    assert len(listener.calls) == 2


async def test_a_file_that_vanishes_keeps_the_last_list_until_it_is_back(
    man: DiscoveryMan,
    path: Path,
    lists: Lists,
    complaints: Complaints,
    polls_pass: Callable[[], Any],
) -> None:
    listener = Listener()
    man.meet_relay_servers(listener)
    await listener.next()
    path.unlink()
    assert "does not exist" in str(await complaints.next())
    await polls_pass()
    assert man.counters == {"file missing": 1}
    assert man.introductions == lists.expected[0]
    path.write_text(lists.texts[1])
    assert await listener.next() == lists.expected[1]
    assert len(listener.calls) == 2


async def test_an_edit_that_changes_no_relay_is_no_news(
    man: DiscoveryMan, path: Path, lists: Lists, polls_pass: Callable[[], Any]
) -> None:
    listener = Listener()
    man.meet_relay_servers(listener)
    await listener.next()
    path.write_text("# a comment\n" + lists.texts[0])
    await polls_pass()
    assert len(listener.calls) == 1


async def test_a_file_that_becomes_a_folder_is_an_error_and_not_the_end(
    man: DiscoveryMan, path: Path, lists: Lists, complaints: Complaints
) -> None:
    path.unlink()
    path.mkdir()
    assert "is not a file" in str(await complaints.next())
    path.rmdir()
    path.write_text(lists.texts[1])
    listener = Listener()
    man.meet_relay_servers(listener)
    while await listener.next() != lists.expected[1]:
        pass


async def test_failing_callbacks_stop_neither_the_others_nor_the_polling(
    path: Path, lists: Lists
) -> None:
    reported: asyncio.Queue[object] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.put_nowait(context["exception"])
    )
    failure = RuntimeError("a bug of the callback")

    def fail(_: object) -> None:
        raise failure

    listener = Listener()
    async with DiscoveryMan(path, poll_interval_s=POLL_INTERVAL_S, on_error=fail) as man:
        man.meet_relay_servers(fail)
        man.meet_relay_servers(listener)
        async with asyncio.timeout(5):
            assert await listener.next() == lists.expected[0]
            assert await reported.get() is failure
            path.write_text(lists.texts[1])
            assert await listener.next() == lists.expected[1]
            assert await reported.get() is failure
            path.write_text(BROKEN)
            assert await reported.get() is failure
            man.forget(fail)
            path.write_text(lists.texts[2])
            assert await listener.next() == lists.expected[2]
    assert reported.empty()


async def test_without_a_callback_an_error_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logged = asyncio.Event()

    class Wake(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.set()

    handler = Wake()
    logger = logging.getLogger("discovery")
    logger.addHandler(handler)
    try:
        async with DiscoveryMan(path, poll_interval_s=POLL_INTERVAL_S), asyncio.timeout(5):
            path.write_text(BROKEN)
            await logged.wait()
    finally:
        logger.removeHandler(handler)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text


async def test_the_start_needs_a_good_file_and_can_be_tried_again(path: Path, lists: Lists) -> None:
    man = DiscoveryMan(path)
    path.unlink()
    with pytest.raises(InvalidConfig, match="does not exist; create it"):
        man.start()
    path.write_text(BROKEN)
    with pytest.raises(InvalidConfig, match="relay entry 1"):
        man.start()
    assert man.introductions == ()
    path.write_text(lists.texts[0])
    man.start()
    assert man.introductions == lists.expected[0]
    man.start()  # does nothing
    man.close()


async def test_a_file_that_is_too_large_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "relays.toml"
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(InvalidConfig, match="larger than"):
        DiscoveryMan(path).start()


async def test_a_named_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "relays.toml"
    os.mkfifo(pipe)
    with pytest.raises(InvalidConfig, match="is not a file"):
        DiscoveryMan(pipe).start()


@pytest.mark.parametrize("poll_interval_s", [0, -1, float("nan"), float("inf"), "1"])
async def test_an_interval_that_is_no_time_is_refused(path: Path, poll_interval_s: Any) -> None:
    with pytest.raises(InvalidConfig, match="poll_interval_s"):
        DiscoveryMan(path, poll_interval_s=poll_interval_s)


async def test_close_leaves_nothing_on_the_loop(path: Path, lists: Lists) -> None:
    man = DiscoveryMan(path, poll_interval_s=3600)
    man.start()
    early, late = Listener(), Listener()
    man.meet_relay_servers(early)
    assert await early.next() == lists.expected[0]
    man.meet_relay_servers(late)  # its call is under way
    man.close()
    man.close()  # does nothing
    assert man.introductions == ()
    # A timer or call that is still on the loop would keep the man or the listener alive.
    listener, closed = weakref.ref(late), weakref.ref(man)
    del late, man
    gc.collect()
    assert closed() is None
    assert listener() is None


async def test_a_callback_may_close_the_man(path: Path) -> None:
    closed = asyncio.Event()

    def close(_: InvalidConfig) -> None:
        watching.close()
        closed.set()

    watching = DiscoveryMan(path, poll_interval_s=POLL_INTERVAL_S, on_error=close)
    watching.start()
    path.write_text(BROKEN)
    async with asyncio.timeout(5):
        await closed.wait()
    assert watching.introductions == ()


async def test_a_closed_man_can_be_started_again(
    path: Path, lists: Lists, polls_pass: Callable[[], Any]
) -> None:
    before, after = Listener(), Listener()
    man = DiscoveryMan(path, poll_interval_s=POLL_INTERVAL_S)
    async with man:
        man.meet_relay_servers(before)
        await before.next()
    path.write_text(lists.texts[1])
    await polls_pass()
    async with man:
        man.meet_relay_servers(after)
        assert await after.next() == lists.expected[1]
    assert len(before.calls) == 1


def test_a_closed_man_can_be_started_on_another_loop(path: Path, lists: Lists) -> None:
    man = DiscoveryMan(path)

    async def look() -> Sequence[Introduction]:
        async with man:
            return man.introductions

    for _ in range(2):
        assert asyncio.run(look()) == lists.expected[0]


async def test_a_change_of_directory_changes_nothing(
    path: Path, lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener = Listener()
    async with DiscoveryMan(path.name, poll_interval_s=POLL_INTERVAL_S) as man:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        man.meet_relay_servers(listener)
        await listener.next()
        path.write_text(lists.texts[1])
        assert await listener.next() == lists.expected[1]


async def test_r15_calls_from_another_thread_fail_at_once(man: DiscoveryMan) -> None:
    for call in (man.start, man.close):
        with pytest.raises(WrongLoop):
            await asyncio.to_thread(call)
    for register in (man.meet_relay_servers, man.forget):
        with pytest.raises(WrongLoop):
            await asyncio.to_thread(register, print)
