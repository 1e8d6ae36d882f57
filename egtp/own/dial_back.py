"""Dial-back: asking a peer to dial us, to find out whether the address it sees is of any use.

The proof is the peer's handshake arriving here with our token in it, never its word. The other
side of it is what must not be done for a stranger: nobody can make this node dial anybody but
himself. It dials the IP address that it sees on the very connection that the question came by,
which only its owner can have completed; once, now and then, no well-known port, and it says
nothing but a handshake, with no message in it, and takes nothing in return.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from typing import Any, Final, NamedTuple, Protocol

from egtp.channel.handshake import CHECK_TOKEN_BYTES
from egtp.config import NodeConfig
from egtp.errors import (
    CanonicalError,
    EgtpError,
    HandlerFailed,
    HandshakeFailed,
    InvalidMessage,
    NotSent,
)
from egtp.handling.handlers import Incoming
from egtp.limits.shares import strangers_part
from egtp.paths.channels import SecureChannels
from egtp.paths.path import Path
from egtp.reaching.address_policy import DIAL_BACK_PORT_MIN, why_not_dial
from egtp.reaching.peers import PeerBook
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.values import canonical
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_strat import Address, Carrier, TCPStrat
from egtp.values.identity import NodeId
from egtp.values.message import ReplyCode

__all__ = [
    "CHECK_KIND",
    "Asker",
    "CheckQuota",
    "Checked",
    "Outcome",
    "Verifier",
    "decode_check",
    "encode_check",
]

CHECK_KIND: Final = "egtp.address.check"
MINUTE_S: Final = 60.0
REASON_BYTES_MAX: Final = 100


# The question


def encode_check(port: int, token: bytes) -> bytes:
    """``[port, token]``: dial me at that port, and show the token."""
    return canonical.encode((port, token))


def decode_check(body: bytes) -> tuple[int, bytes]:
    """Port and token. Raises :class:`InvalidMessage`."""
    try:
        fields = canonical.decode(body)
    except CanonicalError as error:
        raise InvalidMessage(str(error)) from None
    match fields:
        case [int(port), bytes(token), *_] if (
            type(port) is int and 1 <= port <= 65535 and len(token) == CHECK_TOKEN_BYTES
        ):
            return port, token
    raise InvalidMessage("not a question to be dialled back")


class CheckQuota:
    """How often this node dials for others: each peer and each IP address (of IPv6 each /64) once
    in an interval, and all of them together so often in a minute; strangers a little less often, so
    that they leave some dials to those whom somebody here knows.

    Invariant: it remembers no more than the dials of the last interval or minute.
    """

    def __init__(self, per_minute: int, interval_s: float) -> None:
        self._per_minute = per_minute
        self._interval_s = interval_s
        self._dialled: list[float] = []
        self._last: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._last)

    def take(self, peer_id: NodeId, ip: bytes, now_s: float, *, stranger: bool) -> bool:
        """Whether there may be a dial now; if so, it counts."""
        self._dialled = [at_s for at_s in self._dialled if now_s - at_s < MINUTE_S]
        # In order of time, so the old ones are in front.
        for key, last_s in list(self._last.items()):
            if now_s - last_s < self._interval_s:
                break
            del self._last[key]
        keys = (b"id" + peer_id, b"ip" + ip[:8])
        most = strangers_part(self._per_minute) if stranger else self._per_minute
        if len(self._dialled) >= most or any(key in self._last for key in keys):
            return False
        self._dialled.append(now_s)
        self._last |= dict.fromkeys(keys, now_s)
        return True


# The one who is asked


class VerifierHost(Protocol):
    """What a verifier needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def unix_time(self) -> float: ...

    def carrier(self, peer_id: NodeId) -> Carrier: ...

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has to do with the peer; others are strangers."""


class Verifier:
    """Dials whoever asks for it, within bounds."""

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
        """The handler of :data:`CHECK_KIND`. Returns nothing if a connection was there, else in
        words why there was none: a hint for people."""
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
            raise HandlerFailed(ReplyCode.BUSY)
        in_vain = await self._knock(incoming.peer_id, target, token)
        return in_vain.encode("ascii", "replace")[:REASON_BYTES_MAX]

    def _refusal(self, reason: str) -> HandlerFailed:
        self._counters[f"address check refused: {reason}"] += 1
        return HandlerFailed(ReplyCode.REFUSED, reason.encode("ascii", "replace"))

    async def _knock(self, peer_id: NodeId, target: Address, token: bytes) -> str:
        """Connect, say who we are and the token, and go. Empty if somebody took the connection."""
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


# The one who asks


class Outcome(enum.Enum):
    REACHED = "reached"
    UNREACHABLE = "dialled, but not reached"
    UNKNOWN = "not dialled"


class Checked(NamedTuple):
    """What came of asking one peer."""

    outcome: Outcome
    reason: str = ""


class AskerHost(Protocol):
    """What the asking side needs from its node."""

    def entropy(self, size: int) -> bytes: ...

    async def ask_relay(self, relay_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        """A query over a direct path to a peer."""


class Asker:
    """Asks peers to dial this node, and waits for them to arrive."""

    def __init__(self, host: AskerHost, timeout_s: float) -> None:
        """``timeout_s`` is how long a peer may take to dial and to answer."""
        self._host = host
        self._timeout_s = timeout_s
        self._open: dict[bytes, tuple[NodeId, asyncio.Future[None]]] = {}

    def arrived(self, peer_id: NodeId, token: bytes) -> bool:
        """A handshake with a token came on a connection that was accepted. False unless that very
        peer was given it, and is waited for."""
        asked, arrival = self._open.get(token, (None, None))
        if arrival is None or asked != peer_id:
            return False
        if not arrival.done():
            arrival.set_result(None)
        return True

    async def ask(self, peer_id: NodeId, port: int) -> Checked:
        """Have a peer dial the address at which it sees us, with ``port``."""
        token = self._host.entropy(CHECK_TOKEN_BYTES)
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[None] = loop.create_future()
        self._open[token] = (peer_id, arrival)
        question = self._host.ask_relay(
            peer_id, CHECK_KIND, encode_check(port, token), self._timeout_s
        )
        answer = loop.create_task(question)
        try:
            either: list[asyncio.Future[Any]] = [answer, arrival]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if arrival.done():
                return Checked(Outcome.REACHED)
            said = answer.result()
        except HandlerFailed as failed:
            return Checked(
                Outcome.UNKNOWN, f"refused with code {failed.code} {_words(failed.body)}"
            )
        except EgtpError as error:
            return Checked(Outcome.UNKNOWN, str(error))
        finally:
            del self._open[token]
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
        reason = _words(said) or "somebody took the connection, but not this node"
        return Checked(Outcome.UNREACHABLE, reason)


def _words(body: bytes) -> str:
    """What a peer says, fit to be shown."""
    text = body[:REASON_BYTES_MAX].decode("ascii", "replace")
    return "".join(letter for letter in text if letter.isprintable())
