"""How to reach a peer: which addresses to try, in what order, and which to leave alone (pure).

Back-off is per address, not per peer: one bad address says nothing about the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from egtp.reaching.address_policy import Interface, why_not_dial
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat, in_turns
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["Backoff", "Plan", "Way", "plan", "way_of"]

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 10.0
"""Long enough to spare a dead address, short enough to notice soon that a peer is back."""
BACKOFF_ADDRESSES_MAX: Final = 4096

Way: TypeAlias = Address | NodeId
"""An address, or a relay."""


class Backoff:
    """How long each failed address is left alone: doubling each time, up to ten seconds."""

    def __init__(self) -> None:
        self._until: dict[Address, tuple[float, float, str]] = {}

    def failed(self, address: Address, now_s: float, why: str = "") -> None:
        until, pause, _ = self._until.pop(address, (float("-inf"), 0.0, ""))
        # Once it was left alone for twice its pause, earlier failures say nothing any more.
        pause = min(2 * pause, BACKOFF_MAX_S) if now_s <= until + pause else BACKOFF_FIRST_S
        self._until[address] = (now_s + pause, pause, why)
        if len(self._until) > BACKOFF_ADDRESSES_MAX:
            del self._until[next(iter(self._until))]

    def worked(self, address: Address) -> None:
        if self._until:
            self._until.pop(address, None)

    def forget(self) -> None:
        """Forget all failures: they say nothing any more."""
        self._until.clear()

    def remaining_s(self, address: Address, now_s: float) -> float:
        """How long the address is still left alone; 0 if it may be tried now."""
        if not self._until:
            return 0.0
        until, *_ = self._until.get(address, (now_s, 0.0, ""))
        return max(0.0, until - now_s)

    def why(self, address: Address) -> str:
        """Why it last failed, in words, if that was told."""
        return self._until[address][2] if address in self._until else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to try, in what order; and what not to try, and why."""

    tcp: tuple[TCPStrat, ...]
    """Raced with a stagger, IPv6 and IPv4 alternating."""
    relays: tuple[RelayStrat, ...]
    """Tried after the addresses, in the order of the record."""
    refused: tuple[tuple[CommStrat, Cause], ...]
    dead_ends: tuple[CommStrat, ...] = ()
    """Ways that lately led nowhere: tried when all else has failed or takes long."""


def plan(
    contact: Contact,
    backoff: Backoff,
    *,
    me: NodeId,
    private_addresses: bool,
    now_s: float,
    interfaces: tuple[Interface, ...] = (),
    with_relays: bool = True,
    dead_ends: tuple[Way, ...] = (),
) -> Plan:
    """How to reach the peer of ``contact``, from a machine with these interfaces. ``dead_ends`` are
    ways that led nowhere, the last one last."""
    allowed: list[TCPStrat] = []
    refused: list[tuple[CommStrat, Cause]] = []
    # An address named twice is tried once, lest a record make each dialler hit it many times.
    for strategy in dict.fromkeys(contact.tcp):
        reason = why_not_dial(
            strategy.address, private_addresses=private_addresses, interfaces=interfaces
        )
        pause = backoff.remaining_s(strategy.address, now_s)
        if reason is not None:
            refused.append((strategy, Cause(reason)))
        elif pause:
            # Whoever asks again and again is told of nothing else for most of the time.
            told = (backoff.why(strategy.address), f"tried again in {pause:.1f} s")
            cause = Cause(AttemptReason.FAILED_BEFORE, ", ".join(filter(None, told)))
            refused.append((strategy, cause))
        else:
            allowed.append(strategy)
    relays: list[RelayStrat] = []
    for relay in {r.relay_id: r for r in contact.relays}.values():
        if relay.relay_id in (me, contact.peer_id):
            refused.append((relay, Cause(AttemptReason.RELAY_IS_AN_END)))
        else:
            relays.append(relay)
    every: tuple[CommStrat, ...] = (*allowed, *relays)
    ways = {way_of(strategy): strategy for strategy in every}
    last = [ways[way] for way in dead_ends if way in ways]
    if len(last) == len(ways):
        # One has to be first: that of which this has been known for longest.
        last = last[1:]
    return Plan(
        tuple(_in_turns([one for one in allowed if one not in last])),
        tuple(one for one in relays if with_relays and one not in last),
        tuple(refused),
        tuple(one for one in last if with_relays or not one.relayed),
    )


def way_of(strategy: CommStrat) -> Way:
    """What stays the same of a strategy from one record to the next."""
    return strategy.relay_id if isinstance(strategy, RelayStrat) else strategy.address


def _in_turns(strategies: list[TCPStrat]) -> list[TCPStrat]:
    """Alternate IPv6 and IPv4, IPv6 first, each family in its own order (RFC 8305)."""
    addresses = [strategy.address for strategy in strategies]
    return [TCPStrat(one) for one in in_turns(sorted(addresses, key=lambda it: -len(it.ip)))]
