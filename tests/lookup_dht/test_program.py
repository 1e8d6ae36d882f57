"""``python -m lookup_dht`` as its user meets it: a process, its lines, its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from egtp.errors import InvalidConfig
from egtp.values.comm_strat import Address
from egtp.values.identity import Identity
from lookup_dht import KeptState
from lookup_dht.state.state_file import CorruptState, NodeState, read_state, write_state
from lookup_dht.wire.contact import Contact
from tests.lookup_dht.at_hand import Sign, Start
from tests.programs.at_hand import HANGS_S


class Program:
    """A running node."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, node_id: str) -> None:
        self.process = process
        self.address = address
        self.node_id = node_id

    async def end(self, number: int) -> tuple[int | None, str]:
        """Send a signal; the exit status, and what was said on stderr."""
        self.process.send_signal(number)
        async with asyncio.timeout(HANGS_S):
            _, stderr = await self.process.communicate()
        return self.process.returncode, stderr.decode()


Run = Callable[..., Awaitable[Program]]


async def spawn(*arguments: str | Path, python: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, *python, "-m", "lookup_dht", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Start the program and wait until it listens; those left are killed in the end."""
    processes = []

    async def run(*arguments: str | Path) -> Program:
        process = await spawn(*arguments, python=("-W", "error"))
        processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(HANGS_S):
            first = (await process.stdout.readline()).decode()
            second = (await process.stdout.readline()).decode()
        if not first.startswith("listening on "):
            pytest.fail((await process.communicate())[1].decode())
        return Program(process, first.split()[-1], second.split()[-1])

    yield run
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def complaint(*arguments: str | Path) -> str:
    """The one line of a start that cannot work."""
    process = await spawn(*arguments)
    async with asyncio.timeout(HANGS_S):
        stdout, stderr = await process.communicate()
    assert process.returncode == 2
    assert stdout == b""
    (line,) = stderr.decode().splitlines()
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_restart_keeps_the_id_the_contacts_and_the_records(
    run: Run, start: Start, tmp_path: Path, identity: Identity, sign: Sign, number: int
) -> None:
    seed = await start()
    state = tmp_path / "node.state"
    first = await run("--listen", "127.0.2.1:0", "--bootstrap", str(seed.address), "--state", state)
    await seed.publish(sign(identity, 5))
    assert await first.end(number) == (0, "")

    second = await run("--listen", first.address, "--state", state)
    assert (second.node_id, second.address) == (first.node_id, first.address)
    client = await start(second.address, server=False)
    assert client.contacts == 2  # It introduces the seed, which it knows from its state only.
    await seed.close()
    assert (await client.resolve(identity.node_id)).sequence == 5
    assert await second.end(number) == (0, "")


async def test_a_killed_node_starts_again_with_its_id_and_contacts(
    run: Run, start: Start, tmp_path: Path
) -> None:
    seed = await start()
    state = tmp_path / "node.state"
    first = await run("--listen", "127.0.2.1:0", "--bootstrap", str(seed.address), "--state", state)
    assert (await first.end(signal.SIGKILL))[0] == -signal.SIGKILL
    kept = read_state(state)
    assert kept is not None
    assert [contact.address for contact in kept.contacts] == [seed._node.bound]
    second = await run("--listen", first.address, "--state", state)
    assert second.node_id == first.node_id
    left = sorted(name for name in os.listdir(tmp_path) if not name.endswith("-wal"))
    assert left == [state.name, f"{state.name}.records"]


def test_the_paths_of_a_kept_state_may_be_texts(tmp_path: Path) -> None:
    kept = KeptState(str(tmp_path / "node.state"), pytest.fail)
    assert kept.records == tmp_path / "node.state.records"
    assert kept.read() is None


async def test_what_a_killed_node_left_half_written_is_removed_when_nobody_writes_it(
    run: Run, tmp_path: Path
) -> None:
    killed = (
        "import os, runpy, signal, sys; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "runpy.run_module('lookup_dht', run_name='__main__', alter_sys=True)"
    )
    state, mine = tmp_path / "node.state", tmp_path / ".node.state.mine"
    mine.touch()
    listen = ("--listen", "127.0.2.1:0", "--state", state)
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", killed, *map(str, listen))
    assert await first.wait() == -signal.SIGKILL
    (left,) = set(tmp_path.glob(".node.state.*")) - {mine}
    await run(*listen)
    assert set(tmp_path.glob(".node.state.*")) == {mine}
    # What the node that runs is about to put in the place of its state looks the same.
    left.touch()
    assert "in use by another node" in await complaint(*listen)
    assert left.exists()


async def test_without_a_state_each_start_is_a_new_node(run: Run) -> None:
    first = await run("--listen", "127.0.2.1:0")
    second = await run("--listen", "127.0.2.2:0", "--bootstrap", first.address)
    assert first.node_id != second.node_id
    assert await second.end(signal.SIGINT) == (0, "")


async def test_a_corrupt_state_is_set_aside_and_the_node_starts_afresh(
    run: Run, tmp_path: Path
) -> None:
    state = tmp_path / "node.state"
    state.write_bytes(b'{"format": 1, "node_id": "no')
    program = await run("--listen", "127.0.2.1:0", "--state", state)
    status, stderr = await program.end(signal.SIGTERM)
    assert status == 0
    (line,) = stderr.splitlines()
    assert "corrupt" in line
    assert (tmp_path / "node.state.corrupt").read_bytes().endswith(b"no")
    kept = read_state(state)
    assert kept is not None
    assert kept.node_id.hex() == program.node_id


async def test_a_busy_port_is_one_clear_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind(("127.0.2.3", 0))
        address = f"127.0.2.3:{busy.getsockname()[1]}"
        line = await complaint("--listen", address)
    assert address in line
    assert "in use" in line


async def test_wrong_options_are_one_clear_line() -> None:
    lines = await asyncio.gather(
        complaint("--bla"),
        complaint("--listen", "somewhere"),
        complaint("--listen", "127.0.0.1:0", "--bootstrap", "example.org"),
        complaint("--listen", "127.0.0.1:0", "--network", "A B"),
        complaint("--listen", "0.0.0.0:0", "--bootstrap", "10.0.0.1:9100"),
        complaint("--listen", "127.0.0.1:0", "--stats-every", "0"),
        complaint("--listen", "127.0.0.1:0", "--stats-every", "-1"),
    )
    expected = ("--bla", "IP:PORT", "HOST:PORT", "network", "private", "above 0", "above 0")
    assert [word for word, line in zip(expected, lines, strict=True) if word not in line] == []


async def test_a_state_that_cannot_be_read_or_written_is_one_clear_line(tmp_path: Path) -> None:
    listen = ("--listen", "127.0.2.1:0", "--state")
    assert "directory" in await complaint(*listen, tmp_path)
    assert str(tmp_path / "no") in await complaint(*listen, tmp_path / "no" / "state")
    write_state(tmp_path / "state", NodeState(bytes(20), "lab"))
    assert "network" in await complaint(*listen, tmp_path / "state")


async def test_help_says_that_a_loopback_address_implies_private_ones() -> None:
    process = await spawn("--help")
    stdout, _ = await process.communicate()
    assert process.returncode == 0
    assert "a loopback address implies --private-addresses" in " ".join(stdout.decode().split())


async def test_a_seed_may_be_a_name(run: Run, start: Start) -> None:
    seed = await start()
    await run("--listen", "127.0.0.1:0", "--bootstrap", f"localhost:{seed.address.port}")
    assert seed.contacts == 1


async def test_both_families_are_two_nodes_with_files_of_their_own(
    run: Run, tmp_path: Path
) -> None:
    seed = await run("--listen", "[::1]:0")
    state = tmp_path / "state"
    both = await run(
        "--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--bootstrap", seed.address,
        "--state", state,
    )  # fmt: skip
    assert both.process.stdout is not None
    assert b"listening on [::1]:" in await both.process.stdout.readline()
    assert await both.end(signal.SIGTERM) == (0, "")
    six = read_state(tmp_path / "state.v6")
    assert six is not None
    assert [it.address for it in six.contacts] == [("::1", Address.parse(seed.address).port)]
    assert read_state(state) is not None


async def test_both_families_listen_everywhere_on_one_port(run: Run) -> None:
    """Whichever comes first: a socket on ``::`` does not take the port of IPv4."""
    six = await run("--listen", "[::]:0")
    port = Address.parse(six.address).port
    four = await run("--listen", f"0.0.0.0:{port}")
    assert await six.end(signal.SIGTERM) == (0, "")
    six = await run("--listen", f"[::]:{port}")
    for host, node in (("127.0.0.1", four), ("[::1]", six)):
        stdout, _ = await (await spawn("stats", f"{host}:{port}")).communicate()
        assert node.node_id in stdout.decode()
    for program in (four, six):
        assert await program.end(signal.SIGTERM) == (0, "")


async def test_a_program_has_one_node_for_each_family() -> None:
    two = await complaint("--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0")
    assert "at most once for IPv4 and once for IPv6" in two


async def test_a_node_says_how_it_is_when_this_machine_asks(run: Run, start: Start) -> None:
    seed = await start()
    node = await run("--listen", "127.0.2.1:0", "--bootstrap", str(seed.address))
    process = await spawn("stats", node.address)
    stdout, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    told = dict(line.split(None, 1) for line in stdout.decode().splitlines())
    assert told["node_id"] == node.node_id
    assert told["contacts"] == "1"
    assert int(told["sent_ping"]) > 0

    node.process.send_signal(signal.SIGUSR1)
    assert node.process.stderr is not None
    line = json.loads(await node.process.stderr.readline())
    assert line["address"] == node.address
    assert line["records"] == 0
    assert line["queries_sent_per_s"] >= 0
    assert "no node" in await complaint("stats", "127.0.2.9:9")
    assert "IP:PORT" in await complaint("stats")


async def test_nobody_else_is_told_how_a_node_is(start: Start) -> None:
    node = await start()
    node._node.protocol.datagram_received(b"\2" + bytes(21), ("8.8.8.8", 9))
    assert node.counters["statistics_asked_from_afar"] == 1


async def test_a_node_that_is_being_closed_tells_nobody_how_it_is(start: Start) -> None:
    node = await start()
    closing = asyncio.ensure_future(node.close())
    await asyncio.sleep(0)
    node._node.protocol.datagram_received(b"\2" + bytes(21), ("127.0.0.1", 9))
    await closing
    assert "statistics_asked" not in node.counters


async def test_statistics_come_regularly_if_wanted(run: Run) -> None:
    node = await run("--listen", "127.0.2.1:0", "--stats-every", "0.05")
    assert node.process.stdout is not None
    lines = [json.loads(await node.process.stdout.readline()) for _ in range(2)]
    assert [line["node_id"] for line in lines] == [node.node_id] * 2
    assert await node.end(signal.SIGTERM) == (0, "")


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    contacts = (Contact(b"a" * 20, bytes([8, 8, 8, 8]), 9), Contact(b"b" * 20, b"\x20" * 16, 9))
    state = NodeState(b"x" * 20, "main", contacts, ((b"p" * 20, b"record"),))
    path = tmp_path / "state"
    write_state(path, NodeState(b"y" * 20, "main"))
    write_state(path, state)
    assert read_state(path) == state
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]
    assert read_state(tmp_path / "none") is None
    with pytest.raises(InvalidConfig):
        write_state(tmp_path, state)
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_in_a_folder_that_may_not_be_searched_is_not_taken_for_none(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Else the node would begin anew, and lose it."""
    path = tmp_path / "closed" / "state"
    path.parent.mkdir()
    path.parent.chmod(0o000)
    request.getfixturevalue("stranger")
    with pytest.raises(InvalidConfig, match="Permission denied"):
        read_state(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"node_id": "00"}, {"node_id": 5}, {"network": None}, {"contacts": 5},
        {"contacts": [["00" * 20, "localhost", 5]]}, {"contacts": [["00" * 20, "1.2.3.4", 0]]},
        {"contacts": [["00" * 20, "1.2.3.4", 1.5]]}, {"contacts": [["00" * 20, "1.2.3.4"]]},
        {"records": [["00", "*"]]}, {"records": {"a": 1}}, {"records": [5]},
    ],
)  # fmt: skip
def test_a_state_of_a_wrong_shape_is_corrupt(change: dict[str, object], tmp_path: Path) -> None:
    fields = json.loads(NodeState(bytes(20), "main").encode())
    path = tmp_path / "state"
    path.write_text(json.dumps({**fields, **change}))
    with pytest.raises(CorruptState):
        read_state(path)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b'{\n "for', b'{"format": ' + b"[" * 100_000, bytes(4096), b"{" + bytes(100),
        bytes(4096) + b'"records": []\n}',
    ],
)  # fmt: skip
def test_what_is_left_of_a_state_is_corrupt(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(data)
    with pytest.raises(CorruptState):
        read_state(path)


@pytest.mark.parametrize(
    "data", [b"\x80\x04N.", b"[]", b"null", b"\xff", b"my thesis", b'{"a": 1}']
)
async def test_what_never_was_a_state_is_left_where_it_is(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(data)
    line = await complaint("--listen", "127.0.2.1:0", "--state", path)
    assert "is not the state of a DHT node" in line
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(path.name, data)]


async def test_what_is_no_file_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "is not a regular file" in await complaint("--listen", "127.0.2.1:0", "--state", path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.is_fifo()
