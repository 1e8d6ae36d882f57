"""AddressWatch: keeps what a node announces of its own addresses true.

It polls the machine's interfaces, hears what peers say in handshakes, has peers dial back, and
announces the result. What to believe is decided in :mod:`egtp.own.observed_address`, what to
announce in :mod:`egtp.own.own_addresses`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Final, Protocol

from egtp.config import NodeConfig
from egtp.errors import FastFail
from egtp.later import tell_of_mistake
from egtp.own.address_check import Outcome
from egtp.own.dial_back import DialBack, DialBackHost
from egtp.own.observed_address import ObservedAddress, network_of
from egtp.own.own_addresses import OwnAddress, OwnAddresses, is_gone, parse_interfaces
from egtp.paths.path import Path
from egtp.reaching.address_policy import Interface, why_not_dial
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import NodeId

__all__ = ["AddressWatch"]

CHECKERS_MAX: Final = 3
"""Peers that must fail to reach an address before it counts as unreachable, if that many can be
asked: one alone may be the only one that cannot reach it, or lie."""
ASKED_MAX: Final = 6
"""How many are asked in all; some may be too busy, or not know the question."""
ANSWER_S: Final = 2.0
"""A peer whose dial fails has this much longer to say so."""
SETTLE_S: Final = 0.7
"""When this node is seen at a new address, how long the peers that saw it at another have to say
that they still do: a few round trips, and less than a second."""
SETTLE_MAX_S: Final = 3.0
"""The same on a line on which a round trip takes longer: two of them, but no more than this."""


class WatchHost(DialBackHost, Protocol):
    """What the watch needs from its node."""

    @property
    def book(self) -> PeerBook: ...

    @property
    def comms(self) -> TCPCommsHandler: ...

    def now(self) -> float:
        """Elapsed seconds."""

    def is_welcome(self, peer_id: NodeId) -> bool:
        """Whether the application lets the peer begin a session."""

    async def connect(self, peer: Peer) -> None:
        """Find a direct path to a peer. Raises :class:`FastFail`."""

    def announce(self, addresses: tuple[Address, ...]) -> None:
        """Sign, push and publish a record with these addresses, if they have changed."""

    def lose_path(self, path: Path, reason: str, *, at_once: bool = False) -> None: ...

    def network_changed(self) -> None:
        """This machine is in another network, or back in one."""

    def network_lost(self) -> None:
        """This machine has no address any more."""


class AddressWatch:
    """With ``announce=``, or without ``observe_address``, it only announces what it is told."""

    def __init__(
        self,
        host: WatchHost,
        config: NodeConfig,
        local_addresses: Callable[[], Sequence[str]] | None,
        counters: Counter[str],
    ) -> None:
        self._host = host
        self._config = config
        self._local_addresses = local_addresses
        self._counters = counters
        self._observes = config.observe_address
        self._dial_back = DialBack(host, config.dial_timeout_s + ANSWER_S)
        self._own = OwnAddresses(
            private_addresses=config.private_addresses,
            lan_addresses=config.lan_addresses,
            recheck_s=config.address_recheck_s,
            retry_s=config.address_retry_s,
        )
        self._elections = {size: ObservedAddress() for size in (4, 16)}
        self._contests: dict[int, asyncio.TimerHandle] = {}
        self._is_cut_off = False
        """Whether the machine had no address at the last look."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        if not self._observes:
            return
        works = [self._check_when_due()]
        if self._local_addresses is not None:
            works.append(self._look_often(self._local_addresses))
        self._tasks = list(map(asyncio.get_running_loop().create_task, works))
        for task in self._tasks:
            task.add_done_callback(partial(tell_of_mistake, "own addresses are no longer watched"))

    async def close(self) -> None:
        self._observes = False
        for contest in self._contests.values():
            contest.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the node is told

    def listen(self, listening: Iterable[Address], configured: Iterable[Address] | None) -> None:
        """The node listens here now; ``configured``, if given, is announced instead."""
        if configured is not None:
            self._observes = False
        if self._observes and self._local_addresses is not None:
            self._look(self._local_addresses)
        self._own.listen(listening, configured)
        self._announce()

    def explain(self) -> tuple[OwnAddress, ...]:
        """Every address of this node, and what is known about it."""
        observed = (e.winner for e in self._elections.values())
        votes = {ip: self._elections[len(ip)].votes_for(ip) for ip in observed if ip is not None}
        return self._own.explain(votes)

    @property
    def near(self) -> tuple[Interface, ...]:
        """The local networks in which private addresses may be dialled."""
        return self._own.interfaces if self._config.lan_addresses else ()

    def _announce(self) -> None:
        self._host.announce(self._own.announced)
        self._wake.set()

    # The machine's interfaces

    async def _look_often(self, local_addresses: Callable[[], Sequence[str]]) -> None:
        while True:
            await asyncio.sleep(self._config.address_poll_s)
            if self._look(local_addresses):
                self._announce()

    def _look(self, local_addresses: Callable[[], Sequence[str]]) -> bool:
        """Read the machine's addresses. True if they have changed."""
        try:
            interfaces = parse_interfaces(local_addresses())
        except Exception:
            # The function may be the user's own, and raise anything.
            self._counters["the machine's addresses could not be read"] += 1
            return False
        before, was_cut_off = self._own.interfaces, self._is_cut_off
        self._is_cut_off = not interfaces
        if not interfaces:
            if not was_cut_off:
                self._host.network_lost()
            return False  # There is nobody to announce anything to.
        if was_cut_off or interfaces != before:
            self._host.network_changed()
        if interfaces == before:
            if was_cut_off:
                # In another network, perhaps, that gave it the same address.
                self._own.doubt(self._host.now())
                self._wake.set()
            return False
        self._own.has_interfaces(interfaces)
        gone = {one.ip for one in before} - {one.ip for one in interfaces}
        for size in {len(ip.packed) for ip in gone}:
            self._forget_sightings(size)
        connections = self._host.comms.all()
        hosts = {one.local_host for one in connections if one.local_host is not None}
        lost = {host for host in hosts if is_gone(host, before, interfaces)}
        for connection in connections:
            if connection.local_host in lost:
                self._counters["connection closed: its local address is gone"] += 1
                connection.abort("this machine has another address now")
        return True

    # What peers observe

    def opened(self, path: Path) -> None:
        """There is a new path: if we dialled it, the peer has said where it sees us."""
        observer, seen = _sighting(path)
        if not self._observes or not observer or len(seen) != len(observer):
            return
        if why_not_dial(Address(seen, 1), private_addresses=self._config.private_addresses):
            # In the same local network, or a lie.
            return
        now = self._host.now()
        if self._elections[len(seen)].tell(observer, seen, now):
            self._contest(path, len(seen), now)
        self._count(len(seen))

    def _forget_sightings(self, size: int) -> None:
        """Forget what peers saw: it was this machine in another network."""
        self._elections[size] = ObservedAddress()
        contest = self._contests.pop(size, None)
        if contest is not None:
            contest.cancel()
        self._own.moved(size)

    def _contest(self, newcomer: Path, size: int, began_s: float) -> None:
        """An observer contradicts the winner: find out which earlier observers still reach us."""
        if size in self._contests:
            return
        for path in self._witnesses(size):
            if path is newcomer or path.heard_s < began_s:
                path.ask_for_sign_of_life()
        self._settle_in(SETTLE_S, newcomer, size, began_s)

    def _settle_in(self, delay_s: float, newcomer: Path, size: int, began_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._contests[size] = loop.call_later(delay_s, self._settle, newcomer, size, began_s)

    def _settle(self, newcomer: Path, size: int, began_s: float) -> None:
        """End a contest: only what was heard since it began counts."""
        election, now = self._elections[size], self._host.now()
        witnesses = self._witnesses(size)
        if newcomer in witnesses:
            # It has been asked, too: the others cannot have answered much sooner.
            round_trip_s = newcomer.round_trip_s
            lasts_s = SETTLE_MAX_S if round_trip_s is None else min(2 * round_trip_s, SETTLE_MAX_S)
            left_s = began_s + lasts_s - now
            if left_s > 0:
                self._settle_in(min(left_s, SETTLE_S), newcomer, size, began_s)
                return
        del self._contests[size]
        live = [path for path in witnesses if path.heard_s >= began_s]
        election.heard((_sighting(path)[0] for path in live), now)
        election.forget_before(began_s)
        winner = election.winner
        if not any(_sighting(path)[1] == winner for path in live):
            # Nobody can reach the old address, so paths from there lead nowhere.
            for path in witnesses:
                if path not in live:
                    self._counters["path given up: this node's address has changed"] += 1
                    reason = "silent since this node has another address"
                    self._host.lose_path(path, reason, at_once=True)
            self._own.doubt(now)
        self._count(size)
        self._wake.set()

    def _count(self, size: int) -> None:
        election, before = self._elections[size], self._elections[size].winner
        winner = election.elect(self._host.now())
        if winner is not None and winner != before:
            self._counters["observed address is another one"] += 1
            self._own.elected(winner)
            self._announce()

    def _witnesses(self, size: int) -> list[Path]:
        """The paths whose other end has said where it sees us."""
        direct = (peer.direct for peer in self._host.book.all())
        return [path for path in direct if path is not None and len(_sighting(path)[1]) == size]

    # Dialling back

    def arrived(self, peer_id: NodeId, token: bytes, connection: int | None, seen: bytes) -> None:
        """A handshake with a token arrived. It proves something only if it came from outside, over
        a connection that was opened to this node."""
        accepted = self._host.comms.connection(connection)
        private_addresses = self._config.private_addresses
        if (
            accepted is None
            or accepted.dialled is not None
            or why_not_dial(Address(seen, 1), private_addresses=private_addresses)
            or not self._dial_back.arrived(peer_id, token)
        ):
            self._counters["dial-back that nobody waits for"] += 1

    async def _check_when_due(self) -> None:
        while True:
            self._wake.clear()
            address = self._own.due(self._host.now())
            if address is not None:
                await self._check(address)
                continue
            pause_s = self._own.next_due_s() - self._host.now()
            try:
                async with asyncio.timeout(pause_s if pause_s < float("inf") else None):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _check(self, address: Address) -> None:
        """Ask one peer after another until one has come in at ``address``."""
        failures: list[str] = []
        unknown = "there is nobody to be asked"
        checkers = await self._checkers(address.ip)
        if not checkers and self._witnesses(len(address.ip)):
            failures.append("nobody sees this node there any more")
        for peer in checkers:
            checked = await self._dial_back.ask(peer.peer_id, address.port)
            if checked.outcome is Outcome.REACHED:
                self._own.confirmed(address, self._host.now())
                self._announce()
                return
            if checked.outcome is Outcome.UNREACHABLE:
                failures.append(checked.reason)
            else:
                unknown = checked.reason
            if len(failures) == CHECKERS_MAX:
                break
        if failures:
            self._own.failed(address, failures[-1], self._host.now())
        else:
            self._own.nobody_looked(address, unknown, self._host.now())
        self._announce()

    async def _checkers(self, ip: bytes) -> list[Peer]:
        """Peers that see us at ``ip``, from as many networks as possible."""
        found = self._who_sees(ip)
        if not found:
            # All connections have ended; peers dialled now say anew where they see us. Strangers
            # are not dialled: the addresses that they announce may be a third party's. Nor is who
            # has been blocked, and could then ask this node over that connection.
            known = [
                peer
                for peer in self._host.book.all()
                if peer.is_wanted and peer.record is not None and peer.record.tcp
            ]
            idle = (
                peer
                for peer in reversed(known)
                if peer.direct is None and self._host.is_welcome(peer.peer_id)
            )
            calls = [self._host.connect(peer) for peer in islice(idle, CHECKERS_MAX)]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(error, Exception) and not isinstance(error, FastFail):
                    raise error
            found = self._who_sees(ip)
        return found[:ASKED_MAX]

    def _who_sees(self, ip: bytes) -> list[Peer]:
        by_network: dict[bytes, list[Peer]] = {}
        for peer in reversed(self._host.book.all()):
            observer, seen = (b"", b"") if peer.direct is None else _sighting(peer.direct)
            if seen == ip:
                by_network.setdefault(network_of(observer), []).append(peer)
        firsts = [peers[0] for peers in by_network.values()]
        return firsts + [peer for peers in by_network.values() for peer in peers[1:]]


def _sighting(path: Path) -> tuple[bytes, bytes]:
    """The IP address of the observer, and ours as it sees it; empty unless we dialled."""
    if path.dialled and path.observed is not None and isinstance(path.strategy, TCPStrat):
        return path.strategy.address.ip, path.observed.ip
    return b"", b""
