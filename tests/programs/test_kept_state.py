"""``python -m egtp ... --state DIR``: what a restart, and a kill, leave."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from egtp import CommRecord, Identity, SignedCommRecord, TCPStrat
from egtp.values.comm_strat import Address
from lookup_dht import DHTLookup
from tests.programs.at_hand import HANGS_S

ROOT = Path(__file__).parents[2]
Program = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    """Start ``python -m egtp``; what is left of it is killed in the end."""
    running = []

    async def start(*arguments: str | Path) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "egtp", *map(str, arguments), cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(HANGS_S):
        return (await process.stdout.readline()).decode().strip()


async def end(process: asyncio.subprocess.Process, number: int) -> None:
    process.send_signal(number)
    async with asyncio.timeout(HANGS_S):
        await process.communicate()


async def complaint(process: asyncio.subprocess.Process, status: int) -> str:
    """What a program that ends by itself says."""
    async with asyncio.timeout(HANGS_S):
        _, errors = await process.communicate()
    assert process.returncode == status, errors
    assert b"Traceback" not in errors
    return errors.decode()


def record(identity: Identity, sequence: int, address: Address) -> SignedCommRecord:
    content = CommRecord(
        int(time.time()) + 3600, bytes(8), ((1, identity.channel_key),), (TCPStrat(address),)
    )
    return SignedCommRecord.sign(identity, sequence, content)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_peer_comes_back_as_itself_and_without_being_told_whom_to_join(
    program: Program, tmp_path: Path, number: int
) -> None:
    state = tmp_path / "made" / "state"
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        join = ("--bootstrap", str(seed.address), "--state", state, "--listen", "127.0.0.1:0")
        first = await program("echo", *join)
        peer = await line(first)
        await line(first)
        assert (await line(first)).startswith("record stored by 1 node:")
        before = await seed.resolve(next(iter(seed._node.storage))[0], fresh=True)  # type: ignore[arg-type]
        await end(first, number)

        again = await program("echo", "--state", state, "--listen", "127.0.0.1:0")
        assert await line(again) == peer
        await line(again)
        assert (await line(again)).startswith("record stored by 1 node:")
        after = await seed.resolve(before.peer_id, fresh=True)
        assert after.sequence > before.sequence
        await end(again, signal.SIGTERM)
    assert state.stat().st_mode & 0o077 == 0
    left = {name for name in os.listdir(state) if not name.endswith(("-wal", "-shm"))}
    assert left == {"dht", "dht.records", "identity.pem", "identity.pem.sequence"}


async def test_a_start_without_private_addresses_keeps_the_private_contacts(
    program: Program, tmp_path: Path
) -> None:
    """They were implied by the loopback bootstrap node, which a later start does not need."""
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        nobody = str(Identity.generate(os.urandom).node_id)
        ask = ("ask", nobody, "--state", tmp_path)
        await complaint(await program(*ask, "--bootstrap", str(seed.address)), 1)
        said = await complaint(await program(*ask), 1)
        assert "1 of the DHT contacts of an earlier run are kept, but not used" in said
        assert "allow private addresses" in said
        assert "lookup: no nodes to ask" in said
        said = await complaint(await program(*ask, "--private-addresses"), 1)
        assert "lookup: no record found" in said


async def test_who_joined_on_ipv6_joins_there_again_without_being_told(
    program: Program, tmp_path: Path
) -> None:
    async with DHTLookup("[::1]:0", private_addresses=True) as seed:
        nobody = str(Identity.generate(os.urandom).node_id)
        ask = ("ask", nobody, "--private-addresses", "--state", tmp_path)
        await complaint(await program(*ask, "--bootstrap", str(seed.address)), 1)
        said = await complaint(await program(*ask), 1)
        assert "lookup: no record found" in said


async def test_a_killed_asker_remembers_the_newest_record_that_it_has_seen(
    program: Program, tmp_path: Path
) -> None:
    """It was killed while it dialled. Afterwards the network knows an older record only."""
    called = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    owner = Identity.generate(os.urandom)
    state = tmp_path / "state"
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    there = Address.of(host, port)
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        address = str(seed.address)
        seed._node.storage.put(owner.node_id, record(owner, 5, there).encode())
        ask = ("ask", str(owner.node_id), "--state", state, "--bootstrap", address)
        asking = await program(*ask)
        async with asyncio.timeout(HANGS_S):
            await called.wait()
        await end(asking, signal.SIGKILL)
    called.clear()
    async with DHTLookup(address, private_addresses=True) as seed:
        seed._node.storage.put(owner.node_id, record(owner, 4, there).encode())
        said = await complaint(await program(*ask), 1)
        assert "no record newer than the one known" in said
        assert not called.is_set(), "the older address was not dialled"
        other = ("ask", str(owner.node_id), "--bootstrap", address, "--timeout", "2")
        await complaint(await program(*other), 1)
        assert called.is_set(), "who has seen nothing newer dials it"
    server.close()


async def test_a_folder_is_used_by_one_program_at_a_time(program: Program, tmp_path: Path) -> None:
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        join = ("--bootstrap", str(seed.address), "--state", tmp_path / "state")
        first = await program("echo", *join)
        await line(first)
        said = await complaint(await program("echo", *join), 2)
        assert "in use by another process" in said
        # Nor by two that have their identities elsewhere.
        elsewhere = ("--identity", tmp_path / "other.pem")
        said = await complaint(await program("echo", *join, *elsewhere), 2)
        assert "in use by another node" in said
        assert len(said.splitlines()) == 1
        await end(first, signal.SIGTERM)


async def test_a_folder_that_cannot_be_is_one_clear_line(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = await program("echo", "--state", tmp_path / "file" / "state")
    said = await complaint(process, 2)
    assert said.startswith("egtp: cannot create the folder")
    process = await program("echo", "--state", tmp_path / "fresh")
    assert "--bootstrap" in await complaint(process, 2), "it knows nobody yet"


async def test_a_corrupt_state_is_set_aside_and_told(program: Program, tmp_path: Path) -> None:
    (tmp_path / "dht").write_bytes(b"{")
    (tmp_path / "dht.records").write_bytes(b"no database " * 100)
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        echo = await program("echo", "--bootstrap", str(seed.address), "--state", tmp_path)
        assert (await line(echo)).startswith("peer ")
        assert (await line(echo)).startswith("record stored")
        echo.send_signal(signal.SIGTERM)
        said = (await complaint(echo, 0)).splitlines()
    # What the library logs is said by the program as all else is.
    for told, name in zip(said[:2], ("dht", "dht.records"), strict=True):
        assert told.startswith(f"egtp: {tmp_path / name} is corrupt")
    assert (tmp_path / "dht.corrupt").read_bytes() == b"{"


@pytest.mark.parametrize("left", ["identity.pem", "dht.records"])
async def test_in_a_folder_that_is_ours_a_state_is_set_aside_however_damaged(
    program: Program, tmp_path: Path, left: str
) -> None:
    """Nobody could name another file."""
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        nobody = str(Identity.generate(os.urandom).node_id)
        ask = ("ask", nobody, "--bootstrap", str(seed.address), "--state", tmp_path)
        await complaint(await program(*ask), 1)
        for name in {"identity.pem", "dht.records"} - {left}:
            (tmp_path / name).unlink()
        (tmp_path / "dht").write_bytes(b"garbage")
        said = await complaint(await program(*ask), 1)
        assert "dht is corrupt" in said
        assert "lookup: no record found" in said
    assert (tmp_path / "dht.corrupt").read_bytes() == b"garbage"


async def test_in_a_folder_of_somebody_else_a_file_is_left_where_it_is(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "dht").write_bytes(b"my thesis")
    for _ in range(2):
        said = await complaint(await program("echo", "--state", tmp_path), 2)
        assert "is not the state of a DHT node" in said
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("dht", b"my thesis")]
