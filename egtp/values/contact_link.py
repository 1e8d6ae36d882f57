"""Contact links, which people give to each other to be reached."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from egtp.errors import InvalidRecord, LocalProtocolError
from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import NodeId

__all__ = ["ContactLink"]

LINK_RECORD_CHARACTERS_MAX: Final = 1400
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class ContactLink:
    """A link that one person gives to another to be reached: ``egtp:<peerId>``, or
    ``egtp:<peerId>.<record>`` with the signed record in it. ``str()`` gives its text."""

    peer_id: NodeId
    record: SignedCommRecord | None = None

    @classmethod
    def parse(cls, text: str) -> ContactLink:
        """Read a link from text.

        Raises :class:`LocalProtocolError` if it is not a link, and :class:`InvalidRecord` if the
        record in it is invalid or another peer's.
        """
        scheme, colon, rest = text.strip().partition(":")
        if not colon or scheme.lower() != "egtp":
            raise LocalProtocolError(
                f"a contact link starts with egtp:, unlike {text[:40]!r}; a peerId alone is not a "
                "contact, and needs none where there is a lookup service"
            )
        name, dot, tail = rest.partition(".")
        peer_id = NodeId.parse(name)
        if not dot:
            return cls(peer_id)
        try:
            if len(tail) > LINK_RECORD_CHARACTERS_MAX or not _BASE64URL.fullmatch(tail):
                raise ValueError("not base64url")
            data = base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4))
        except (binascii.Error, ValueError):
            raise LocalProtocolError("the record in the contact link is not base64url") from None
        record = SignedCommRecord.decode(data)
        if record.peer_id != peer_id:
            raise InvalidRecord("the record in the contact link is of another peer")
        return cls(peer_id, record)

    def __str__(self) -> str:
        if self.record is None:
            return f"egtp:{self.peer_id}"
        tail = base64.urlsafe_b64encode(self.record.encode()).rstrip(b"=").decode("ascii")
        return f"egtp:{self.peer_id}.{tail}"
