"""The identity file: the private keys on disk, for one process at a time.

It holds two PKCS#8 PEM blocks (Ed25519, then X25519), readable by the owner only, and encrypted if
there is a passphrase. The file ``<file>.sequence`` beside it (or beside the target, if it is a
link) holds the highest sequence of a record ever signed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from egtp.environment import process_id
from egtp.errors import InvalidConfig, in_words
from egtp.values.identity import KEY_BYTES, Entropy, Identity, NodeId
from egtp.values.mutable_item import SEQUENCE_LIMIT
from egtp.whole_file import mode_at, remove_leftovers, replace_file, sync_folder, write_aside

__all__ = ["IdentityFile"]

_PEM: Final = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n?", re.DOTALL)
FILE_BYTES_MAX: Final = 64 * 1024
PASSPHRASE_BYTES_MAX: Final = 1023
"""OpenSSL's."""
SEQUENCE_DIGITS_MAX: Final = 20


class IdentityFile:
    """An open, locked identity file. Use :meth:`open` to make one, and close it after the node. It
    is a context manager."""

    def __init__(self, path: Path, identity: Identity, lock: IO[bytes]) -> None:
        self.path: Final = path
        """The path that it was opened by."""
        # Of the file itself: by whatever link it is opened, its numbers are the same.
        self._sequence_path: Final = _sequence_path(path.resolve())
        self.identity: Final = identity
        """The keys in it."""
        self._lock = lock
        self._process = process_id()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        passphrase: bytes | None = None,
        entropy: Entropy = os.urandom,
    ) -> Self:
        """Open the file at ``path``, and create it with a new identity if it does not exist.

        Raises :class:`InvalidConfig`, in one line, if the file cannot be read, is not an identity
        file, needs another passphrase, is in use by another process, or has no passphrase although
        every user of the machine can read or write it.
        """
        where = Path(path)
        if passphrase is not None and not isinstance(passphrase, bytes):
            raise InvalidConfig(f"a passphrase must be bytes, not {type(passphrase).__name__}")
        if passphrase == b"":
            raise InvalidConfig(
                "a passphrase must have at least one byte; None means no passphrase"
            )
        if passphrase is not None and len(passphrase) > PASSPHRASE_BYTES_MAX:
            raise InvalidConfig(f"a passphrase must have at most {PASSPHRASE_BYTES_MAX} bytes")
        with _explained(where):
            mode = mode_at(where)
            if mode is None:
                _create(where, Identity.generate(entropy), passphrase)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InvalidConfig(f"{where} is not a file")
            lock = _opened(where)
        try:
            with _explained(where):
                _lock(where, lock)
                if not os.path.samestat(os.fstat(lock.fileno()), where.stat()):
                    # Its channel key was renewed meanwhile: this is the old file.
                    raise _in_use(where)
                # Private keys, perhaps. Whoever has the lock is the only one that writes.
                real = where.resolve()
                remove_leftovers([real, _sequence_path(real)])
                identity = _parse(where, lock.read(FILE_BYTES_MAX), passphrase)
                if passphrase is None:
                    _check_mode(where, os.fstat(lock.fileno()).st_mode)
        except BaseException:
            lock.close()
            raise
        return cls(where, identity, lock)

    @classmethod
    def renew_channel_key(
        cls,
        path: str | os.PathLike[str],
        *,
        passphrase: bytes | None = None,
        entropy: Entropy = os.urandom,
    ) -> NodeId:
        """Give the peer of the file at ``path`` a new channel key. Returns its nodeId, which stays.

        Whoever steals the file later can no longer read initiations and early data that were
        recorded before. The new key is in use once a node was started with the file and has
        published its record; others look it up.

        Raises :class:`InvalidConfig` as :meth:`open` does, and if there is no file; the file then
        stays as it was.
        """
        where = Path(path)
        with _explained(where):
            if mode_at(where) is None:
                raise InvalidConfig(f"there is no identity file at {where}")
        with cls.open(where, passphrase=passphrase) as old:
            channel = X25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))
            new = Identity(old.identity.signing_key, channel)
            with _explained(where):
                # Not a link in place of which the file would lie. Root may do this for a service
                # whose user exists only while it runs: that must be able to read the file.
                was = os.fstat(old._lock.fileno())
                replace_file(where.resolve(), _encoded(new, passphrase), like=was)
            return new.node_id

    def load_sequence(self) -> int:
        """The highest sequence ever used; 0 if there is none. Raises :class:`InvalidConfig` if it
        cannot be read, or if this process was forked from the one that opened the file."""
        if process_id() != self._process:
            # All children share the lock with it, such as the workers of a web server.
            raise InvalidConfig(
                f"{self.path} was opened before this process was forked; open it after that, in "
                "one process: an identity can run in one process at a time"
            )
        path = self._sequence_path
        with _explained(path):
            if mode_at(path) is None:
                return 0
            text = path.read_text("ascii", errors="replace").strip()
        if not text.isdigit() or len(text) > SEQUENCE_DIGITS_MAX or int(text) >= SEQUENCE_LIMIT:
            raise InvalidConfig(
                f"{path} does not hold a number; delete it if its identity was never used elsewhere"
            )
        return int(text)

    def store_sequence(self, sequence: int) -> None:
        """Write the highest sequence so that it survives a crash of the machine. Raises
        :class:`InvalidConfig` if it cannot be written."""
        with _explained(self._sequence_path):
            replace_file(self._sequence_path, b"%d\n" % sequence)

    def close(self) -> None:
        """Release the lock, so that another process can open the file."""
        if not self._lock.closed and process_id() == self._process:
            # A forked child has the lock as well, and would keep it; nor must a child give it away.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sequence_path(real: Path) -> Path:
    return real.with_name(real.name + ".sequence")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = in_words(error)
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            why = f"there is no folder {path.parent}"
        raise InvalidConfig(f"cannot use {path}: {why}") from None


def _opened(path: Path) -> IO[bytes]:
    """For writing, though nothing is written: over NFS, nothing else can be locked (flock(2)). But
    the keys may be read-only."""
    with contextlib.suppress(OSError):
        return path.open("r+b")
    return path.open("rb")


def _lock(path: Path, file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path) from None


def _in_use(path: Path) -> InvalidConfig:
    return InvalidConfig(
        f"{path} is in use by another process; an identity can run in one process at a time"
    )


def _parse(path: Path, data: bytes, passphrase: bytes | None) -> Identity:
    blocks = _PEM.findall(data)
    try:
        signing, channel = (load_pem_private_key(block, passphrase) for block in blocks)
    except TypeError:
        needs = (
            "needs a passphrase" if passphrase is None else "is not encrypted: give no passphrase"
        )
        raise InvalidConfig(f"{path} {needs}") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "" if passphrase is None else ", or the passphrase is wrong"
        raise InvalidConfig(f"{path} is not an identity file{wrong}") from None
    if not isinstance(signing, Ed25519PrivateKey) or not isinstance(channel, X25519PrivateKey):
        raise InvalidConfig(f"{path} is not an identity file: it holds keys of another type")
    return Identity(signing, channel)


def _check_mode(path: Path, mode: int) -> None:
    """A group may have been let in on purpose, as volumes of containers are; everybody was not."""
    if mode & 0o006:
        raise InvalidConfig(
            f"every user of this machine can read or write {path}, which holds private keys; "
            f"run: chmod 600 {path}"
        )


def _encoded(identity: Identity, passphrase: bytes | None) -> bytes:
    encryption: KeySerializationEncryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    )
    keys = (identity.signing_key, identity.channel.secret)
    return b"".join(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption) for key in keys
    )


def _create(path: Path, identity: Identity, passphrase: bytes | None) -> None:
    """Write a new identity, unless another process was quicker."""
    temporary = write_aside(path, _encoded(identity, passphrase))
    try:
        # It may even have the file open by now, and have removed what this one wrote aside.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path)
