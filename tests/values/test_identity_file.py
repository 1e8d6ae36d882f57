"""The identity file: private, whole, locked, and plain about what is wrong with it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from egtp import identity_file
from egtp.environment import process_id
from egtp.errors import InvalidConfig
from egtp.identity_file import IdentityFile
from egtp.node import Node
from egtp.values.mutable_item import SEQUENCE_LIMIT

PASSPHRASE = b"correct horse"
LIMIT_S = 20.0
"""How long another process may take. It takes a fraction of a second."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity"


@pytest.fixture
def existing(path: Path) -> Path:
    IdentityFile.open(path).close()
    return path


def refused(path: Path, passphrase: bytes | None = None) -> str:
    """Open what must not open; the message, which is one line and names the file."""
    with pytest.raises(InvalidConfig) as caught:
        IdentityFile.open(path, passphrase=passphrase)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def pem(*keys: Ed25519PrivateKey | X25519PrivateKey | rsa.RSAPrivateKey | ed448.Ed448PrivateKey
        | x448.X448PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:  # fmt: skip
    return b"".join(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys
    )


# Making and reading


def test_a_new_file_is_private_and_read_again(path: Path) -> None:
    with IdentityFile.open(path) as made:
        made.store_sequence(5)
        node_id = made.identity.node_id
    with IdentityFile.open(path) as read:
        assert read.identity.node_id == node_id
        assert read.identity.channel_key == made.identity.channel_key
        assert read.load_sequence() == 5
    assert sorted(os.listdir(path.parent)) == ["identity", "identity.sequence"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_the_owner_reads_whatever_the_umask_is(path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with IdentityFile.open(path) as file:
            file.store_sequence(1)
    finally:
        os.umask(before)
    for name in ("identity", "identity.sequence"):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("trap", ["a file that all may read", "a link to elsewhere"])
def test_what_lies_in_the_way_of_the_temporary_file_does_not_get_the_keys(
    path: Path, trap: str
) -> None:
    """A process with the same number may have left it, or somebody who wants the keys: numbers
    of processes are easily guessed, and in a container they are the same at every start."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    elsewhere = path.parent / "elsewhere"
    elsewhere.touch(mode=0o644)
    elsewhere.chmod(0o644)
    if trap == "a link to elsewhere":
        temporary.symlink_to(elsewhere)
    else:
        os.link(elsewhere, temporary)
    IdentityFile.open(path).close()
    assert elsewhere.read_bytes() == b"", "somebody else has the keys"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_entropy_is_what_the_caller_gives(path: Path) -> None:
    with IdentityFile.open(path, entropy=lambda size: bytes([7]) * size) as file:
        secret = file.identity.channel.secret.private_bytes_raw()
    assert secret == bytes([7]) * 32


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert f"there is no folder {missing}" in refused(missing / "identity")


def test_a_link_to_nowhere_is_told(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")
    refused(path)


def test_a_link_to_an_identity_file_is_followed(existing: Path) -> None:
    link = existing.with_name("link")
    link.symlink_to(existing)
    with IdentityFile.open(existing) as file:
        node_id = file.identity.node_id
        file.store_sequence(7)
    with IdentityFile.open(link) as file:
        assert file.identity.node_id == node_id
        assert file.load_sequence() == 7, "one identity has one sequence, by whatever name"
        file.store_sequence(8)
    with IdentityFile.open(existing) as file:
        assert file.load_sequence() == 8


# Passphrases


def test_a_passphrase_is_needed_and_must_be_the_right_one(path: Path) -> None:
    with IdentityFile.open(path, passphrase=PASSPHRASE) as file:
        node_id = file.identity.node_id
    assert b"ENCRYPTED" in path.read_bytes()
    assert "needs a passphrase" in refused(path)
    assert "the passphrase is wrong" in refused(path, b"incorrect horse")
    with IdentityFile.open(path, passphrase=PASSPHRASE) as file:
        assert file.identity.node_id == node_id


def test_a_passphrase_for_a_file_without_one_is_told(existing: Path) -> None:
    assert "is not encrypted: give no passphrase" in refused(existing, PASSPHRASE)


def test_an_empty_passphrase_is_refused_in_words_and_leaves_nothing(path: Path) -> None:
    """What an unset variable in a script gives."""
    with pytest.raises(InvalidConfig):
        IdentityFile.open(path, passphrase=b"")
    assert os.listdir(path.parent) == []


def test_a_passphrase_that_is_text_is_refused_in_words_and_leaves_nothing(path: Path) -> None:
    with pytest.raises(InvalidConfig, match="a passphrase must be bytes, not str"):
        IdentityFile.open(path, passphrase="text")  # type: ignore[arg-type]  # noqa: S106
    assert os.listdir(path.parent) == []


def test_a_child_that_was_forked_neither_keeps_the_lock_nor_gives_it_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = IdentityFile.open(path)
    of_the_child = os.dup(opened._lock.fileno())  # the same lock, as after a fork
    opened.close()
    opened.close()
    with IdentityFile.open(path) as again:
        os.close(of_the_child)
        of_the_parent = os.dup(again._lock.fileno())
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 1)
            process_id.cache_clear()
            again.close()
        process_id.cache_clear()
        with pytest.raises(InvalidConfig, match="in use"):
            IdentityFile.open(path)
        os.close(of_the_parent)
    IdentityFile.open(path).close()


async def test_no_node_starts_in_a_child_with_the_file_that_its_parent_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All children of a web server that opens it before it forks would be the same peer."""
    with IdentityFile.open(path) as opened:
        node = Node(opened)
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 1)
            process_id.cache_clear()
            with pytest.raises(InvalidConfig, match="open it after that, in one process"):
                await node.start()
        process_id.cache_clear()


def test_a_refused_file_is_not_locked_or_changed(path: Path) -> None:
    IdentityFile.open(path, passphrase=PASSPHRASE).close()
    content = path.read_bytes()
    for _ in range(3):
        refused(path)
    assert path.read_bytes() == content
    IdentityFile.open(path, passphrase=PASSPHRASE).close()


# What is no identity file


def keys() -> tuple[Ed25519PrivateKey, X25519PrivateKey]:
    return Ed25519PrivateKey.generate(), X25519PrivateKey.generate()


NO_IDENTITY: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"hello\n",
    "bytes": lambda: bytes(range(256)) * 10,
    "zeros": lambda: bytes(100_000),
    "an empty block": lambda: b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n" * 2,
    "blocks that never end": lambda: b"-----BEGIN PRIVATE KEY-----\n" * 500,
    "other base64": lambda: (
        b"-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n" * 2
    ),
    "one key": lambda: pem(keys()[0]),
    "three keys": lambda: pem(*keys(), keys()[0]),
    "the keys swapped": lambda: pem(*reversed(keys())),
    "two signing keys": lambda: pem(keys()[0], keys()[0]),
    "an RSA key": lambda: pem(rsa.generate_private_key(65537, 2048), keys()[1]),
    "an elliptic curve key": lambda: pem(ec.generate_private_key(ec.SECP256R1()), keys()[1]),
    "keys of the other size": lambda: pem(
        ed448.Ed448PrivateKey.generate(), x448.X448PrivateKey.generate()
    ),
    "public keys": lambda: b"".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in keys()
    ),
    "certificates": lambda: b"-----BEGIN CERTIFICATE-----\nMI==\n-----END CERTIFICATE-----\n" * 2,
}


@pytest.mark.parametrize("what", NO_IDENTITY)
def test_what_is_no_identity_file_is_refused_in_one_line(path: Path, what: str) -> None:
    path.write_bytes(NO_IDENTITY[what]())
    content = path.read_bytes()
    for passphrase in (None, PASSPHRASE):
        refused(path, passphrase)
    assert path.read_bytes() == content, "it may be something that its owner needs"


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_file_cut_off_anywhere_is_refused_in_one_line(
    path: Path, passphrase: bytes | None
) -> None:
    IdentityFile.open(path, passphrase=passphrase).close()
    content = path.read_bytes()
    second = content.index(b"-----BEGIN", 10)
    for length in (0, 1, 20, second - 30, second - 1, second, second + 60, len(content) - 10):
        path.write_bytes(content[:length])
        refused(path, passphrase)


def test_a_pipe_is_no_identity_file(path: Path) -> None:
    os.mkfifo(path)
    assert "is not a file" in refused(path)


def test_a_passphrase_may_not_be_longer_than_can_be_used(path: Path) -> None:
    with pytest.raises(InvalidConfig, match="1023"):
        IdentityFile.open(path, passphrase=bytes(1024))
    assert not path.exists()
    IdentityFile.open(path, passphrase=b"x" * 1023).close()


def test_a_folder_is_no_identity_file(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path)


def test_a_file_that_may_not_be_read_is_told(
    existing: Path, request: pytest.FixtureRequest
) -> None:
    existing.chmod(0o000)
    request.getfixturevalue("stranger")
    assert "permission denied" in refused(existing)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_key_that_everybody_may_read_or_write_is_refused_with_the_remedy(
    existing: Path, mode: int
) -> None:
    existing.chmod(mode)
    with pytest.raises(InvalidConfig, match=f"chmod 600 {existing}"):
        IdentityFile.open(existing)
    existing.chmod(0o600)
    IdentityFile.open(existing).close()


def test_a_group_may_be_let_in_and_a_passphrase_keeps_everybody_out(path: Path) -> None:
    IdentityFile.open(path).close()
    path.chmod(0o660)
    IdentityFile.open(path).close()
    path.unlink()
    IdentityFile.open(path, passphrase=b"secret").close()
    path.chmod(0o644)
    IdentityFile.open(path, passphrase=b"secret").close()


def test_a_folder_that_may_not_be_searched_is_told(
    existing: Path, request: pytest.FixtureRequest
) -> None:
    existing.parent.chmod(0o000)
    request.getfixturevalue("stranger")
    for use in (IdentityFile.open, IdentityFile.renew_channel_key):
        with pytest.raises(InvalidConfig, match="permission denied"):
            use(existing)


def test_a_folder_that_may_not_be_written_is_told(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tmp_path.chmod(0o500)
    request.getfixturevalue("stranger")
    assert "permission denied" in refused(tmp_path / "identity")


# A new channel key


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_new_channel_key_leaves_the_peer_who_it_is(path: Path, passphrase: bytes | None) -> None:
    with IdentityFile.open(path, passphrase=passphrase) as before:
        before.store_sequence(5)
    node_id = IdentityFile.renew_channel_key(path, passphrase=passphrase)
    with IdentityFile.open(path, passphrase=passphrase) as after:
        assert after.identity.node_id == node_id == before.identity.node_id
        assert after.identity.channel_key != before.identity.channel_key
        assert after.load_sequence() == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(path.parent)) == ["identity", "identity.sequence"]
    assert before.identity.channel.secret.private_bytes_raw() not in path.read_bytes()


def test_a_new_channel_key_is_made_of_the_entropy_that_the_caller_gives(existing: Path) -> None:
    keys = set()
    for _ in range(2):
        IdentityFile.renew_channel_key(existing, entropy=lambda size: b"e" * size)
        with IdentityFile.open(existing) as file:
            keys.add(file.identity.channel_key)
    assert len(keys) == 1


def test_behind_a_link_it_is_the_file_that_gets_the_new_key(existing: Path) -> None:
    link = existing.with_name("link")
    link.symlink_to(existing)
    with IdentityFile.open(existing) as file:
        before = file.identity.channel_key
    IdentityFile.renew_channel_key(link)
    assert link.is_symlink()
    with IdentityFile.open(existing) as file:
        assert file.identity.channel_key != before


def test_whoever_could_read_the_old_key_can_read_the_new_one(existing: Path) -> None:
    """Root renews the key of a service that runs as somebody else, or as one of a group."""
    existing.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(existing, 12_345, 12_346)
    was = existing.stat()
    IdentityFile.renew_channel_key(existing)
    now = existing.stat()
    assert now.st_ino != was.st_ino
    assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


def test_a_key_that_cannot_be_renewed_stays_what_it_is(existing: Path, tmp_path: Path) -> None:
    content = existing.read_bytes()
    with (
        IdentityFile.open(existing),
        pytest.raises(InvalidConfig, match="in use by another process"),
    ):
        IdentityFile.renew_channel_key(existing)
    with pytest.raises(InvalidConfig, match="is not encrypted: give no passphrase"):
        IdentityFile.renew_channel_key(existing, passphrase=PASSPHRASE)
    assert existing.read_bytes() == content
    with pytest.raises(InvalidConfig, match="there is no identity file"):
        IdentityFile.renew_channel_key(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_who_opened_the_file_before_it_had_a_new_key_does_not_get_the_old_one(
    existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = identity_file._lock

    def lock_late(path: Path, file: IO[bytes]) -> None:
        monkeypatch.setattr(identity_file, "_lock", lock)
        IdentityFile.renew_channel_key(existing)
        lock(path, file)

    monkeypatch.setattr(identity_file, "_lock", lock_late)
    assert "in use by another process" in refused(existing)
    IdentityFile.open(existing).close()


# The sequence


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"abc",
        b"-5",
        b"1.5",
        b"1e9",
        b"0x10",
        b"12 34",
        b"12\n34",
        b"1_000",
        b"\xff\xfe1",
        "²".encode(),
        "٣".encode(),
        b"%d" % SEQUENCE_LIMIT,
        b"9" * 30,
        b"9" * 5000,
    ],
)
def test_a_sequence_file_that_holds_no_sequence_is_told_and_says_what_to_do(
    existing: Path, content: bytes
) -> None:
    sequence_path = existing.with_name("identity.sequence")
    sequence_path.write_bytes(content)
    with IdentityFile.open(existing) as file:
        with pytest.raises(InvalidConfig) as caught:
            file.load_sequence()
        message = str(caught.value)
        assert "\n" not in message
        assert str(sequence_path) in message
        assert "delete it" in message


def test_a_sequence_path_that_is_a_folder_is_told(existing: Path) -> None:
    existing.with_name("identity.sequence").mkdir()
    with IdentityFile.open(existing) as file:
        with pytest.raises(InvalidConfig, match="is a directory"):
            file.load_sequence()
        with pytest.raises(InvalidConfig, match="cannot use"):
            file.store_sequence(1)


def test_a_sequence_that_was_never_stored_is_zero_and_spaces_do_not_matter(existing: Path) -> None:
    with IdentityFile.open(existing) as file:
        assert file.load_sequence() == 0
        existing.with_name("identity.sequence").write_bytes(b" 77 \r\n")
        assert file.load_sequence() == 77


def test_storing_a_sequence_never_leaves_half_a_number(
    existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new number is on disk before it takes the place of the old one."""
    with IdentityFile.open(existing) as file:
        file.store_sequence(1_111_111)

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InvalidConfig, match="no space left"):
            file.store_sequence(2_222_222)
        monkeypatch.undo()
        assert file.load_sequence() == 1_111_111


KILLED = """
    import os, signal, sys
    from egtp.identity_file import IdentityFile
    fsync, countdown = os.fsync, int(sys.argv[3])

    def kill(descriptor):
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = kill
    if sys.argv[2] == "renew":
        IdentityFile.renew_channel_key(sys.argv[1])
    IdentityFile.open(sys.argv[1]).store_sequence(8)
"""
"""A process that is killed when it writes to the disk for a certain time."""


@pytest.mark.parametrize(
    ("doing", "time", "left"),
    [
        ("open", 1, ".identity."),  # making the file
        ("open", 3, ".identity.sequence."),  # after the file, and its folder
        ("renew", 1, ".identity."),
    ],
)
def test_what_a_killed_process_left_is_removed(
    path: Path, doing: str, time: int, left: str
) -> None:
    if doing == "renew":
        IdentityFile.open(path).close()
    with python(KILLED, path, doing, time) as killed:
        assert killed.wait(LIMIT_S) < 0
    (temporary,) = set(os.listdir(path.parent)) - {"identity"}
    assert temporary.startswith(left)
    IdentityFile.open(path).close()
    assert os.listdir(path.parent) == ["identity"]


def test_nothing_but_files_that_were_written_aside_is_removed(existing: Path) -> None:
    folder = existing.parent
    others = [
        ".identity.password",
        ".identity.sequence",
        ".identity.abcd1234",
        ".identity.abcd12345.tmp",
        ".identity.ABCD1234.tmp",
        ".identity2.abcd1234.tmp",
        "identity.abcd1234.tmp",
    ]
    for name in others:
        (folder / name).touch()
    (folder / ".identity.a_folder.tmp").mkdir()
    (folder / ".identity.link_new.tmp").symlink_to(folder / others[0])
    (folder / ".identity.abcd1234.tmp").touch()
    before = set(os.listdir(folder))
    IdentityFile.open(existing).close()
    assert before - set(os.listdir(folder)) == {".identity.abcd1234.tmp"}


def test_who_is_refused_removes_nothing(existing: Path) -> None:
    """The process that has the file is about to put what it wrote aside in its place."""
    temporary = existing.with_name(".identity.abcd1234.tmp")
    with IdentityFile.open(existing):
        temporary.touch()
        refused(existing)
        assert temporary.exists()


# The lock, with real processes


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


OPEN = """
    import sys
    from egtp.errors import InvalidConfig
    from egtp.identity_file import IdentityFile
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        file = IdentityFile.open(sys.argv[1])
    except InvalidConfig as error:
        print(f"refused: {error}", flush=True)
    else:
        print(f"has it: {file.identity.node_id}", flush=True)
    sys.stdin.readline()
"""


def test_one_identity_runs_in_one_process_at_a_time(existing: Path) -> None:
    with python(OPEN, existing) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with IdentityFile.open(existing) as mine:
            other.stdin.write("\n")
            other.stdin.flush()
            told = other.stdout.readline()
            assert told.startswith("refused: ")
            assert "in use by another process" in told
            # A second time in this process is the same mistake.
            refused(existing)
            # Not even having been refused lets it loose.
            refused(existing)
            assert mine.identity.node_id
        other.communicate("\n", timeout=LIMIT_S)


def test_the_file_can_be_locked_over_nfs_where_only_what_is_open_for_writing_can(
    existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def of_nfs(file: IO[bytes], operation: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    with IdentityFile.open(existing):
        assert "in use by another process" in refused(existing)


def test_keys_that_nobody_may_write_are_read_and_locked(existing: Path) -> None:
    existing.chmod(0o400)  # Which root may write all the same.
    with IdentityFile.open(existing):
        assert "in use by another process" in refused(existing)


def test_a_process_that_is_killed_gives_the_identity_back(existing: Path) -> None:
    with python(OPEN, existing) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline().startswith("has it: ")
        assert "in use by another process" in refused(existing)
        other.kill()
        other.wait(LIMIT_S)
        IdentityFile.open(existing).close()


def test_processes_that_race_to_make_the_file_make_one_identity_and_one_has_it(path: Path) -> None:
    others = [python(OPEN, path) for _ in range(4)]
    try:
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
        told = []
        for other in others:
            assert other.stdout is not None
            told.append(other.stdout.readline())
    finally:
        for other in others:
            other.communicate("\n", timeout=LIMIT_S)
    winners = [line for line in told if line.startswith("has it: ")]
    assert len(winners) == 1
    assert sum("in use by another process" in line for line in told) == len(others) - 1
    with IdentityFile.open(path) as file:
        assert re.fullmatch(f"has it: {file.identity.node_id}\n", winners[0])
    assert os.listdir(path.parent) == ["identity"], "a temporary file is left"
