"""XRay: the contents of the packets that Mallory sees, for the judge alone.

Packets are encrypted, so nobody on a line can tell whether a query that supposedly never left did
leave. The judge can: this notes what was sealed into each packet, and who created each session.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import InitiationPayload, Initiator
from egtp.channel.packet import DATA, DATA_HEADER, INITIATION, VERSION, Initiation
from egtp.channel.session import Session
from egtp.paths.path import Path
from egtp.paths.sessions import Sessions
from egtp.values.identity import NodeId

__all__ = ["MARK", "XRay", "marked"]

MARK: Final = re.compile(rb"~\d{10}~")
"""A prefix of a body, unique in its world, by which a query is recognised wherever it turns up."""
_INNER: Final = re.compile(
    re.escape(bytes((DATA, VERSION, 1, 0)))
    + b".{16}|"
    + re.escape(bytes((INITIATION, VERSION, 1, 0)))
    + b".{8}",
    re.DOTALL,
)
"""The header of a packet inside a relay message."""
_RELAY: Final = b"egtp.relay"
_INITIATION_BYTES: Final = 12


def marked(number: int) -> bytes:
    """The mark with this number."""
    return b"~%010d~" % number


class XRay:
    """The marks in each packet, and the two ends of each session."""

    def __init__(self) -> None:
        self._sealed: dict[bytes, frozenset[bytes]] = {}
        self.sessions: Final[dict[tuple[int, int], tuple[NodeId, NodeId]]] = {}
        """By local and remote index, every session ever created: by whom, and with whom."""

    def marks(self, packet: bytes) -> frozenset[bytes]:
        """The marks of the queries and sends in a packet, relayed ones included."""
        size = _INITIATION_BYTES if packet[:1] == bytes((INITIATION,)) else DATA_HEADER.size
        return self._sealed.get(packet[:size], frozenset())

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Within this context, note everything that is sealed in this process."""
        seal, initiate, new_path = Session.seal, Initiator.initiate, Sessions.new

        def noting_seal(session: Session, plaintext: bytes) -> bytes:
            packet = seal(session, plaintext)
            self._note(packet[: DATA_HEADER.size], plaintext)
            return packet

        def noting_initiate(
            initiator: Initiator, payload: InitiationPayload, ephemeral: X25519PrivateKey
        ) -> Initiation:
            initiation = initiate(initiator, payload, ephemeral)
            self._note(initiation.header, payload.early)
            return initiation

        def noting_new_path(sessions: Sessions, peer_id: NodeId, *a: Any, **k: Any) -> Path:
            path = new_path(sessions, peer_id, *a, **k)
            key = (path.session.index, path.session.remote_index)
            self.sessions[key] = (sessions._events.own_record().peer_id, peer_id)
            return path

        places: list[tuple[Any, str, Any, Any]] = [
            (Session, "seal", seal, noting_seal),
            (Initiator, "initiate", initiate, noting_initiate),
            (Sessions, "new", new_path, noting_new_path),
        ]
        for owner, name, _, noting in places:
            setattr(owner, name, noting)
        try:
            yield
        finally:
            for owner, name, plain, _ in places:
                setattr(owner, name, plain)

    def _note(self, key: bytes, plaintext: bytes) -> None:
        found = set(MARK.findall(plaintext))
        if _RELAY in plaintext:
            for inner in _INNER.findall(plaintext):
                found |= self._sealed.get(inner, frozenset())
        if found:
            self._sealed[key] = frozenset(found)
