"""The relay file: a TOML file in which the user lists relay servers that this node may use (R11)::

    [[relay]]
    contact = "egtp:<peerId>.<record>"   # a contact link; with its record no lookup is needed
    [[relay]]
    contact = "egtp:<peerId>"            # looked up when needed
    note = "my friend's"                 # optional free text

Pure: bytes in, introductions out. Every error is an :class:`InvalidConfig` that says where it is
and what to do. An unknown key is an error too: most likely it is a misspelt known one.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

from egtp.discovery_service import Introduction
from egtp.errors import InvalidConfig, ProtocolError
from egtp.values.contact_link import ContactLink
from egtp.values.identity import NodeId

__all__ = ["FILE_BYTES_MAX", "RELAYS_MAX", "parse_relay_file"]

FILE_BYTES_MAX: Final = 2**20
"""The largest file that is read: far more than any list that a person maintains."""

RELAYS_MAX: Final = 1000
"""The most relays that a file may list: verifying their records takes a tenth of a second."""

_QUOTED_CHARACTERS_MAX: Final = 60


def parse_relay_file(data: bytes, source: str) -> tuple[Introduction, ...]:
    """The relay servers in ``data``, in file order; there may be none.

    ``source`` names the file in messages. Raises :class:`InvalidConfig` for any error, saying where
    it is and what to do.
    """
    document = _parse_toml(data, source)
    for key in document:
        if key != "relay":
            raise InvalidConfig(
                f"{source}: unknown key {_quote(key)}; the file holds [[relay]] entries only"
            )
    entries = document.get("relay", [])
    if not isinstance(entries, list):
        raise InvalidConfig(f"{source}: write [[relay]], in two brackets, above each relay")
    if len(entries) > RELAYS_MAX:
        raise InvalidConfig(
            f"{source}: {len(entries)} relays; delete some, at most {RELAYS_MAX} are allowed"
        )
    introductions: dict[NodeId, Introduction] = {}
    for number, entry in enumerate(entries, start=1):
        introduction = _parse_entry(entry, f"{source}: relay entry {number}")
        peer_id = introduction.peer_id
        if peer_id in introductions:
            first = list(introductions).index(peer_id) + 1
            raise InvalidConfig(
                f"{source}: relay entry {number} names the same relay as entry {first} "
                f"({peer_id}); delete one of the two"
            )
        introductions[peer_id] = introduction
    return tuple(introductions.values())


def _parse_toml(data: bytes, source: str) -> dict[str, Any]:
    if len(data) > FILE_BYTES_MAX:
        raise InvalidConfig(
            f"{source}: larger than {FILE_BYTES_MAX} bytes; is this really the relay file?"
        )
    try:
        # Some editors write a byte order mark, which TOML does not allow.
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidConfig(f"{source}: line {line} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise InvalidConfig(f"{source}: nested too deeply to be a relay file") from None
    except ValueError as error:
        # TOMLDecodeError names line and column. An absurdly long number raises plain ValueError.
        raise InvalidConfig(f"{source}: not TOML: {error}; fix it there") from None


def _parse_entry(entry: object, where: str) -> Introduction:
    if not isinstance(entry, dict):
        raise InvalidConfig(f'{where} is not a table; write [[relay]] and contact = "egtp:..."')
    for key, value in entry.items():
        if key not in ("contact", "note"):
            raise InvalidConfig(
                f"{where}: unknown key {_quote(key)}; an entry has contact and, optionally, note"
            )
        if not isinstance(value, str):
            raise InvalidConfig(f"{where}: {key} must be text in double quotes")
    if "contact" not in entry:
        raise InvalidConfig(f'{where} has no contact; add contact = "egtp:..."')
    try:
        link = ContactLink.parse(entry["contact"])
    except ProtocolError as error:
        raise InvalidConfig(
            f"{where}: the contact link {_quote(entry['contact'])} cannot be used: {error}; "
            "copy it again in full"
        ) from None
    return Introduction(link.peer_id, link.record)


def _quote(text: str) -> str:
    shown = text[:_QUOTED_CHARACTERS_MAX]
    return repr(shown if shown == text else f"{shown}...")
