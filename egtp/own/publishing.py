"""Publishes this node's record when it changes, and again at half of its life; and signs it again
soon when that has failed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from egtp.bug_reports import BugReports
from egtp.config import NodeConfig
from egtp.environment import Environment
from egtp.errors import EgtpError, PublishFailed
from egtp.events import IdentityRunsElsewhere, Observer, RecordNotPublished, RecordPublished
from egtp.later import tell_of_mistake
from egtp.limits.throttle import TokenBucket
from egtp.lookup import LookupService, Published, publish_to, resolve_from, tell_of_bug
from egtp.own.own_record import OwnRecord
from egtp.reaching.address_policy import why_not_dial
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import CommStrat
from egtp.values.identity import NodeId

__all__ = ["Publisher"]

RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 60.0
"""A failure to sign or to store is followed by a retry after the first, then ever later, up to
this."""
HOLDERS_FEW: Final = 3
"""A record that fewer nodes hold is soon lost with them, as after a network split. It is published
again after a minute, and then after twice as long each time: the network may just be that small. So
is one that one of several services has not stored, as while IPv6 leads nowhere."""
FEW_FIRST_S: Final = 60.0
UNDISTURBED_S: Final = 1.0
"""How long publishing goes on in any case, even if there is a newer record: with many changes in a
row, one of them has to get through."""
CLOCK_SLACK_S: Final = 60.0
"""How far a clock may be set back before the record is signed again."""
CHANGES_PER_S: Final = 0.1
"""Without a limit, a relay that seems to move all the time would have the record signed, pushed to
all connected peers and published as often; and its sequence would run ahead of the clock, until
nobody stores it."""
CHANGES_BURST_S: Final = 100.0
"""For a node that starts, or is carried from one network to the next."""
COPY_TOLD_S: Final = 3600.0
"""How often to tell that the identity runs elsewhere, while it does."""

log = logging.getLogger("egtp")


class Publisher:
    """Keeps the lookup service's copy of this node's record true.

    ``publishes_to`` is asked each time where the record goes; None if nowhere.
    ``push`` sends a new record to all connected peers, before any lookup service has it.
    ``works_again`` is called once the service has stored a record after it had failed to.
    ``wants_relays`` says whether this node is introduced to relays.
    """

    def __init__(
        self,
        me: NodeId,
        own: OwnRecord,
        publishes_to: Callable[[], LookupService | None],
        push: Callable[[SignedCommRecord], None],
        works_again: Callable[[], None],
        wants_relays: Callable[[], bool],
        config: NodeConfig,
        environment: Environment,
        counters: Counter[str],
        observer: Observer | None,
    ) -> None:
        self._observer = observer
        self._me = me
        self._own = own
        self._publishes_to = publishes_to
        self._push = push
        self._works_again = works_again
        self._wants_relays = wants_relays
        self._config = config
        self._environment = environment
        self._counters = counters
        self._changed = asyncio.Event()
        self._retry_s = RETRY_FIRST_S
        """The pause after the next failure."""
        self._task: asyncio.Task[None] | None = None
        self._stored_or_closed = asyncio.Event()
        self._published: tuple[SignedCommRecord, Published] | None = None
        self.failure: str | None = None
        """Why the last attempt to publish the record as it should be failed; None if none did."""
        self._unsigned: str | None = None
        """Why it could not even be signed."""
        self._signing: asyncio.TimerHandle | None = None
        self._sign_again_s = RETRY_FIRST_S
        self._changes = TokenBucket(CHANGES_PER_S, CHANGES_BURST_S, environment.elapsed())
        self._strategies: tuple[CommStrat, ...] = ()
        """What the record should say, once it may change."""
        self._changing: asyncio.TimerHandle | None = None
        self._copy_told_s = float("-inf")
        self._bugs = BugReports()
        self._is_closed = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(partial(tell_of_mistake, "the record is no longer published"))

    def change(self, strategies: tuple[CommStrat, ...]) -> None:
        """This node is reached by these strategies from now on. After many changes in a row, the
        record says so a little later."""
        self._strategies = strategies
        if self._changing is not None:
            return
        wait_s = self._changes.ready_s - self._environment.elapsed()
        if wait_s <= 0:
            self._change()
        elif not self._is_closed:
            self._changing = asyncio.get_running_loop().call_later(wait_s, self._change_at_last)

    def _change(self) -> None:
        if self._own.change(self._strategies):
            self._changes.take(1, self._environment.elapsed())
            self.signed_anew()

    def _change_at_last(self) -> None:
        self._changing = None
        # Even if the strategies are the old ones again: published() waits for this.
        self._changed.set()
        self._change()

    async def published(self, *, reachable: bool = False) -> Published:
        """Wait until the current record is stored somewhere; with ``reachable``, until one is that
        names a way to this node.

        Raises :class:`PublishFailed` if there is no lookup service to store it, or the node closes.
        """
        while True:
            if self._publishes_to() is None:
                raise PublishFailed("this node has no lookup service")
            if self._is_closed:  # perhaps after the record was stored, but before this turn
                raise PublishFailed("this node is closed")
            if self._published is not None:
                record, published = self._published
                as_it_should = not self._own.is_behind and self._changing is None
                is_newest = record is self._own.current and as_it_should
                if is_newest and (self._leads_here(record) or not reachable):
                    return published
            self._stored_or_closed.clear()
            await self._stored_or_closed.wait()

    def _leads_here(self, record: SignedCommRecord) -> bool:
        """Whether a record names a way to this node. If it wants relays, it is to be reached from
        elsewhere, too, where an address of its local network leads nowhere."""
        if not self._wants_relays():
            return bool(record.strategies)
        private_addresses = self._config.private_addresses
        return bool(record.relays) or any(
            why_not_dial(one.address, private_addresses=private_addresses) is None
            for one in record.tcp
        )

    async def _run(self) -> None:
        few_s, asked, was_asked = FEW_FIRST_S / 2, False, False
        while True:
            self._changed.clear()
            lookup = self._publishes_to()
            if lookup is not None and (self.is_due or not asked):
                # A copy of this identity may have gone on publishing, with higher sequences.
                await self._go_above(lookup, is_first=not was_asked)
                asked = was_asked = True
                lookup = self._publishes_to()  # This node may have other friends by now.
            if self.is_due and self._own.renew():
                self._push(self._own.current)
            record, pause_s = self._own.current, self._half_life_s()
            if lookup is None:
                self.failure = self._unsigned
            else:
                try:
                    published = await self._publish(lookup, record)
                except Exception as error:
                    # Whatever the service raises, this node must be found again once it is back;
                    # and a copy of this identity may have published a higher sequence meanwhile.
                    asked = False
                    pause_s = min(self._retry_s, pause_s)
                    self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
                    self._tell_failed(record, error, pause_s)
                else:
                    if published is None:
                        continue
                    self._tell(record, published)
                    if self._retry_s > RETRY_FIRST_S:
                        self._works_again()
                    self._retry_s = RETRY_FIRST_S
                    if published.stored < HOLDERS_FEW or published.failed:
                        pause_s = few_s = min(2 * few_s, pause_s)
                    else:
                        few_s = FEW_FIRST_S / 2
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _publish(self, lookup: LookupService, record: SignedCommRecord) -> Published | None:
        """None if there is something newer to publish, and this takes long: one of several services
        may hang, as while IPv6 leads nowhere, and the others need not wait for that."""
        publishing = asyncio.ensure_future(publish_to(lookup, record))
        newer = asyncio.ensure_future(self._newer_after(UNDISTURBED_S))
        try:
            async with asyncio.timeout(self._config.lookup_timeout_s):
                await asyncio.wait([publishing, newer], return_when=asyncio.FIRST_COMPLETED)
            return publishing.result() if publishing.done() else None
        finally:
            publishing.cancel()
            newer.cancel()
            await asyncio.gather(publishing, newer, return_exceptions=True)

    async def _newer_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._changed.wait()

    async def _go_above(self, lookup: LookupService, *, is_first: bool) -> None:
        """Sign above the sequence of the record that the service has: an identity restored from an
        old backup would use sequences again. What is found first may be of an earlier run."""
        try:
            # A timeout of its own: a service that finds nothing in time can still be published to.
            async with asyncio.timeout(self._config.lookup_timeout_s):
                # Later on, the service may have cached what this node has published.
                found = await resolve_from(lookup, self._me, fresh=not is_first)
        except Exception:
            # Finding nothing is the usual case; if the service is broken, publishing will tell.
            return
        # This node's own record is no sign of a copy.
        if found != self._own.current and self._own.saw(found.sequence):
            self._counters["own record found with a higher sequence"] += 1
            self._push(self._own.current)
            if not is_first:
                self.runs_elsewhere(found)

    @property
    def is_due(self) -> bool:
        """Whether about half of the record's lifetime is over; or more of it is left than it could
        have, since the clock was ahead when it was signed: nobody stores such a record."""
        left_s = self._own.current.expiry_unix_s - self._environment.unix_time()
        lifetime_s = self._config.record_lifetime_s
        return not 0.6 * lifetime_s <= left_s <= lifetime_s + CLOCK_SLACK_S

    def look_again(self) -> None:
        """Time has passed that timers did not count: renew and publish what is due."""
        self._changed.set()

    def network_changed(self) -> None:
        """This machine is in another network, or in one again: that the record could not be stored
        before says nothing any more."""
        self._retry_s = RETRY_FIRST_S
        if self.failure is not None:
            self._changed.set()

    def renew(self) -> None:
        """Sign the record again now, for another lifetime."""
        if self._own.renew():
            self.signed_anew()

    def friends_changed(self) -> None:
        """This node tells its record to other friends, and may name them in it."""
        self.renew()  # A new one: what has been stored so far says nothing of the new friends.
        self._changed.set()
        self._stored_or_closed.set()  # There may be nobody left who stores it.

    def signed_anew(self) -> None:
        """There is a new record, though it may say the same."""
        self._push(self._own.current)
        self._changed.set()

    def not_signed(self, error: Exception) -> None:
        """A new record is due, but its sequence could not be stored: the disk may be full for a
        moment, for instance. The previous record stays in use meanwhile."""
        self._counters["own record not signed: its sequence could not be stored"] += 1
        if self._is_closed:
            return
        loop = asyncio.get_running_loop()
        again_s = self._sign_again_s
        self._signing = loop.call_later(again_s, self._sign_again)
        self._sign_again_s = min(2 * again_s, RETRY_MAX_S)
        is_news = self._unsigned is None
        self._unsigned = f"its sequence cannot be stored ({_reason(error)})"
        if is_news:
            self._tell_why_not(self._own.current, self._unsigned, again_s)
        self.failure = self._unsigned

    def _sign_again(self) -> None:
        if self._own.try_again():
            self._sign_again_s = RETRY_FIRST_S
            self._unsigned = None
            self.signed_anew()

    def runs_elsewhere(self, record: SignedCommRecord) -> None:
        """Another process has signed a newer record of this peer."""
        now = self._environment.elapsed()
        if now < self._copy_told_s + COPY_TOLD_S:
            return
        self._copy_told_s = now
        event = IdentityRunsElsewhere(record)
        if self._observer is not None:
            self._observer(event)
        else:
            log.warning("%s", event)

    def _tell_failed(self, record: SignedCommRecord, error: Exception, again_s: float) -> None:
        self._counters["publish failed"] += 1
        tell_of_bug(error, self._bugs)
        self._tell_why_not(record, _reason(error), again_s)

    def _tell_why_not(self, record: SignedCommRecord, reason: str, again_s: float) -> None:
        is_news, self.failure = self.failure is None, reason
        if self._observer is not None:
            self._observer(RecordNotPublished(record, reason, again_s))
        elif is_news:
            log.warning(
                "the record of %s is not stored, so others may not find it: %s; trying again",
                self._me,
                reason,
            )

    def _tell(self, record: SignedCommRecord, published: Published) -> None:
        was_told, self.failure = self.failure is not None, self._unsigned
        self._published = record, published
        if self._observer is not None:
            self._observer(RecordPublished(record, published))
        elif was_told and self.failure is None:
            log.warning("the record of %s is stored now", self._me)
        self._stored_or_closed.set()

    def _half_life_s(self) -> float:
        # Up to a tenth earlier, so that nodes that started together do not publish together.
        jitter = self._environment.entropy(1)[0] / 255
        return self._config.record_lifetime_s / 2 * (1 - 0.1 * jitter)

    async def close(self) -> None:
        self._is_closed = True
        for timer in (self._signing, self._changing):
            if timer is not None:
                timer.cancel()
        self._stored_or_closed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the lookup service did not answer in time"
    return str(error) if isinstance(error, EgtpError) else f"{type(error).__name__}: {error}"
