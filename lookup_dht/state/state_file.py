"""What a node keeps between runs: its id, its contacts, and the records it holds.

The file is JSON, never pickle, and is not trusted: records are verified again before they are
stored, and contacts are pinged before they enter the table.
"""

from __future__ import annotations

import base64
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from egtp.errors import InvalidConfig
from egtp.values.identity import NODE_ID_BYTES
from egtp.whole_file import mode_at, replace_file
from lookup_dht.wire.contact import Contact, pack_ip

__all__ = ["CorruptState", "NodeState", "read_state", "set_aside", "write_state"]

FORMAT: Final = 1
HEAD: Final = b'{"format":'
FILE_BYTES_MAX: Final = 64 * 1024 * 1024


class CorruptState(Exception):
    """The file exists and can be read, but is damaged or not a state file."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A snapshot of a node's state; immutable, so that another thread may write it.
    :class:`KeptState` reads and writes it, and :class:`DHTLookup` takes and gives it."""

    node_id: bytes
    """20 bytes."""
    network: str
    contacts: tuple[Contact, ...] = ()
    """Nodes to join through."""
    records: tuple[tuple[bytes, bytes], ...] = ()
    """(peerId, bytes) pairs."""

    def encode(self) -> bytes:
        """Its bytes in a file, as JSON."""
        return json.dumps(
            {
                "format": FORMAT,
                "network": self.network,
                "node_id": self.node_id.hex(),
                "contacts": [[it.id.hex(), it.ip, it.port] for it in self.contacts],
                "records": [
                    [peer_id.hex(), base64.b64encode(data).decode("ascii")]
                    for peer_id, data in self.records
                ],
            },
            indent=1,
        ).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> NodeState:
        """From :meth:`encode`. Raises :class:`CorruptState`."""
        try:
            return cls._of(json.loads(data))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptState(f"{type(error).__name__}: {error}") from None

    @classmethod
    def _of(cls, fields: Any) -> NodeState:
        if fields["format"] != FORMAT:
            raise ValueError("another format")
        node_id = bytes.fromhex(fields["node_id"])
        if len(node_id) != NODE_ID_BYTES or not isinstance(fields["network"], str):
            raise ValueError("no node id or network")
        contacts = tuple(
            Contact(bytes.fromhex(contact_id), pack_ip(ip) or b"", port)
            for contact_id, ip, port in fields["contacts"]
        )
        records = tuple(
            (bytes.fromhex(peer_id), base64.b64decode(record, validate=True))
            for peer_id, record in fields["records"]
        )
        return cls(node_id, fields["network"], contacts, records)


def read_state(path: Path, *, ours: bool = False) -> NodeState | None:
    """The state in the file; None if there is none.

    Raises :class:`InvalidConfig` if the file cannot be read or was never a state file, and
    :class:`CorruptState` if it is a damaged one. With ``ours``, whatever is there counts as a state
    file.
    """
    try:
        mode = mode_at(path)
        if mode is None:
            return None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InvalidConfig(f"{path} is not a regular file: name another file")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidConfig(f"cannot read the state file {path}: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise CorruptState("the file is larger than any state")
    # A crash may leave a file full of zeros.
    head = b"".join(data[:64].rstrip(b"\0").split())
    if not (ours or head.startswith(HEAD) or HEAD.startswith(head)):
        # Probably another program's file: leave it where it is.
        raise InvalidConfig(f"{path} is not the state of a DHT node: name another file")
    return NodeState.decode(data)


def set_aside(path: Path) -> Path:
    """Rename a corrupt file, and return its new path. Raises :class:`InvalidConfig`."""
    aside = path.with_name(path.name + ".corrupt")
    try:
        path.replace(aside)
    except OSError as error:
        raise InvalidConfig(f"cannot set {path} aside: {error.strerror}") from None
    return aside


def write_state(path: Path, state: NodeState) -> None:
    """Replace the file atomically: a crash leaves either the old one or the new one.

    Raises :class:`InvalidConfig` if it cannot be written.
    """
    try:
        replace_file(path, state.encode())
    except OSError as error:
        raise InvalidConfig(f"cannot write the state file {path}: {error.strerror}") from None
