"""The states of a path, on which :class:`~egtp.paths.path.Path` runs."""

from __future__ import annotations

from typing import Final

from egtp.state_table import State, StateTable

__all__ = ["PATH_LIFE", "PathEvent", "PathState"]


class PathState(State):
    UNPROVEN = "unproven"
    """The handshake may be a replay: nothing is learned from it, and only answers leave."""
    PROVEN = "proven"
    """The other side has shown that it is alive in this session, now."""
    SUSPECT = "suspect"
    """A note claims that the other side no longer knows the session. The path is used while there
    is no other, and is to be replaced."""
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
