"""What a running node does from time to time: a little of each duty in every round."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from lookup_dht.membership.joining import Joining, Spawn
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.record_walks import RecordWalks

__all__ = ["Upkeep"]

log = logging.getLogger("lookup_dht")

PROOF_HELPERS: Final = 3
"""This many contacts suffice to ask, in turn, for the proof that this node can be reached."""


class Upkeep:
    """The upkeep of one node's table and records. It replaces upstream's timer, which refreshes
    every bucket at once, at the same time on all nodes."""

    def __init__(
        self,
        joining: Joining,
        protocol: LookupProtocol,
        walks: RecordWalks,
        settings: NodeSettings,
        spawn: Spawn,
    ) -> None:
        self._joining = joining
        self._protocol = protocol
        self._router = protocol.router
        self._reachability = protocol.reachability
        self._walks = walks
        self._settings = settings
        self._limits = settings.limits
        self._spawn = spawn
        self._looked_around_serving: bool | None = None
        self._proof_asked = 0
        self._greet_at = 0.0
        self._router.on_newcomer = self._met_newcomer

    async def run(self) -> None:
        """Round after round, until it is cancelled."""
        interval_s = self._limits.upkeep_interval_s
        while True:
            wait_s = interval_s if len(self._router) else self._joining.retry_s
            began_at = self._settings.elapsed()
            await asyncio.sleep(self._settings.jitter(wait_s))
            if self._settings.elapsed() - began_at > 10 * interval_s:
                # This machine slept while the network went on: every contact is in doubt.
                self._protocol.counters["overslept"] += 1
                await self._joining.join()
            await self.round()

    async def round(self) -> None:
        """One round. A STORE goes only to a node that is known to lack the record."""
        taken_before = self._protocol.asker.taken
        storage = self._protocol.storage
        storage.drop_expired()
        for _ in storage.catch_up():
            await asyncio.sleep(0)
        self._joining.adopt_fitting_id()
        self._joining.count_again()
        if self._joining.is_due:
            await self._joining.join()
        await self._greet_lost_ones()
        await self._look_around()
        self._ask_for_proof()
        for contact in self._router.silent_contacts(self._limits.parallel_queries):
            self._protocol.check(contact)
        for target in self._protocol.get_refresh_ids()[:1]:
            await self._walks.find_nodes(target)
            self._protocol.counters["bucket_refreshed"] += 1
        self._spawn(self._walks.hand_over_again())  # A task: it waits for the answers of others.
        await self._walks.look_after_one()
        self._joining.note_cut_off(taken_before)

    async def _greet_lost_ones(self) -> None:
        """Several at a time if this node is nearly alone."""
        several, now_s = self._limits.parallel_queries, self._settings.elapsed()
        is_nearly_alone = len(self._router) < several
        if not len(self._router) or not (is_nearly_alone or now_s >= self._greet_at):
            return  # An empty table means that all of them have just been greeted in vain.
        self._greet_at = now_s + self._limits.greet_interval_s
        await self._joining.greet_lost_ones(several if is_nearly_alone else 1)

    async def _look_around(self) -> None:
        """Once after joining, for nodes that joined at the same moment and were not there yet; and
        once after becoming a server, so that the neighbours meet it."""
        if self._looked_around_serving is not self._reachability.proven and len(self._router):
            self._looked_around_serving = self._reachability.proven
            await self._walks.find_nodes(self._protocol.source_node.id)

    def _ask_for_proof(self) -> None:
        """Ping a contact if it is in doubt whether strangers can reach this node: every ping then
        asks for the proof. Another contact each time, since some cannot, or will not, arrange
        it."""
        reachability, now_s = self._reachability, self._settings.elapsed()
        reachability.time_passed(now_s)
        contacts = list(self._router)
        if not reachability.open or not contacts:
            return
        host_of = self._settings.host_of
        # Ask contacts that are no strangers: the others, left alone, stay able to give the proof.
        others = [it for it in contacts if not reachability.is_stranger(host_of(it.address), now_s)]
        strangers = 1 - len(others) / len(contacts)
        if reachability.proven and not strangers:
            return  # Nobody could prove it now; only contacts left alone become strangers again.
        if len(others) < PROOF_HELPERS:
            others = contacts
        self._proof_asked += 1
        self._protocol.check(others[self._proof_asked % len(others)])
        if not self._protocol.asker.has_network:
            return  # The request has not left this machine.
        if reachability.requested(strangers):
            self._protocol.counters["not_reachable_any_more"] += 1
            log.warning(
                "no stranger can reach the UDP port of this node; it serves nobody until one can"
            )

    def _met_newcomer(self) -> None:
        """Newcomers arrive in groups, so the hand-over of records waits a little."""
        delay_s = self._settings.jitter(self._limits.hand_over_delay_s)
        self._spawn(self._hand_over_after(delay_s))

    async def _hand_over_after(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._walks.hand_over()
