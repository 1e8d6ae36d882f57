"""Finding a path to a peer: try what is known, look up what is newer, try that.

Strategies are raced with a stagger. Messages travel with a dial only if their caller wants it, or
if they had been given away before, and with one dial at a time. So however many are tried, the
search may end in a fast fail for all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from egtp.address_policy import Interface
from egtp.attempts import Attempt, AttemptReason, Cause
from egtp.channels import SecureChannels
from egtp.comm_record import SignedCommRecord
from egtp.comm_strat import Carrier, CommStrat, RelayStrat, TCPStrat
from egtp.config import NodeConfig
from egtp.early import Early
from egtp.errors import FastFail, FastFailReason, HandshakeFailed, LookupFailed, NotSent
from egtp.identity import NodeId
from egtp.lookup import LookupService
from egtp.path import Path
from egtp.peers import Peer
from egtp.strategy_choice import Backoff, Contact, plan
from egtp.tcp.comms_handler import TCPCommsHandler

__all__ = ["ReachHost", "Reacher"]

INITIATION_AGAIN_S = 1.0
"""A relayed initiation is sent again after this long: the relay may have dropped it."""


class ReachHost(Protocol):
    """What the search needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def unix_time(self) -> float: ...

    def carrier(self, peer_id: NodeId | None, early: Early | None = None) -> Carrier:
        """What moves packets to a peer; ``early`` is what travels with them, which is marked given
        before one goes to a socket."""

    def early_for(self, contact: Contact) -> Early | None:
        """What may travel with a dial of ``contact``."""

    def early_is_over(self, contact: Contact, early: Early) -> None:
        """The dial that carried it has ended."""

    def learn(self, record: SignedCommRecord, source: str) -> bool:
        """Take a verified record. True if it is news."""

    @property
    def near(self) -> tuple[Interface, ...]:
        """The local networks in which private addresses may be dialled."""

    async def connect_relay(self, relay: RelayStrat) -> None:
        """Have a direct path to a relay. Raises :class:`FastFail`."""

    def expect_hint(self, packet: bytes, tell: Callable[[Cause], None]) -> Callable[[], None]:
        """Have ``tell`` called if a relay says that it could not pass ``packet`` on; returns the
        function that ends the expectation."""


class Reacher:
    """Searches for paths, for one node."""

    def __init__(
        self,
        host: ReachHost,
        me: NodeId,
        channels: SecureChannels,
        comms: TCPCommsHandler,
        lookup: LookupService | None,
        config: NodeConfig,
    ) -> None:
        self._host = host
        self._me = me
        self._channels = channels
        self._comms = comms
        self._lookup = lookup
        self._config = config
        self.backoff = Backoff()

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
        attempts: list[Attempt] = []
        tried: Contact | None = None
        for lookups_left in range(self._config.lookups_max, -1, -1):
            contact = peer.contact(self._host.unix_time())
            last_chance = lookups_left == 0
            if (
                contact is not None
                and contact != tried
                and not (contact.expired and not last_chance)
            ):
                tried = contact
                await self._try(contact, found, attempts, with_relays=with_relays)
            if found.is_set():
                return
            if last_chance or not await self._look_up(peer, found, attempts):
                break
        if contact is not None and contact != tried:
            # Expired, and nothing newer is known to anybody: better than nothing, so last.
            await self._try(contact, found, attempts, with_relays=with_relays)
        if not found.is_set():
            raise FastFail(f"no way to reach {peer.peer_id}", tuple(attempts))

    async def _look_up(self, peer: Peer, found: asyncio.Event, attempts: list[Attempt]) -> bool:
        """Ask for a record newer than the one known. True if there is something new to try: found
        here, or by somebody else meanwhile."""
        if self._lookup is None:
            return False
        known = peer.contact(self._host.unix_time())
        await self._resolve(self._lookup, peer, attempts)
        return found.is_set() or peer.contact(self._host.unix_time()) != known

    async def _resolve(self, lookup: LookupService, peer: Peer, attempts: list[Attempt]) -> None:
        newer_than = peer.record.sequence if peer.record is not None else 0
        started_s = self._host.now()
        cause = Cause(AttemptReason.LOOKUP_SILENT)
        try:
            async with asyncio.timeout(self._config.lookup_timeout_s):
                record = await lookup.resolve(peer.peer_id, newer_than=newer_than)
        except Exception as error:
            # Whatever the service raises, the search goes on: its failure is one more attempt.
            if isinstance(error, LookupFailed):
                said = str(error)
                detail = "" if said == error.reason.value else said
                cause = Cause(AttemptReason(error.reason.value), detail)
            elif not isinstance(error, TimeoutError):
                cause = Cause(AttemptReason.LOOKUP_RAISED, str(error) or type(error).__name__)
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a lookup service raised", "exception": error}
                )
            attempts.append(self._attempt_ended(None, cause, started_s))
        else:
            if record.peer_id == peer.peer_id:
                self._host.learn(record, "lookup")
            else:
                cause = Cause(AttemptReason.LOOKUP_CONFUSED)
                attempts.append(self._attempt_ended(None, cause, started_s))

    async def _try(
        self,
        contact: Contact,
        found: asyncio.Event,
        attempts: list[Attempt],
        *,
        with_relays: bool,
    ) -> None:
        """Race the strategies of ``contact``: each begins when the one before it has failed, or
        has had its stagger. The first path wins, and the rest is given up."""
        choice = plan(
            contact,
            self.backoff,
            me=self._me,
            private_addresses=self._config.private_addresses,
            interfaces=self._host.near,
            now_s=self._host.now(),
            with_relays=with_relays,
        )
        attempts += [Attempt(one, cause.reason, 0.0, cause.detail) for one, cause in choice.refused]
        to_begin: list[CommStrat] = [*choice.tcp, *choice.relays]
        winner = asyncio.ensure_future(found.wait())
        racing: set[asyncio.Future[Any]] = {winner}
        try:
            while (to_begin or len(racing) > 1) and not found.is_set():
                if to_begin:
                    racing.add(asyncio.ensure_future(self._attempt(to_begin.pop(0), contact)))
                done, _ = await asyncio.wait(
                    racing,
                    timeout=self._config.stagger_s if to_begin else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for ended in done - {winner}:
                    racing.discard(ended)
                    outcome = ended.result()
                    if isinstance(outcome, Attempt):
                        attempts.append(outcome)
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)

    async def _attempt(self, strategy: CommStrat, contact: Contact) -> Attempt | None:
        """One try. None if it gave a path, which the channels have announced already."""
        started_s = self._host.now()
        if isinstance(strategy, TCPStrat):
            cause = await self._attempt_tcp(strategy, contact)
        else:
            cause = await self._attempt_relay(strategy, contact)
        return None if cause is None else self._attempt_ended(strategy, cause, started_s)

    def _attempt_ended(self, strategy: CommStrat | None, cause: Cause, started_s: float) -> Attempt:
        return Attempt(strategy, cause.reason, self._host.now() - started_s, cause.detail)

    async def renew(self, peer: Peer, path: Path) -> None:
        """Replace a session by a new one over the same route, if that works."""
        contact = peer.contact(self._host.unix_time())
        if contact is None:
            return
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            strategy = TCPStrat(strategy.address)
        await self._attempt(strategy, contact)

    async def _attempt_tcp(self, strategy: TCPStrat, contact: Contact) -> Cause | None:
        try:
            connection = self._comms.open(strategy)
        except NotSent as error:
            return Cause.of(error.reason)
        timeout_s = self._config.dial_timeout_s
        cause: Cause | None = Cause.of("given up: another way was found first")
        try:
            cause = await self._handshake(contact, connection.strategy, timeout_s)
            if cause == Cause(AttemptReason.SILENT) and connection.is_open:
                cause = Cause(AttemptReason.NO_HANDSHAKE)
            elif cause and cause.reason is AttemptReason.LOST and not connection.was_open:
                cause = Cause(AttemptReason.UNREACHABLE, cause.detail)
        finally:
            # Cancelled in the very turn in which it worked, it has won all the same.
            if cause is not None and self._channels.path_of(connection.number) is None:
                connection.abort(cause.detail or cause.reason)
        # An address where somebody else answers is a good address, of another peer.
        if connection.was_open:
            self.backoff.worked(strategy.address)
        else:
            self.backoff.failed(strategy.address, self._host.now())
        return cause

    async def _attempt_relay(self, strategy: RelayStrat, contact: Contact) -> Cause | None:
        try:
            await self._host.connect_relay(strategy)
        except FastFail as error:
            return Cause(AttemptReason.RELAY_UNREACHABLE, str(error))
        cause = await self._handshake(contact, strategy, self._config.relay_timeout_s)
        is_silent = cause == Cause(AttemptReason.SILENT)
        return Cause(AttemptReason.RELAY_SILENT) if is_silent else cause

    async def _handshake(
        self, contact: Contact, strategy: CommStrat, timeout_s: float
    ) -> Cause | None:
        """None if it worked, else what it failed for."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Path | Cause] = loop.create_future()

        def done(outcome: Path | Cause) -> None:
            if not result.done():
                result.set_result(outcome)

        early = self._host.early_for(contact)
        carrier = self._host.carrier(contact.peer_id, early)
        try:
            dial = self._channels.dial(contact, strategy, carrier, done, early)
        except (NotSent, HandshakeFailed) as error:
            if early is not None:
                self._host.early_is_over(contact, early)
            if isinstance(error, NotSent):
                return Cause.of(error.reason)
            return Cause(AttemptReason.BAD_KEY, str(error))
        forget_hint = self._host.expect_hint(dial.packet, done)
        deadline_s = self._host.now() + timeout_s
        try:
            while (left_s := deadline_s - self._host.now()) > 0:
                step_s = min(left_s, INITIATION_AGAIN_S) if dial.relayed else left_s
                await asyncio.wait([result], timeout=step_s)
                if result.done():
                    outcome = result.result()
                    return outcome if isinstance(outcome, Cause) else None
                if dial.relayed:
                    dial.send()
        except NotSent as error:
            return Cause.of(error.reason)
        finally:
            forget_hint()
            self._channels.abandon(dial)
            if early is not None:
                self._host.early_is_over(contact, early)
        return Cause(AttemptReason.SILENT)
