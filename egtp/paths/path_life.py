"""The states of a path, as :class:`~egtp.paths.path.Path` runs on them."""

from __future__ import annotations

from typing import Final

from egtp.state_table import State, StateTable

__all__ = ["PATH_LIFE", "PathEvent", "PathState"]


class PathState(State):
    UNPROVEN = "unproven"
    """The handshake may be a recording: nothing is learned here, and only answers leave."""
    PROVEN = "proven"
    """The other side has shown that it lives in this session, now."""
    SUSPECT = "suspect"
    """Somebody says that the other side does not know the session any more. It is used while there
    is no other, and replaced by a new one."""
    CLOSED = "closed"


class PathEvent(State):
    PROOF = "a packet that only this session can have sealed"
    NOTE = "a note of an unknown session"
    END = "closed, failed, replaced"


PATH_LIFE: Final = StateTable(
    PathState.UNPROVEN,
    [
        (PathState.UNPROVEN, PathEvent.PROOF, PathState.PROVEN),
        (PathState.UNPROVEN, PathEvent.END, PathState.CLOSED),
        (PathState.PROVEN, PathEvent.NOTE, PathState.SUSPECT),
        (PathState.PROVEN, PathEvent.END, PathState.CLOSED),
        (PathState.SUSPECT, PathEvent.END, PathState.CLOSED),
    ],
)
