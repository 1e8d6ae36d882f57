"""Relayed paths: which are kept, and which go when there are too many (pure).

A path through a relay needs no connection of its own: anybody with one connection to the relay can
have any number of paths, each as another made-up peer. So the policy for connections applies to
them, too: those in use stay, idle ones go after a while, and strangers may have only so many. Here
it counts sessions, by their index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egtp.limits.idle_policy import IdlePolicy, Standing, Use
from egtp.paths.path import Path
from egtp.values.identity import NodeId

__all__ = ["RelayedPaths"]


class RelayedPaths:
    """The proven ones. ``why_keep`` says why a path must stay though it is idle."""

    def __init__(
        self,
        *,
        strangers_max: int,
        idle_timeout_s: float,
        idle_timeout_max_s: float,
        why_keep: Callable[[Path], str | None],
    ) -> None:
        self._strangers_max: Final = strangers_max
        self._why_keep: Final = why_keep
        self._paths: dict[int, Path] = {}
        self._policy: IdlePolicy[NodeId] = IdlePolicy(
            idle_timeout_s=idle_timeout_s, idle_timeout_max_s=idle_timeout_max_s
        )

    def __len__(self) -> int:
        return len(self._paths)

    def all(self) -> list[Path]:
        return list(self._paths.values())

    def add(self, path: Path, standing: Standing, now_s: float) -> None:
        index = path.session.index
        self._paths[index] = path
        self._policy.add(index, standing, now_s)
        self._policy.prove(index, path.peer_id, standing, now_s)

    def remove(self, path: Path) -> None:
        """The path is gone. Calling this again does nothing."""
        self._paths.pop(path.session.index, None)
        self._policy.remove(path.session.index)

    def want(self, peer_id: NodeId, now_s: float) -> None:
        """The peer is no longer a stranger."""
        self._policy.promote(peer_id, now_s)

    def of_peer(self, peer_id: NodeId) -> list[Path]:
        """The oldest first."""
        return [self._paths[index] for index in self._policy.of_peer(peer_id)]

    @property
    def is_full(self) -> bool:
        """Whether strangers hold all of their places."""
        return self._policy.count(Standing.STRANGER) >= self._strangers_max

    def least_used(self, now_s: float) -> Path | None:
        """A stranger's path that may make way for another; None if all those whose turn it is to be
        looked at are in use."""
        index = self._policy.least_used(Standing.STRANGER, now_s, self._look)
        return None if index is None else self._paths[index]

    def idle(self, now_s: float) -> list[Path]:
        """The paths that have been unused for longer than they may. The caller removes them."""
        return [self._paths[index] for index in self._policy.idle(now_s, self._look)]

    def _look(self, index: int) -> Use:
        path = self._paths[index]
        return Use(path.used_s, self._why_keep(path))
