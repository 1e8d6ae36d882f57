"""Dialling: one strategy, one handshake, one outcome.

A message travels with a dial only if its caller asked for that, or if a copy was given away before,
and with one dial at a time. So however many strategies a search tries, all other messages can still
fail fast.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from egtp.config import NodeConfig
from egtp.errors import FastFail, HandshakeFailed, NotSent
from egtp.paths.channels import SecureChannels
from egtp.paths.handshakes import Dial
from egtp.paths.path import Path
from egtp.queries.early import TOO_LATE, Early
from egtp.reaching.strategy_choice import Backoff
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.values.attempts import Attempt, AttemptReason, Cause
from egtp.values.comm_strat import Carrier, CommStrat, RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["DialHost", "Dialler"]

INITIATION_AGAIN_S: Final = 1.0
"""A relayed initiation is repeated this often: the relay may have dropped it."""
ADDRESS_FAILED: Final = (AttemptReason.REFUSED, AttemptReason.SILENT, AttemptReason.UNREACHABLE)
"""Failures that are the fault of the address, not of the record that named it: a record with an
invalid key must not put the addresses of other peers on back-off."""


class DialHost(Protocol):
    """What a dial needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def carrier(self, peer_id: NodeId, early: Early | None = None) -> Carrier:
        """What moves packets to a peer. ``early`` travels with them, and is marked as given before
        one goes to a socket."""

    def early_for(self, contact: Contact) -> Early | None:
        """What may travel with a dial of ``contact``."""

    def early_is_over(self, contact: Contact, early: Early) -> None:
        """The dial that carried ``early`` has ended."""

    async def connect_relay(self, relay: RelayStrat) -> None:
        """Make sure that there is a direct path to a relay. Raises :class:`FastFail`."""

    def expect_hint(self, packet: bytes, tell: Callable[[Cause], None]) -> Callable[[], None]:
        """Have ``tell`` called if a relay says that it could not pass ``packet`` on. Returns a
        function that ends this."""


class Patience:
    """How long to wait for the answer to a dial, and when to repeat the dial meanwhile."""

    __slots__ = ("_deadline_s", "_dial", "_now", "_timer")

    def __init__(self, dial: Dial, now: Callable[[], float], deadline_s: float) -> None:
        self._dial = dial
        self._now = now
        self._deadline_s = deadline_s
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        left_s = self._deadline_s - self._now()
        if left_s <= 0:
            self._dial.done(Cause(AttemptReason.SILENT))
            return
        step_s = min(left_s, INITIATION_AGAIN_S) if self._dial.relayed else left_s
        self._timer = asyncio.get_running_loop().call_later(step_s, self._is_over)

    def _is_over(self) -> None:
        if self._dial.relayed and self._now() < self._deadline_s:
            try:
                self._dial.send()
            except NotSent as error:
                self._dial.done(Cause.of(error.reason))
                return
        self._wait()


class Dialler:
    """Tries strategies, for one node."""

    def __init__(
        self,
        host: DialHost,
        channels: SecureChannels,
        comms: TCPCommsHandler,
        config: NodeConfig,
    ) -> None:
        self._host = host
        self._channels = channels
        self._comms = comms
        self._config = config
        self.backoff: Final = Backoff()
        self._networks = 0
        """How often this machine has changed networks."""

    def network_changed(self) -> None:
        """This machine is on another network, or back on one: no failure so far, nor that of a dial
        under way, says anything any more."""
        self.backoff.forget()
        self._networks += 1

    async def attempt(self, strategy: CommStrat, contact: Contact) -> Attempt | None:
        """Try ``strategy`` once, and again if it fails on a network that this machine has left by
        then. None if that opened a path, which the channels have announced by then. Cancelling
        closes whatever was opened."""
        started_s = self._host.now()
        while True:
            network = self._networks
            if isinstance(strategy, TCPStrat):
                cause = await self._attempt_tcp(strategy, contact)
            else:
                cause = await self._attempt_relay(strategy, contact)
            if cause is None:
                return None
            if network == self._networks:
                return Attempt(strategy, cause.reason, self._host.now() - started_s, cause.detail)

    async def _attempt_tcp(self, strategy: TCPStrat, contact: Contact) -> Cause | None:
        try:
            connection = self._comms.open(strategy)
        except NotSent as error:
            return Cause.of(error.reason)
        until_s = self._host.now() + self._config.dial_timeout_s
        network = self._networks
        cause: Cause | None = Cause.of("given up: another way was found first")
        try:
            cause = await self._handshake(contact, connection.strategy, until_s)
            if cause == Cause(AttemptReason.SILENT) and connection.is_open:
                cause = Cause(AttemptReason.NO_HANDSHAKE)
            elif cause and cause.reason is AttemptReason.LOST and not connection.was_open:
                cause = Cause(AttemptReason.UNREACHABLE, cause.detail)
        finally:
            # If it was cancelled in the very turn in which it succeeded, the path stays.
            if cause is not None and self._channels.path_of(connection.number) is None:
                connection.abort(cause.detail or cause.reason)
        # An address that somebody answers at works, even if it is another peer.
        if connection.was_open:
            self.backoff.worked(strategy.address)
        elif cause is not None and cause.reason in ADDRESS_FAILED and network == self._networks:
            self.backoff.failed(strategy.address, self._host.now(), str(cause))
        return cause

    async def _attempt_relay(self, strategy: RelayStrat, contact: Contact) -> Cause | None:
        try:
            await self._host.connect_relay(strategy)
        except FastFail as error:
            # The relay is named before this. Commas, since semicolons are between the attempts of
            # which this is one.
            attempts = ", ".join(map(str, error.attempts))
            return Cause(AttemptReason.RELAY_UNREACHABLE, attempts or error.summary)
        until_s = self._host.now() + self._config.relay_timeout_s
        cause = await self._handshake(contact, strategy, until_s)
        while cause == Cause.of(TOO_LATE):
            # The other queries must not end with the one that travelled: dial without that.
            cause = await self._handshake(contact, strategy, until_s)
        is_silent = cause == Cause(AttemptReason.SILENT)
        return Cause(AttemptReason.RELAY_SILENT) if is_silent else cause

    async def _handshake(
        self, contact: Contact, strategy: CommStrat, until_s: float
    ) -> Cause | None:
        """None if it succeeded, otherwise why it failed."""
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
        patience = Patience(dial, self._host.now, until_s)
        try:
            outcome = await result
        finally:
            patience.end()
            forget_hint()
            self._channels.abandon(dial)
            if early is not None:
                self._host.early_is_over(contact, early)
        return outcome if isinstance(outcome, Cause) else None
