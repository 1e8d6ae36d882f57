"""Trace: everything that happened on the network, in order, as one number.

Two runs with equal digests were the same run, byte for byte: every packet, its source, target and
time. Lines are kept only on request, for example to find where two runs differ.
"""

from __future__ import annotations

import hashlib

from simulations.virtual.nat import Endpoint

__all__ = ["Trace"]


class Trace:
    """The record of a run: one entry per packet sent (whether it arrives or not), connection and
    fault. With ``keep``, it has ``lines`` to read."""

    def __init__(self, *, keep: bool = False) -> None:
        self.lines: list[str] | None = [] if keep else None
        self.entries = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def packet(
        self, at_s: float, kind: str, source: Endpoint, target: Endpoint, data: bytes = b""
    ) -> None:
        """Add a packet, or an event of a connection."""
        line = f"{at_s:.9f} {kind} {source[0]} {source[1]} > {target[0]} {target[1]} {len(data)}"
        self.entries += 1
        self._hash.update(f"{line}\n".encode())
        self._hash.update(data)
        if self.lines is not None:
            content = hashlib.blake2b(data, digest_size=4).hexdigest() if data else "-"
            self.lines.append(f"{line} {content}")

    def note(self, at_s: float, text: str) -> None:
        """Add anything else, such as a fault."""
        line = f"{at_s:.9f} {text}"
        self.entries += 1
        self._hash.update(f"{line}\n".encode())
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """The digest of all entries so far, as hexadecimal digits."""
        return self._hash.hexdigest()
