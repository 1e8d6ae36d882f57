"""Dial-back: asking a peer to dial us, to find out whether the address that it sees is reachable.

The proof is that the peer's handshake arrives here with our token in it, never the peer's word. The
peer's side is in :mod:`egtp.own.dialling_for_others`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from egtp.channel.handshake import CHECK_TOKEN_BYTES
from egtp.errors import EgtpError, HandlerFailed
from egtp.own.address_check import CHECK_KIND, REASON_BYTES_MAX, Checked, Outcome, encode_check
from egtp.values.identity import NodeId

__all__ = ["DialBack", "DialBackHost"]


class DialBackHost(Protocol):
    """What the asking side needs from its node."""

    def entropy(self, size: int) -> bytes: ...

    async def ask_directly(
        self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
    ) -> bytes:
        """Query a peer over a direct path, within ``timeout_s`` in all."""


class DialBack:
    """Asks peers to dial this node, and waits for them to arrive."""

    def __init__(self, host: DialBackHost, timeout_s: float) -> None:
        """``timeout_s`` is how long a peer may take to dial and to answer."""
        self._host = host
        self._timeout_s = timeout_s
        self._open: dict[bytes, tuple[NodeId, asyncio.Future[None]]] = {}

    def arrived(self, peer_id: NodeId, token: bytes) -> bool:
        """A handshake with a token arrived on an accepted connection. False unless that very peer
        was given the token, and is still awaited."""
        asked, arrival = self._open.get(token, (None, None))
        if arrival is None or asked != peer_id:
            return False
        if not arrival.done():
            arrival.set_result(None)
        return True

    async def ask(self, peer_id: NodeId, port: int) -> Checked:
        """Have a peer dial the IP address at which it sees us, at ``port``."""
        token = self._host.entropy(CHECK_TOKEN_BYTES)
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[None] = loop.create_future()
        self._open[token] = (peer_id, arrival)
        question = self._host.ask_directly(
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
            words = _words(failed.body)
            return Checked(Outcome.UNKNOWN, f"refused: {words}" if words else str(failed))
        except EgtpError as error:
            return Checked(Outcome.UNKNOWN, str(error))
        finally:
            del self._open[token]
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
        reason = _words(said) or "somebody took the connection, but not this node"
        return Checked(Outcome.UNREACHABLE, reason)


def _words(body: bytes) -> str:
    """What a peer says, made fit to be shown."""
    text = body[:REASON_BYTES_MAX].decode("ascii", "replace")
    return "".join(letter for letter in text if letter.isprintable())
