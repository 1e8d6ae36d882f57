"""Finding a path to a peer: try what is known, look up what is newer, try that as it is found."""

from __future__ import annotations

import asyncio
from typing import Protocol

from egtp.address_policy import Interface
from egtp.attempts import Attempt, AttemptReason, Cause
from egtp.comm_record import SignedCommRecord
from egtp.comm_strat import TCPStrat
from egtp.config import NodeConfig
from egtp.dialling import Dialler
from egtp.errors import FastFail, FastFailReason, LookupFailed
from egtp.identity import NodeId
from egtp.lookup import LookupService, ending, resolve_stream
from egtp.path import Path
from egtp.peers import Peer
from egtp.race import Race
from egtp.strategy_choice import Contact, Plan, plan

__all__ = ["ReachHost", "Reacher"]


class ReachHost(Protocol):
    """What the search needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def unix_time(self) -> float: ...

    def learn(self, record: SignedCommRecord, source: str) -> bool:
        """Take a verified record. True if it is news."""

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
        self._lookup = lookup
        self._config = config

    async def reach(self, peer: Peer, found: asyncio.Event, *, with_relays: bool = True) -> None:
        """Return once ``peer`` has a path, whoever opened it; ``found`` is set when it has.

        Raises :class:`FastFail` with every attempt. Cancelling it closes what it has opened.
        """
        away_s = peer.away_until_s - self._host.now()
        if away_s > 0:
            raise FastFail(
                f"{peer.peer_id} is going away; it asked to be left alone: {away_s:.1f} s",
                reason=FastFailReason.AWAY,
            )
        race = Race(
            self._dialler.attempt,
            lambda contact: self._plan(contact, with_relays=with_relays),
            self._config.stagger_s,
            found,
        )
        for _ in range(self._config.lookups_max):
            known = self._contact(peer)
            if known is not None and not known.expired:
                race.join(known)
                await race.run()
            if found.is_set() or self._lookup is None:
                break
            await race.run(self._look_up(self._lookup, peer, race))
            if found.is_set() or self._contact(peer) == known:
                break
        last = self._contact(peer)
        if last is not None and not found.is_set():
            # It may have expired, and nothing newer be known to anybody: better than nothing.
            race.join(last)
            await race.run()
        if not found.is_set():
            raise FastFail(f"no way to reach {peer.peer_id}", tuple(race.attempts))

    def _contact(self, peer: Peer) -> Contact | None:
        return peer.contact(self._host.unix_time())

    def _plan(self, contact: Contact, *, with_relays: bool) -> Plan:
        return plan(
            contact,
            self._dialler.backoff,
            me=self._me,
            private_addresses=self._config.private_addresses,
            interfaces=self._host.near,
            now_s=self._host.now(),
            with_relays=with_relays,
        )

    async def _look_up(self, lookup: LookupService, peer: Peer, race: Race) -> None:
        """Let those join the race that are newer than what is known, as they are found."""
        newer_than = peer.record.sequence if peer.record is not None else 0
        started_s, is_found = self._host.now(), False
        cause = Cause(AttemptReason.NOT_FOUND)
        records = resolve_stream(lookup, peer.peer_id, newer_than=newer_than)
        try:
            async with asyncio.timeout(self._config.lookup_timeout_s), ending(records):
                async for record in records:
                    if record.peer_id != peer.peer_id:
                        cause = Cause(AttemptReason.LOOKUP_CONFUSED)
                        break
                    is_found = True
                    self._host.learn(record, "lookup")
                    contact = self._contact(peer)
                    if contact is not None:
                        race.join(contact)
                        # What a service knows by heart is mostly right: it need not ask around.
                        await race.faltered()
        except TimeoutError:
            cause = Cause(AttemptReason.LOOKUP_SILENT)
        except LookupFailed as error:
            said, failure = str(error), error.reason.value
            cause = Cause(AttemptReason(failure), "" if said == failure else said)
        except Exception as error:
            # Whatever the service raises, the search goes on: its failure is one more attempt.
            cause = Cause(AttemptReason.LOOKUP_RAISED, str(error) or type(error).__name__)
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a lookup service raised", "exception": error}
            )
        if not is_found:
            took_s = self._host.now() - started_s
            race.attempts.append(Attempt(None, cause.reason, took_s, cause.detail))

    async def renew(self, peer: Peer, path: Path) -> None:
        """Replace a session by a new one over the same route, if that works."""
        contact = self._contact(peer)
        if contact is None:
            return
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            strategy = TCPStrat(strategy.address)
        await self._dialler.attempt(strategy, contact)
