"""A file of the peers that may connect, which its user may edit while the node runs::

# our fleet: one peer a line, by its peerId or a contact link
rp5rig56d3tfhereewj6exddm2cixipx    # the gateway
egtp:nr76pkpzmzbfdfo3bq4rcp3uevns2z7o
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from egtp.errors import InvalidConfig, ProtocolError
from egtp.values.identity import NodeId
from egtp.watched_file import WatchedFile

__all__ = ["AdmissionFile", "parse_admission_file"]

FILE_BYTES_MAX: Final = 2**22
"""Room for a hundred thousand peers; reading these takes a fraction of a second."""


class AdmissionFile:
    """The peers in the file at ``path`` may connect: for ``Node(admit=...)``. An edit is noticed
    within two intervals; who is connected stays so until it is disconnected.

    Use it with ``async with``, or call :meth:`start` and :meth:`close`. Before the start and after
    the end, nobody is admitted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        poll_interval_s: float = 1.0,
        on_change: Callable[[], object] | None = None,
        on_error: Callable[[InvalidConfig], None] | None = None,
    ) -> None:
        """
        :param path: a text file with a peerId or contact link in each line; ``#`` begins a comment.
        :param poll_interval_s: seconds between two checks of the file.
        :param on_change: called on the event loop when others are admitted than before.
        :param on_error: called on the event loop, once for each change of the file that cannot be
            used; the last good list stays in use. By default such an error is logged as a warning.

        Raises :class:`InvalidConfig` for an interval that is not positive and finite.
        """
        self.admitted: frozenset[NodeId] = frozenset()
        """Who is admitted now."""
        self._on_change = on_change
        self._file = WatchedFile(
            path,
            parse_admission_file,
            kind="a text file with peerIds",
            empty_if="nobody is to be admitted",
            bytes_max=FILE_BYTES_MAX,
            poll_interval_s=poll_interval_s,
            changed=self._changed,
            failed=on_error or _log_error,
        )
        self.counters: Final[Counter[str]] = self._file.counters
        """How often a change of the file could not be used: ``edit rejected``, ``file missing``."""

    def __call__(self, peer_id: NodeId) -> bool:
        """Whether the peer is admitted."""
        return peer_id in self.admitted

    def start(self) -> None:
        """Read the file now, and watch it from now on. Does nothing if already started.

        Raises :class:`InvalidConfig` if the file is missing or invalid, and does not watch it then;
        :class:`WrongLoop` without a running loop.
        """
        if not self._file.is_watched:
            self.admitted = self._file.start()

    def close(self) -> None:
        """Stop watching, and admit nobody any more."""
        self._file.close()
        self.admitted = frozenset()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _changed(self, admitted: frozenset[NodeId]) -> None:
        if admitted == self.admitted:
            return
        self.admitted = admitted
        if self._on_change is not None:
            self._on_change()


def parse_admission_file(data: bytes, source: str) -> frozenset[NodeId]:
    """The peers in ``data``. ``source`` names the file in messages. Raises :class:`InvalidConfig`
    for any error, saying where it is and what to do."""
    if len(data) > FILE_BYTES_MAX:
        raise InvalidConfig(
            f"{source}: larger than {FILE_BYTES_MAX} bytes; is this really the file of peerIds?"
        )
    admitted = set()
    # Some editors write a byte order mark.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        text = line.partition(b"#")[0].strip().decode("utf-8", "replace")
        if not text:
            continue
        scheme, colon, link = text.partition(":")
        if colon and scheme.lower() == "egtp":
            text = link.partition(".")[0]  # The record in the link does not matter here.
        try:
            admitted.add(NodeId.parse(text))
        except ProtocolError as error:
            raise InvalidConfig(
                f"{source}: line {number}: {error}; write one peerId or contact link a line"
            ) from None
    return frozenset(admitted)


def _log_error(error: InvalidConfig) -> None:
    logging.getLogger(__name__).warning("%s; who was admitted before still is", error)
