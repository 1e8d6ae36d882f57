"""Finding a path to a peer: try what is known, and look up newer records as soon as that falters.

Each record is tried as soon as it is found, beside what is still under way.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from egtp.config import NodeConfig
from egtp.errors import FastFail, FastFailReason
from egtp.lookup import LookupService
from egtp.paths.path import Path
from egtp.reaching.address_policy import Interface
from egtp.reaching.dialling import Dialler
from egtp.reaching.peer import Peer
from egtp.reaching.race import Race
from egtp.reaching.shared_lookup import SharedLookups
from egtp.reaching.strategy_choice import Plan, plan
from egtp.values.attempts import Attempt
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["ReachHost", "Reacher"]

CONTACTS_MAX: Final = 8
"""How many records of a peer one search dials. Each names up to eight addresses, which may be
anybody's, and a peer that signs ever newer ones could add one for each DHT node that is asked."""


class ReachHost(Protocol):
    """What the search needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def unix_time(self) -> float: ...

    def learn(self, record: SignedCommRecord, source: str) -> bool:
        """Take a verified record. True if it is newer than what was known."""

    @property
    def near(self) -> tuple[Interface, ...]:
        """The local networks in which private addresses may be dialled."""


class Reacher:
    """Searches for paths, for one node."""

    def __init__(
        self,
        host: ReachHost,
        me: NodeId,
        dialler: Dialler,
        lookup: LookupService | None,
        config: NodeConfig,
    ) -> None:
        self._host = host
        self._me = me
        self._dialler = dialler
        self._lookups = (
            None
            if lookup is None
            else SharedLookups(
                lookup, lambda record: host.learn(record, "lookup"), config.lookup_timeout_s
            )
        )
        self._config = config

    async def reach(
        self, peer: Peer, found: asyncio.Future[None], *, with_relays: bool = True
    ) -> None:
        """Return once ``peer`` has a path, whichever end opened it; ``found`` is done then.

        Raises :class:`FastFail`, which lists every attempt. Cancelling closes whatever was opened.
        """
        away_s = peer.away_until_s - self._host.now()
        if away_s > 0:
            raise FastFail(
                f"{peer.peer_id} is closing; it asked to be left alone for {away_s:.1f} s",
                reason=FastFailReason.AWAY,
                retry_after_s=away_s,
            )
        race = Race(
            self._dialler.attempt,
            lambda contact: self._plan(peer, contact, with_relays=with_relays),
            self._config.stagger_s,
            found,
            self._config.relay_timeout_s,
        )
        for _ in range(self._config.lookups_max):
            known = self._contact(peer)
            if known is not None and not known.expired:
                race.join(known)
            scout = None if self._lookups is None else self._look_up(self._lookups, peer, race)
            await race.run(scout)
            is_enough = race.contacts >= CONTACTS_MAX
            if found.done() or is_enough or self._contact(peer) == known:
                break
        if found.done():
            return
        last = self._contact(peer)
        if last is not None:
            # Even if it has expired, it is worth a try when nobody knows a newer one.
            race.join(last)
            await race.run()
        if not found.done():
            why = self._why_not(peer, last)
            raise FastFail(f"no way to reach {peer.peer_id}{why}", tuple(race.attempts))

    def _why_not(self, peer: Peer, contact: Contact | None) -> str:
        """Why nothing could be attempted; empty if the attempts tell enough."""
        if contact is not None:
            return "" if contact.tcp or contact.relays else ": its record names none"
        if peer.record is not None:
            return ": its record names no channel key that can be used here"
        if self._lookups is None:
            return ": nothing is known of it, and there is no lookup service"
        return ""

    def may_dial(self, peer: Peer) -> bool:
        """Whether an address of the peer is known that may be dialled now."""
        contact = self._contact(peer)
        return contact is not None and bool(self._plan(peer, contact, with_relays=False).tcp)

    def _contact(self, peer: Peer) -> Contact | None:
        return peer.contact(self._host.unix_time())

    def _plan(self, peer: Peer, contact: Contact, *, with_relays: bool) -> Plan:
        return plan(
            contact,
            self._dialler.backoff,
            me=self._me,
            private_addresses=self._config.private_addresses,
            interfaces=self._host.near,
            now_s=self._host.now(),
            with_relays=with_relays,
            dead_ends=peer.dead_ends(self._host.now()),
        )

    async def _look_up(self, lookups: SharedLookups, peer: Peer, race: Race) -> None:
        """Have newer records join the race as they are found."""
        if race.contact is not None:
            await race.faltered()
        started_s = self._host.now()
        lookup = lookups.of(peer.peer_id, peer.record.sequence if peer.record is not None else 0)
        first = seen = lookup.found
        async with lookup:
            while race.contacts < CONTACTS_MAX and await lookup.more(seen):
                seen = lookup.found
                contact = self._contact(peer)
                if contact is not None:
                    race.join(contact)
                    # What a service has cached is mostly right, so it need not ask around yet.
                    await race.faltered()
        if seen == first:
            took_s, cause = self._host.now() - started_s, lookup.cause
            race.attempts.append(Attempt(None, cause.reason, took_s, cause.detail))

    async def renew(self, peer: Peer, path: Path) -> None:
        """Replace a session with a new one over the same route, if that works."""
        contact = self._contact(peer)
        if contact is None:
            return
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            strategy = TCPStrat(strategy.address)
        await self._dialler.attempt(strategy, contact)
