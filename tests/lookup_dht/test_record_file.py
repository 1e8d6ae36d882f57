"""The file behind the records: it survives a kill, and what is in it is believed by nobody."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from egtp.errors import InvalidConfig, LookupFailed, LookupFailure
from egtp.values.identity import Identity
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.records.backlog import Backlog, Change
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.records.record_file import CATCH_UP_ROWS, FORMAT, RecordFile, open_or_set_aside
from lookup_dht.records.record_verifier import SequenceFloor
from lookup_dht.settings import NodeSettings
from lookup_dht.wire.datagram import StoreStatus
from tests.lookup_dht.at_hand import Sign, Start

WRITER = """
import collections, pathlib, random, sys, time
from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.identity import Identity
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.records.record_file import RecordFile
from lookup_dht.settings import NodeSettings

counters = collections.Counter()
settings = NodeSettings(time.time, time.monotonic, bytes)
store = RecordStore(bytes(20), settings, counters, RecordFile(pathlib.Path(sys.argv[1]), counters))
randbytes = random.Random(5).randbytes
while True:
    identity = Identity.generate(randbytes)
    content = CommRecord(int(time.time()) + 3600, bytes(8), ((SUITE_AESGCM, bytes(32)),), ())
    record = SignedCommRecord.sign(identity, 7, content)
    assert store.put(record.peer_id, record.encode()).name == "STORED"
    print(record.peer_id.hex(), flush=True)  # only now it is acknowledged
"""


def store_on(path: Path, **limits: int) -> RecordStore:
    counters: collections.Counter[str] = collections.Counter()
    settings = NodeSettings(time.time, time.monotonic, os.urandom, limits=DHTLimits(**limits))
    store = RecordStore(bytes(20), settings, counters, RecordFile(path, counters))
    for _ in store.restore():
        pass
    return store


def test_whatever_was_acknowledged_before_a_kill_is_there_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "records"
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().decode().strip() for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    whole = rest.decode()[: rest.decode().rfind("\n") + 1]
    acknowledged += whole.split()
    store = store_on(path)
    assert {bytes.fromhex(it) for it in acknowledged} <= set(store.keys())
    floor = SequenceFloor(100_000, "stored", None)
    assert floor[b""] == 0
    assert all(store._floor[bytes.fromhex(it)] == 7 for it in acknowledged)
    store.close()


def test_records_and_sequences_are_there_again(
    tmp_path: Path, identity: Identity, sign: Sign
) -> None:
    path, key = tmp_path / "records", bytes(identity.node_id)
    old, new = sign(identity, 5), sign(identity, 6)
    store = store_on(path)
    store.put(key, new.encode())
    store.close()
    store = store_on(path)
    assert store.record(key) == new
    store._drop([key])  # as when it expires
    store.close()
    store = store_on(path)
    assert store.record(key) is None
    assert store.put(key, old.encode()) is StoreStatus.NEWER_HELD
    store.close()


def test_the_sequences_that_were_noted_longest_ago_are_forgotten_first_in_later_runs_too(
    tmp_path: Path,
) -> None:
    for noted in ((b"z", b"y", b"w"), (b"x",), (b"z",)):
        file = RecordFile(tmp_path / "records", collections.Counter())
        floor = SequenceFloor(100, "stored", file)
        for peer_id in noted:
            floor.note(peer_id, floor[peer_id] + 1)
        file.close()
    file = RecordFile(tmp_path / "records", collections.Counter())
    assert list(file.sequences("stored")) == [(b"y", 1), (b"w", 1), (b"x", 1), (b"z", 2)]
    file.close()


def test_a_change_after_the_end_is_no_failure_of_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = RecordFile(tmp_path / "records", collections.Counter())
    file.close()
    file.note("stored", b"x", 1)
    assert caplog.messages == []


def test_what_is_stored_while_the_file_is_read_again_survives_a_kill(
    tmp_path: Path, sign: Sign
) -> None:
    path = tmp_path / "records"
    store = store_on(path)
    identities = [Identity.generate(random.Random(number).randbytes) for number in range(2)]
    for identity in identities:
        store.put(bytes(identity.node_id), sign(identity, 5).encode())
    store.close()
    file = RecordFile(path, collections.Counter())
    settings = NodeSettings(time.time, time.monotonic, os.urandom)
    store = RecordStore(bytes(20), settings, collections.Counter(), file)
    reading = store.restore()
    next(reading)
    # One is there again; of the other its owner stores a newer one before it is its turn.
    (late,) = (it for it in identities if store.record(bytes(it.node_id)) is None)
    key, new = bytes(late.node_id), sign(late, 6)
    assert store.put(key, new.encode()) is StoreStatus.STORED
    assert list(reading) == [None]
    file.close()  # A kill takes the memory, and leaves the file.
    store = store_on(path)
    assert store.record(key) == new
    store.close()


def test_what_somebody_wrote_into_the_file_is_not_believed(
    tmp_path: Path, identity: Identity, sign: Sign
) -> None:
    path = tmp_path / "records"
    store_on(path).close()
    forged = bytearray(sign(identity, 5).encode())
    forged[-1] ^= 1
    with sqlite3.connect(path) as connection:
        row = (bytes(identity.node_id), b"", bytes(forged))
        connection.execute("INSERT INTO records VALUES (?, ?, ?)", row)
    connection.close()
    store = store_on(path)
    assert len(store) == 0
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("damage", ["text", "torn", "format"])
async def test_a_corrupt_file_is_set_aside_with_a_clear_message(
    start: Start, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records"
    store = store_on(path)
    store.close()
    if damage == "text":
        path.write_text("this is no database " * 1000)
    elif damage == "torn":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + b"\xa5" * (len(data) - len(data) // 2))
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 9")
        connection.close()
    node = await start(store=path)
    (line,) = [it.getMessage() for it in caplog.records]
    assert "corrupt" in line
    assert "records.corrupt" in line
    assert (tmp_path / "records.corrupt").exists()
    assert node.state.records == ()


async def test_a_corrupt_file_is_set_aside_whose_path_is_a_text(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "records"
    path.write_text("this is no database " * 1000)
    await start(store=str(path))
    assert (tmp_path / "records.corrupt").exists()


PEER = "x'0102030405060708090a0b0c0d0e0f1011121314'"


@pytest.mark.parametrize(
    "tampering",
    [
        "INSERT INTO records VALUES (PEER, x'00', 'text')",
        "INSERT INTO records VALUES (PEER, x'00', 17)",
        "INSERT INTO records VALUES (PEER, x'00', CAST(x'fffe' AS TEXT))",
        "INSERT INTO records VALUES (PEER, 'text', x'00')",
        "INSERT INTO records VALUES ('text', x'00', x'00')",
        "INSERT INTO sequences VALUES ('stored', PEER, 'text', 1)",
        "INSERT INTO sequences VALUES ('stored', PEER, 1e300, 1)",
        "INSERT INTO sequences VALUES ('stored', PEER, 1, 'text')",
        "INSERT INTO sequences VALUES ('stored', PEER, 1, 9223372036854775807)",
        "INSERT INTO sequences VALUES ('stored', 'text', 1, 1)",
        "DROP TABLE records; CREATE TABLE records (a, b)",
        "DROP TABLE records; CREATE VIEW records AS SELECT x'00' peer_id, x'00' source, x'' data",
        "CREATE TABLE others (a)",
        "CREATE TRIGGER no BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END",
    ],
)
async def test_a_file_that_somebody_tampered_with_is_set_aside(
    start: Start,
    tmp_path: Path,
    tampering: str,
    caplog: pytest.LogCaptureFixture,
    identity: Identity,
    sign: Sign,
) -> None:
    path = tmp_path / "records"
    store_on(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(tampering.replace("PEER", PEER))
    node = await start(store=path)
    (line,) = [it.getMessage() for it in caplog.records]
    assert "is corrupt" in line
    assert (tmp_path / "records.corrupt").exists()
    stored = node._node.storage.put(identity.node_id, sign(identity, 5).encode())
    assert stored is StoreStatus.STORED
    assert not node.counters["record_file_failed"]


def test_a_number_that_sqlite_cannot_hold_stops_nobody(tmp_path: Path) -> None:
    counters: collections.Counter[str] = collections.Counter()
    file = RecordFile(tmp_path / "records", counters)
    file.note("stored", bytes(20), 2**63)
    assert counters["record_file_failed"] == 1
    file.close()
    assert list(file.records()) == []
    assert counters["record_file_failed"] == 2


async def test_a_file_has_one_user(start: Start, tmp_path: Path) -> None:
    await start(store=tmp_path / "records")
    with pytest.raises(InvalidConfig, match="in use"):
        DHTLookup(store=tmp_path / "records")
    with pytest.raises(InvalidConfig, match=r"no/records: there is no folder .*no$"):
        DHTLookup(store=tmp_path / "no" / "records")
    with pytest.raises(InvalidConfig, match=r"cannot open the record file .*: it is a folder"):
        DHTLookup(store=tmp_path)


@pytest.mark.parametrize("name", ["", "records"])
def test_a_file_that_may_not_be_written_is_said_to_be_so(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says "disk I/O error" of a folder, as if another start might do better."""
    path, closed = tmp_path / "records", tmp_path / name
    path.touch()
    # As the system says it to everybody but root.
    monkeypatch.setattr(os, "access", lambda it, _: Path(it) != closed)
    with pytest.raises(InvalidConfig) as told:
        RecordFile(path, collections.Counter())
    why = f"this process may not read and write {closed}"
    assert str(told.value) == f"cannot open the record file {path}: {why}"
    assert told.value.__cause__ is told.value.__context__ is None, "a program ends with status 2"


def test_a_file_that_cannot_be_written_any_more_stops_nobody(
    tmp_path: Path, identity: Identity, sign: Sign
) -> None:
    counters: collections.Counter[str] = collections.Counter()
    file, said = open_or_set_aside(tmp_path / "records", counters)
    assert said is None
    settings = NodeSettings(time.time, time.monotonic, os.urandom)
    store = RecordStore(bytes(20), settings, counters, file)
    file.close()
    assert store.put(bytes(identity.node_id), sign(identity, 5).encode()) is StoreStatus.STORED
    assert counters["record_file_failed"] == 2  # the record, and its sequence


FULL_DISK = """
import resource

def put(number):
    identity = Identity.generate(randbytes)
    record = SignedCommRecord.sign(identity, number, content)
    assert store.put(record.peer_id, record.encode()).name == "STORED"
    print(record.peer_id.hex(), flush=True)

randbytes = random.Random(5).randbytes
content = CommRecord(int(time.time()) + 3600, bytes(8), ((SUITE_AESGCM, bytes(32)),), ())
put(1)
# Such a limit is the same to SQLite.
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (32768, hard))
for number in range(100):
    put(number + 2)
list(store._file.catch_up())
assert store._file._backlog, "it still fails"
assert counters["record_file_failed"] > 100
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
list(store._file.catch_up())
put(102)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_full_disk_did_not_take_is_written_when_it_can_be_and_told(tmp_path: Path) -> None:
    path = tmp_path / "records"
    began = WRITER[: WRITER.index("randbytes =")]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", f"import os, signal{began}{FULL_DISK}", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    failed, works = done.stderr.splitlines()
    assert failed.startswith(f"cannot write the record file {path}: ")
    assert works == f"the record file {path} can be written again: nothing is missing"
    acknowledged = [bytes.fromhex(it) for it in done.stdout.split()]
    store = store_on(path)
    assert set(acknowledged) == set(store.keys())
    assert [store._floor[it] for it in acknowledged] == list(range(1, 103))
    store.close()


def refuse(file: RecordFile, *, writes: bool) -> None:
    file._connection.execute(f"PRAGMA query_only = {int(writes)}")


async def test_a_node_writes_what_is_missing_when_it_looks_around(
    start: Start, tmp_path: Path, identity: Identity, sign: Sign
) -> None:
    node = await start(store=tmp_path / "records")
    file = node._node.storage._file
    assert file is not None
    refuse(file, writes=True)
    node._node.storage.put(identity.node_id, sign(identity, 5).encode())
    await node._node._refresh_table()
    assert list(file.records()) == []
    refuse(file, writes=False)
    await node._node._refresh_table()
    assert [key for key, _, _ in file.records()] == [identity.node_id]
    assert list(file.sequences("stored")) == [(identity.node_id, 5)]


def test_many_rows_are_deleted_at_once_and_written_late_in_steps_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, counters = tmp_path / "records", collections.Counter[str]()
    file = RecordFile(path, counters)
    keys = [number.to_bytes(2, "big") for number in range(2 * CATCH_UP_ROWS + 1)]
    for key in keys[:3]:
        file.put(key, b"", b"")
    file.drop(keys[:2])
    assert counters == {}
    assert [key for key, _, _ in file.records()] == keys[2:3]
    refuse(file, writes=True)
    for key in keys:
        file.put(key, b"", b"")
    refuse(file, writes=False)
    assert [len(list(file.records())) for _ in file.catch_up()] == [
        CATCH_UP_ROWS, 2 * CATCH_UP_ROWS, len(keys)
    ]  # fmt: skip
    assert len(caplog.records) == 2
    file.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_of_each_row_the_last_change_is_written_at_the_latest_at_the_end(
    tmp_path: Path, sign: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records"
    store = store_on(path, records_max=50, sequences_max=20)
    assert store._file is not None
    randbytes = random.Random(7).randbytes

    def put(count: int) -> None:
        for _ in range(count):
            record = sign(Identity.generate(randbytes), 5)
            store.put(record.peer_id, record.encode())

    put(40)
    refuse(store._file, writes=True)
    put(1000)
    assert len(store._file._backlog._writes) <= 50 + 20
    refuse(store._file, writes=False)
    kept = set(store.keys())
    store.close()
    assert len(caplog.records) == 2
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert {row[0] for row in connection.execute("SELECT peer_id FROM records")} == kept
        noted = {row[0] for row in connection.execute("SELECT peer_id FROM sequences")}
    assert noted == set(store._floor._highest)


@pytest.mark.parametrize("umask", [0, 0o022])
def test_only_the_owner_reads_whom_a_node_has_looked_for(tmp_path: Path, umask: int) -> None:
    """A folder made for a service is often open to all users of the machine."""
    before = os.umask(umask)
    try:
        file = RecordFile(tmp_path / "records", collections.Counter())
        file.note("resolved", bytes(20), 1)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert modes == {"records": 0o600, "records-wal": 0o600}
        file.close()
    finally:
        os.umask(before)


def test_a_file_that_others_were_let_in_to_stays_open_to_them(tmp_path: Path) -> None:
    RecordFile(tmp_path / "records", collections.Counter()).close()
    (tmp_path / "records").chmod(0o640)
    RecordFile(tmp_path / "records", collections.Counter()).close()
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o640


def test_the_deletions_that_wait_have_a_bound() -> None:
    backlog = Backlog()
    for number in range(20_000):
        backlog.add(Change(("records", number.to_bytes(20, "big")), "DELETE", (), deletes=True))
    assert len(backlog) == 16_384
    (first,) = backlog.first(1)
    assert int.from_bytes(first.row[1], "big") == 20_000 - 16_384


async def test_what_a_client_resolved_is_not_gone_below_in_its_next_life(
    start: Start, tmp_path: Path, identity: Identity, sign: Sign
) -> None:
    path = tmp_path / "records"
    new_holder = await start()
    client = await start(new_holder, server=False, store=path)
    new_holder._node.storage.put(identity.node_id, sign(identity, 6).encode())
    assert (await client.resolve(identity.node_id)).sequence == 6
    await client.close()

    old_holder = await start()
    old_holder._node.storage.put(identity.node_id, sign(identity, 5).encode())
    client = await start(old_holder, server=False, store=path)
    with pytest.raises(LookupFailed) as failed:
        await client.resolve(identity.node_id)
    assert failed.value.reason is LookupFailure.SUPERSEDED


def test_the_file_holds_no_more_than_the_store(tmp_path: Path, sign: Sign) -> None:
    path = tmp_path / "records"
    store = store_on(path, records_max=50, sequences_max=20)
    randbytes = random.Random(7).randbytes
    for _ in range(80):
        record = sign(Identity.generate(randbytes), 5)
        store.put(record.peer_id, record.encode(), b"net")
    kept = set(store.keys())
    assert len(kept) <= 50
    store.close()
    with sqlite3.connect(path) as connection:
        assert {row[0] for row in connection.execute("SELECT peer_id FROM records")} == kept
        assert connection.execute("SELECT count(*) FROM sequences").fetchone() == (20,)
    connection.close()
    store = store_on(path, records_max=50)
    assert set(store.keys()) == kept
    store.close()


async def test_the_records_of_a_whole_store_are_read_while_others_have_the_loop(
    start: Start, tmp_path: Path, sign: Sign
) -> None:
    path = tmp_path / "records"
    store = store_on(path)
    randbytes = random.Random(7).randbytes
    for _ in range(30):
        record = sign(Identity.generate(randbytes), 5)
        store.put(record.peer_id, record.encode())
    store.close()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    node = await start(store=path)
    counting.cancel()
    assert node.statistics()["records"] == 30
    assert turns >= 30


async def test_a_file_that_cannot_be_written_is_seen_in_the_counters_of_the_node(
    start: Start, tmp_path: Path, identity: Identity, sign: Sign
) -> None:
    node = await start(store=tmp_path / "records")
    assert node._node.storage._file is not None
    node._node.storage._file.close()
    node._node.storage.put(identity.node_id, sign(identity, 5).encode())
    assert node.counters["record_file_failed"] == 2
