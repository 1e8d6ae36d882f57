"""The file behind a record store: SQLite, so that a process killed at any moment loses nothing.

Every change is in the write-ahead log before it is acknowledged. A power cut may lose the last few,
nothing else; owners publish again. While the disk is full or failing, missing changes are
remembered and written as soon as possible; a process killed before that loses them. The file is
not trusted: every record read from it is verified anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from egtp.errors import InvalidConfig
from lookup_dht.records.backlog import Backlog, Change

__all__ = ["CorruptFile", "RecordFile", "open_or_set_aside"]

log = logging.getLogger("lookup_dht")

FORMAT: Final = 1
CHECKPOINT_PAGES: Final = 256
"""Copies a megabyte of log into the file at a time, which blocks the loop for milliseconds."""
CATCH_UP_ROWS: Final = 256
"""Rows written at a time after a failure, for the same reason."""
SEQUENCE_MAX: Final = (1 << 63) - 1
"""The highest integer in SQLite."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    peer_id BLOB PRIMARY KEY, source BLOB NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequences (
    kind TEXT NOT NULL, peer_id BLOB NOT NULL, sequence INTEGER NOT NULL, noted INTEGER NOT NULL,
    PRIMARY KEY (kind, peer_id)) WITHOUT ROWID;
"""
_MISFITS: Final = """
SELECT EXISTS (SELECT 1 FROM records WHERE NOT (
    typeof(peer_id) = 'blob' AND typeof(source) = 'blob' AND typeof(data) = 'blob'))
OR EXISTS (SELECT 1 FROM sequences WHERE NOT (
    typeof(kind) = 'text' AND typeof(peer_id) = 'blob' AND typeof(sequence) = 'integer'
    AND typeof(noted) = 'integer' AND noted BETWEEN 0 AND 1 << 62))
"""
"""Whether any value has a type other than its column's, which SQLite permits, or a ``noted`` that
leaves no room for higher ones."""


class CorruptFile(Exception):
    """The file exists and can be read, but is damaged or not a record file."""


class RecordFile:
    """Rows in, rows out. Once open, an error does not stop the node, which goes on in memory. A
    change that cannot be written is counted, logged once, and waits for :meth:`catch_up`, as do
    all changes after it."""

    def __init__(self, path: Path, counters: Counter[str]) -> None:
        """Raises :class:`CorruptFile`, or :class:`InvalidConfig` if the file is open elsewhere or
        cannot be opened."""
        self.path: Final = path
        self._counters = counters
        self._noted = 0
        self._closed = False
        self._backlog: Final = Backlog()
        obstacle = _obstacle(path)
        if obstacle is not None:
            raise InvalidConfig(f"cannot open the record file {path}: {obstacle}")
        _create_for_owner(path)
        try:
            # With egtp.blocking, a program makes it in one thread and runs the node in another.
            self._connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise InvalidConfig(f"cannot open the record file {path}: {error}") from None
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if "locked" in str(error):
                raise InvalidConfig(f"the record file {path} is in use by another node") from None
            if isinstance(error, sqlite3.OperationalError):
                raise InvalidConfig(f"cannot use the record file {path}: {error}") from None
            raise CorruptFile(str(error)) from None
        except CorruptFile:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        run("BEGIN IMMEDIATE")
        form = run("PRAGMA user_version").fetchone()[0]
        if form not in (0, FORMAT):
            raise CorruptFile(f"it is of format {form}")
        run("COMMIT")
        if run("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise CorruptFile("its pages are damaged")
        ours, found = _ours(), _tables(self._connection)
        if not found <= ours:
            raise CorruptFile("its tables are others")
        self._connection.executescript(_SCHEMA)
        run(f"PRAGMA user_version = {FORMAT}")
        if run(_MISFITS).fetchone() != (0,):
            raise CorruptFile("its rows are none of a record file")
        for table in ("records", "sequences"):
            # Read everything, to find damage now, while the file can still be set aside.
            for _ in run(f"SELECT * FROM {table}"):  # noqa: S608 - one of the two above
                pass
        self._noted = run("SELECT coalesce(max(noted), 0) FROM sequences").fetchone()[0]

    def records(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """(peerId, source network, bytes) of each record."""
        return iter(self._rows("SELECT peer_id, source, data FROM records"))

    def sequences(self, kind: str) -> Iterator[tuple[bytes, int]]:
        """(peerId, highest sequence) pairs, the one noted longest ago first."""
        query = "SELECT peer_id, sequence FROM sequences WHERE kind = ? ORDER BY noted"
        return iter(self._rows(query, (kind,)))

    def put(self, peer_id: bytes, source: bytes, data: bytes) -> None:
        statement = "REPLACE INTO records VALUES (?, ?, ?)"
        self._write([Change(("records", peer_id), statement, (peer_id, source, data))])

    def drop(self, peer_ids: Iterable[bytes]) -> None:
        statement = "DELETE FROM records WHERE peer_id = ?"
        self._write([Change(("records", it), statement, (it,), deletes=True) for it in peer_ids])

    def note(self, kind: str, peer_id: bytes, sequence: int) -> None:
        if sequence > SEQUENCE_MAX:
            self._counters["record_file_failed"] += 1
            return
        self._noted += 1
        statement = "REPLACE INTO sequences VALUES (?, ?, ?, ?)"
        self._write([Change((kind, peer_id), statement, (kind, peer_id, sequence, self._noted))])

    def forget(self, kind: str, peer_id: bytes) -> None:
        statement = "DELETE FROM sequences WHERE kind = ? AND peer_id = ?"
        self._write([Change((kind, peer_id), statement, (kind, peer_id), deletes=True)])

    def catch_up(self) -> Iterator[None]:
        """Write what earlier failed, some rows per step. Stops if it fails again."""
        while changes := self._backlog.first(CATCH_UP_ROWS):
            if self._try(changes) is not None:
                return
            self._backlog.written(changes)
            if not self._backlog:
                log.warning(
                    "the record file %s can be written again: nothing is missing", self.path
                )
            yield

    def close(self) -> None:
        for _ in self.catch_up():
            pass
        self._closed = True
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error:
            self._counters["record_file_failed"] += 1
            return []

    def _write(self, changes: list[Change]) -> None:
        # While some changes wait, all do: do not try a full disk again with every record.
        if not (self._closed or self._backlog):
            error = self._try(changes)
            if error is None:
                return
            log.warning(
                "cannot write the record file %s: %s; the node goes on in memory and keeps trying",
                self.path,
                error,
            )
        self._counters["record_file_failed"] += 1
        for change in changes:
            self._backlog.add(change)

    def _try(self, changes: list[Change]) -> sqlite3.Error | None:
        """Write all ``changes`` or none. Returns the error, if any."""
        run = self._connection.execute
        try:
            if len(changes) == 1:
                run(changes[0].statement, changes[0].values)
            elif changes:
                run("BEGIN")
                for change in changes:
                    run(change.statement, change.values)
                run("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                run("ROLLBACK")
            return error
        return None


def _tables(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    """Type, name and SQL of everything in the schema of the file."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master")
    return {(kind, name, " ".join((sql or "").split())) for kind, name, sql in rows}


def _ours() -> set[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(_SCHEMA)
        return _tables(empty)


def _obstacle(path: Path) -> str | None:
    """Why the file cannot be used, in cases where SQLite would say "disk I/O error", which sounds
    transient. Does not open it: closing it again would release the lock of another node in this
    process."""
    if not os.path.isdir(path.parent):
        return f"there is no folder {path.parent}"
    if os.path.isdir(path):
        return "it is a folder"
    for it in (path.parent, path):  # SQLite creates more files beside it.
        if os.path.exists(it) and not os.access(it, os.R_OK | os.W_OK):
            return f"this process may not read and write {it}"
    return None


def _create_for_owner(path: Path) -> None:
    """Create the file, unless it is there, so that only its owner can read it: it tells whom the
    node has looked for. SQLite gives what it creates beside it the same mode."""
    # Whatever is wrong, SQLite tells next.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def open_or_set_aside(path: Path, counters: Counter[str]) -> tuple[RecordFile, str | None]:
    """Open the file. A corrupt one is renamed and replaced by a new one, which the message returned
    with it says. Raises :class:`InvalidConfig`."""
    try:
        return RecordFile(path, counters), None
    except CorruptFile as error:
        aside = path.with_name(path.name + ".corrupt")
        try:
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as failed:
            raise InvalidConfig(f"cannot set {path} aside: {failed.strerror}") from None
        warning = f"{path} is corrupt ({error}); kept as {aside}, starting without records"
        return RecordFile(path, counters), warning
