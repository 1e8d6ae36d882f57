"""The board: a live table of what each node does, for a terminal."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from egtp import NodeClosed, NodeId, RelayStrat
from egtp.events import (
    Dialling,
    Event,
    IdentityRunsElsewhere,
    LeaseNotGranted,
    PathLost,
    PathOpened,
    RecordLearned,
    RecordNotPublished,
    RecordPublished,
    SearchFailed,
)
from simulations.cluster import Cluster
from simulations.member import Member, Role

__all__ = ["Board", "told"]

LINES_BESIDE: Final = 12
"""Terminal lines not used for rows: the table's frame and heading, and some story above it."""
ROWS_MIN: Final = 4


class Board:
    """Redrawn whenever it is printed. :meth:`note` is the observer of every member."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._last: dict[Member, str] = {}
        self._met: dict[Member, dict[NodeId, None]] = {}

    def show(self, cluster: Cluster) -> None:
        """Show this cluster from now on."""
        self._cluster = cluster
        self._last.clear()
        self._met.clear()

    def note(self, member: Member, event: Event) -> None:
        if self._cluster is None:
            return
        self._last[member] = told(event, self._cluster)
        if isinstance(event, PathOpened):
            self._met.setdefault(member, {})[event.peer_id] = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._cluster is None:
            return
        members = [member for role in Role for member in self._cluster.those(role)]
        room = max(ROWS_MIN, console.height - LINES_BESIDE)
        more = len(members) - room
        table = Table(
            box=SIMPLE_HEAD, expand=True, caption=f"and {more} more" if more > 0 else None
        )
        table.add_column("node", no_wrap=True, style="bold")
        table.add_column("role", no_wrap=True)
        table.add_column("address", no_wrap=True)
        table.add_column("talks to", no_wrap=True, ratio=4)
        table.add_column("last event", no_wrap=True, ratio=4, style="dim")
        for member in members[:room]:
            table.add_row(
                member.name,
                member.role.value,
                member.host,
                "gone" if member.gone else self._talks_to(member, self._cluster),
                self._last.get(member, ""),
                style="dim" if member.gone else None,
            )
        yield table

    def _talks_to(self, member: Member, cluster: Cluster) -> str:
        relays = {relay.node_id for relay in cluster.those(Role.RELAY)}
        connected = 0
        words = []
        for peer_id in self._met.get(member, ()):
            try:
                path = next(iter(member.node.why(peer_id).paths), None)
            except NodeClosed:
                path = None
            if path is None:
                continue
            if member.role is Role.RELAY or peer_id in relays:
                connected += 1
            else:
                how = "direct" if path.startswith("tcp ") else f"via {cluster.words(path)}"
                words.append(f"{cluster.words(peer_id)} {how}")
        if connected:
            words.append(f"{connected} {'peers' if member.role is Role.RELAY else 'relays'}")
        return ", ".join(words)


def told(event: Event, cluster: Cluster) -> str:  # noqa: PLR0911 - a line for each kind
    """An event as text."""
    match event:
        case Dialling(address):
            return f"dials {address}"
        case PathOpened(peer_id, strategy):
            how = f"by {cluster.words(strategy)}" if isinstance(strategy, RelayStrat) else "direct"
            return f"reached {cluster.words(peer_id)} {how}"
        case PathLost(peer_id, _, reason):
            return f"lost {cluster.words(peer_id)}: {reason}"
        case RecordLearned(record, source):
            return f"learned of {cluster.words(record.peer_id)}: {source}"
        case RecordPublished(_, published):
            return f"record stored by {published.stored}"
        case RecordNotPublished(_, reason):
            return f"record not stored: {reason}"
        case IdentityRunsElsewhere(record):
            return f"a copy of it signed record {record.sequence}"
        case LeaseNotGranted(relay_id, reason):
            return f"no lease at {cluster.words(relay_id)}: {reason}"
        case SearchFailed(peer_id):
            return f"found no way to {cluster.words(peer_id)}"
