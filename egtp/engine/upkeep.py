"""Upkeep: regular checks for paths that are silent, superseded or old, and for searches due."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

from egtp.channel.session import COUNTER_LIMIT
from egtp.config import NodeConfig
from egtp.engine.asking import Asking
from egtp.engine.routes import ANOTHER_WAY, Routes
from egtp.engine.searching import Searching
from egtp.paths.channels import SecureChannels
from egtp.paths.path import Path
from egtp.paths.silence import Verdict
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.relay.relaying import Relaying
from egtp.values.comm_strat import RelayStrat
from egtp.values.identity import NodeId

__all__ = ["Upkeep"]

DRAIN_S: Final = 5.0
"""How long a superseded path without work is kept: what is under way on it still arrives."""
ALL_AGAIN_S: Final = 10.0
"""How often each peer at rest is looked at."""


class Upkeep:
    """Looks at all peers of a node, more often at those with which something is going on."""

    def __init__(
        self,
        me: NodeId,
        book: PeerBook,
        channels: SecureChannels,
        searching: Searching,
        routes: Routes,
        relaying: Relaying,
        asking: Asking,
        config: NodeConfig,
        counters: Counter[str],
    ) -> None:
        self._me = me
        self._book = book
        self._channels = channels
        self._searching = searching
        self._routes = routes
        self._relaying = relaying
        self._asking = asking
        self._config = config
        self._counters = counters
        self._at_rest: list[Peer] = []
        """Peers whose turn in this round is still to come."""
        self._looked_at_s = float("-inf")

    def look(self, now: float) -> None:
        """Call this now and then. It finds silent peers, superseded paths without work and searches
        to repeat. Peers at rest are looked at less often, a few at a time."""
        relays = self._relays_in_use()
        watched = self._book.watched
        for peer_id in (*self._asking.exchanges.peers(), *relays):
            asked = self._book.find(peer_id)
            if asked is not None:
                watched[asked] = None
        for peer in self._next_at_rest(now):
            if self._is_restless(peer, now):
                watched[peer] = None
            else:
                self._renew_when_old(peer, now)
        for peer in list(watched):
            self._look_at(peer, now, is_relay=peer.peer_id in relays)
            if not self._is_restless(peer, now):
                del watched[peer]
        self._routes.end_idle(now)

    def _next_at_rest(self, now: float) -> list[Peer]:
        """As many as it takes to see each of them every ``ALL_AGAIN_S``: thousands at once would
        hold up the event loop."""
        share = min(1.0, (now - self._looked_at_s) / ALL_AGAIN_S)
        self._looked_at_s = now
        if not self._at_rest:
            self._at_rest = self._book.all()
        count = math.ceil(share * len(self._book))
        some, self._at_rest = self._at_rest[:count], self._at_rest[count:]
        return some

    def _is_restless(self, peer: Peer, now: float) -> bool:
        if peer.waiting or peer.superseded or peer.retired or peer.direct_due_s < math.inf:
            return True
        for path in (peer.direct, peer.relayed):
            if path is not None and (
                path.outbox or path.silence.is_asked or self._needs_life(path, now)
            ):
                return True
        return False

    def _needs_life(self, path: Path, now: float) -> bool:
        """Whether others depend on the peer's being there: it is a relay's recipient that has said
        nothing since a packet was passed on to it, or :meth:`_is_kept_in_silence`. A recipient
        usually answers what it gets."""
        return path.passed_on_s > path.heard_s or self._is_kept_in_silence(path, now)

    def _is_kept_in_silence(self, path: Path, now: float) -> bool:
        """Whether a path has long been silent while its peer's queries are being answered, or
        something waits to be sent there. A peer that waits for an answer usually asks for a sign of
        life, and so gives one; a peer that reads gives one, too."""
        asker = path.asker
        is_kept = path.outbox or (asker is not None and asker.running > 0)
        return bool(is_kept) and now - path.heard_s > self._config.idle_timeout_s

    def _look_at(self, peer: Peer, now: float, *, is_relay: bool) -> None:
        self._searching.look(peer, now)
        self._listen(peer, now, is_relay=is_relay)
        self._renew_when_old(peer, now)
        for path in peer.paths:
            path.look(now)
        for path, since_s in list(peer.superseded.items()):
            if path.heard_s - since_s > DRAIN_S:
                peer.settle(path, self._me, now)
        for path in peer.others:
            if not path.outbox and now - path.used_s > DRAIN_S:
                self._routes.lose(path, "superseded by another path")

    def _relays_in_use(self) -> dict[NodeId, None]:
        """The relays through which answers are awaited, and those of this node that it has told
        something since it last heard of them: it may have answered in vain. In an order that
        depends on no hash."""
        strategies = self._channels.relays_dialled()
        for peer_id in self._asking.exchanges.peers():
            peer = self._book.find(peer_id)
            if peer is not None and peer.relayed is not None:
                strategies.append(peer.relayed.strategy)
        relays = {one.relay_id: None for one in strategies if isinstance(one, RelayStrat)}
        for relay_id in self._relaying.own_relays:
            relay = self._book.find(relay_id)
            path = None if relay is None else relay.direct
            if path is not None and path.wrote_s >= path.heard_s:
                relays[relay_id] = None
        return relays

    def _listen(self, peer: Peer, now: float, *, is_relay: bool) -> None:
        """Notice when a path that something here depends on no longer leads to anybody."""
        waited_for = self._searching.is_asked(peer)
        direct, best = peer.direct, peer.best_path
        for path in peer.paths:
            is_relays = is_relay and path is peer.direct
            # Asked on and on, a superseded path would never be quiet, and stay for as long as
            # queries are open: it is asked only if nothing has come on it since.
            is_waited_for = waited_for and path.heard_s <= peer.superseded.get(path, math.inf)
            is_wanted = is_waited_for or is_relays or self._needs_life(path, now)
            if not (is_wanted or path.silence.is_asked):
                continue
            allowed_s = self._config.silent_path_s
            verdict = path.silence.look(now, path.heard_s, allowed_s, is_wanted=is_wanted)
            if verdict is Verdict.DOUBT:
                peer.fell_silent(path, now)
            match verdict:
                case Verdict.ASK:
                    path.ask_for_sign_of_life()
                case Verdict.DOUBT if is_relays or (waited_for and path in (direct, best)):
                    # The peer may have a new address by now without knowing it yet; or the relay
                    # that leads to it is gone, and another one is not.
                    self._searching.seek_beside(peer, now, only_direct=is_relays)
                case Verdict.DOUBT if path in peer.superseded:
                    self._routes.lose(path, ANOTHER_WAY, at_once=True)
                case Verdict.GIVE_UP:
                    self._counters["path given up: silent"] += 1
                    self._routes.lose(path, f"silent for {now - path.heard_s:.0f} s", at_once=True)
                case Verdict.FINE | Verdict.DOUBT:
                    pass

    def _renew_when_old(self, peer: Peer, now: float) -> None:
        """The side that dialled replaces a session after ``rekey_s``, or after too many packets:
        keys do not last for ever, and neither does the clock inside a session."""
        for path in (peer.direct, peer.relayed):
            if (
                path is not None
                and path.dialled
                and (
                    now - path.session.started_s > self._config.rekey_s
                    or path.session.sent > COUNTER_LIMIT
                )
            ):
                self._searching.renew(peer, path, now)
