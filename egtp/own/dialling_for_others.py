"""Dials peers at their request, so that they learn whether their address is reachable.

A stranger must not be able to make this node dial anybody else. So this node dials only the IP
address that it sees on the very connection that the request came by, which only the owner of that
address can have completed: once, at a limited rate, and at no well-known port. It says nothing but
a handshake with no message in it, and accepts nothing in return.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

from egtp.config import NodeConfig
from egtp.errors import HandshakeFailed, InvalidMessage, NotSent, Refusal
from egtp.handling.handlers import Incoming
from egtp.limits.check_quota import CheckQuota
from egtp.own.address_check import REASON_BYTES_MAX, decode_check
from egtp.paths.channels import SecureChannels
from egtp.paths.path import Path
from egtp.reaching.address_policy import DIAL_BACK_PORT_MIN, why_not_dial
from egtp.reaching.peers import PeerBook
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_strat import Address, Carrier, TCPStrat
from egtp.values.identity import NodeId
from egtp.values.message import ReplyCode

__all__ = ["Verifier"]


class VerifierHost(Protocol):
    """What a verifier needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def unix_time(self) -> float: ...

    def carrier(self, peer_id: NodeId) -> Carrier: ...

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here wants, or has wanted, to reach the peer; others are strangers."""


class Verifier:
    """Dials whoever asks for it, within limits."""

    def __init__(
        self,
        host: VerifierHost,
        channels: SecureChannels,
        comms: TCPCommsHandler,
        book: PeerBook,
        config: NodeConfig,
        counters: Counter[str],
    ) -> None:
        self._host = host
        self._channels = channels
        self._comms = comms
        self._book = book
        self._config = config
        self._counters = counters
        self._quota = CheckQuota(config.address_checks_per_minute, config.address_check_interval_s)

    async def check(self, incoming: Incoming) -> bytes:
        """The handler of ``CHECK_KIND``. Returns nothing if a connection was established, else why
        not: a hint for people."""
        try:
            port, token = decode_check(incoming.body)
        except InvalidMessage as error:
            raise self._refusal(str(error)) from None
        seen = incoming.seen_at
        if seen is None:
            raise self._refusal("asked by a way that does not show where the asker is")
        target = Address(seen.ip, port)
        private_addresses = self._config.private_addresses
        reason = why_not_dial(target, private_addresses=private_addresses)
        if reason is not None:
            raise self._refusal(reason)
        if port < DIAL_BACK_PORT_MIN:
            raise self._refusal(f"a port below {DIAL_BACK_PORT_MIN}")
        stranger = not self._host.knows(incoming.peer_id)
        if not self._quota.take(incoming.peer_id, target.ip, self._host.now(), stranger=stranger):
            self._counters["address check refused: too many"] += 1
            raise Refusal(ReplyCode.BUSY)
        failure = await self._knock(incoming.peer_id, target, token)
        return failure.encode("ascii", "replace")[:REASON_BYTES_MAX]

    def _refusal(self, reason: str) -> Refusal:
        self._counters[f"address check refused: {reason}"] += 1
        return Refusal(ReplyCode.REFUSED, reason.encode("ascii", "replace"))

    async def _knock(self, peer_id: NodeId, target: Address, token: bytes) -> str:
        """Connect, say who we are and the token, and hang up. Returns why there was no connection;
        empty if there was one."""
        peer = self._book.find(peer_id)
        contact = None if peer is None else peer.contact(self._host.unix_time())
        if contact is None:
            return "nothing known to dial with"
        timeout_s = self._config.dial_timeout_s
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(outcome: Path | Cause) -> None:
            if not ended.done():
                ended.set_result(str(outcome))

        try:
            connection = self._comms.open(TCPStrat(target))
        except NotSent as error:
            return str(error)
        dial, reason = None, AttemptReason.SILENT.value
        try:
            dial = self._channels.dial(
                contact, connection.strategy, self._host.carrier(peer_id), done, check=token
            )
            async with asyncio.timeout(timeout_s):
                reason = await ended
        except (NotSent, HandshakeFailed) as error:
            reason = str(error)
        except TimeoutError:
            pass
        finally:
            if dial is not None:
                self._channels.abandon(dial)
            connection.abort("checked")
        return "" if connection.was_open else reason
