"""The checkers: each sees the break of the rule that it is there for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from egtp import FastFail, HardTimeout, Identity, Incoming, LookupFailed, Node, NodeId
from egtp.errors import LookupFailure
from egtp.lookup import Published
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, TCPStrat
from simulations import Cluster, ClusterPlan, Role
from simulations.checkers import MARK_BYTES, Checkers
from simulations.virtual import Network, run_in, simulate
from simulations.world import VirtualWorld


@pytest.fixture
def checkers() -> Checkers:
    return Checkers(lambda: 12.5)


@pytest.fixture
def node() -> Node:
    return Node(Identity.generate(bytes))


def rules(checkers: Checkers) -> list[str]:
    return [violation.rule for violation in checkers.violations]


def incoming(body: bytes) -> Incoming:
    return Incoming.example(NodeId(bytes(20)), "echo", body)


def test_bodies_are_marked_so_that_no_two_are_equal(checkers: Checkers) -> None:
    one, two = checkers.mark(b"same"), checkers.mark(b"same")
    assert one != two
    assert one[MARK_BYTES:] == two[MARK_BYTES:] == b"same"
    assert checkers.asked == 2


def test_the_right_reply_breaks_no_rule_and_another_one_does(checkers: Checkers) -> None:
    checkers.answered("alice", "bob", b"question", b"question")
    assert rules(checkers) == []
    checkers.answered("alice", "bob", b"question", b"another")
    assert rules(checkers) == ["a reply reaches the exchange that it is for"]
    assert "alice asked bob" in str(checkers.violations[0])
    assert str(checkers.violations[0]).startswith("12.500 s: ")


def test_a_handler_that_runs_twice_is_seen(checkers: Checkers) -> None:
    checkers.handled("bob", incoming(checkers.mark(b"")))
    body = checkers.mark(b"")
    checkers.handled("bob", incoming(body))
    assert rules(checkers) == []
    checkers.handled("bob", incoming(body))
    assert rules(checkers) == ["no handler runs twice for one query"]


@pytest.mark.parametrize("handled_first", [True, False])
def test_a_fast_fail_of_a_query_that_reached_somebody_is_seen(
    checkers: Checkers, node: Node, handled_first: bool
) -> None:
    body = checkers.mark(b"")
    if handled_first:
        checkers.handled("bob", incoming(body))
    with pytest.raises(FastFail), checkers.asking("alice", node, "bob", body):
        raise FastFail("no way")
    if not handled_first:
        assert rules(checkers) == []
        checkers.handled("bob", incoming(body))
    assert rules(checkers) == ["a fast fail means that nothing left"]
    assert checkers.outcomes == {"fast fail": 1}


def record(identity: Identity, sequence: int, expires: int = 2_000) -> SignedCommRecord:
    content = CommRecord(
        expires,
        b"incarnat",
        ((1, identity.channel_key),),
        (TCPStrat(Address.parse("5.0.0.1:1")),),
    )
    return SignedCommRecord.sign(identity, sequence, content)


class Answers:
    """A lookup service that answers what it is told to."""

    def __init__(self, *records: SignedCommRecord) -> None:
        self.records = list(records)

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        if not self.records:
            raise LookupFailed(LookupFailure.NOT_FOUND)
        return self.records.pop(0)

    async def publish(self, record: SignedCommRecord) -> Published:
        self.records.append(record)
        return Published(1, 1)


@pytest.mark.parametrize(
    ("sequences", "newer_than", "broken"),
    [
        ([1, 1, 2, 5], 0, []),
        ([5, 2], 0, ["a resolved record never goes backward"]),
        ([3], 3, ["a resolved record never goes backward"]),
    ],
)
async def test_a_lookup_that_goes_backward_is_seen(
    checkers: Checkers, sequences: list[int], newer_than: int, broken: list[str]
) -> None:
    identity = Identity.generate(bytes)
    answers = Answers(*(record(identity, sequence) for sequence in sequences))
    lookup = checkers.watched("alice", answers, lambda: 1_000.0)
    for _ in sequences:
        await lookup.resolve(identity.node_id, newer_than=newer_than)
    assert rules(checkers) == broken


async def test_a_record_of_somebody_else_or_of_the_past_is_seen(checkers: Checkers) -> None:
    identity = Identity.generate(bytes)
    answers = Answers(record(identity, 1), record(identity, 2, expires=999))
    lookup = checkers.watched("alice", answers, lambda: 1_000.0)
    await lookup.resolve(NodeId(bytes(20)))
    await lookup.resolve(identity.node_id)
    assert rules(checkers) == [
        "a resolved record is of the peer asked for",
        "a resolved record has not expired",
    ]
    with pytest.raises(LookupFailed):
        await lookup.resolve(identity.node_id)
    assert await lookup.publish(record(identity, 3)) == Published(1, 1)


def in_a_cluster(sabotage: Callable[[Node], None]) -> list[str]:
    """What is seen when alice's node is not what it should be and bob is silent."""
    world = VirtualWorld(3)
    cluster = Cluster(ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=3), world)

    async def story() -> None:
        async with cluster:
            alice, bob = cluster.those(Role.REACHABLE)[:2]
            await alice.ask(bob, b"hello")
            sabotage(alice.node)
            cut = world.network.partition([alice.machine.host], [bob.machine.host])
            with cut, pytest.raises(HardTimeout):
                await alice.ask(bob, b"anybody there", hard_timeout_s=3.0)

    run_in(world.network, story())
    return rules(cluster.checkers)


def test_a_node_that_forgets_what_it_should_breaks_no_rule() -> None:
    assert in_a_cluster(lambda _: None) == []


def test_a_query_that_is_kept_after_its_hard_timeout_is_seen() -> None:
    def keep_all(node: Node) -> None:
        exchanges = node._engine.exchanges  # type: ignore[union-attr]
        everything = list(exchanges.all())
        opened = exchanges.open

        def remember(*args: object, **options: object) -> object:
            everything.append(opened(*args, **options))  # type: ignore[arg-type]
            return everything[-1]

        exchanges.open = remember  # type: ignore[method-assign]
        exchanges.all = lambda: everything  # type: ignore[method-assign]

    broken = in_a_cluster(keep_all)
    assert broken == ["after its hard timeout nothing of a query is stored"]


def test_a_route_from_an_unproven_session_is_seen() -> None:
    def unprove(node: Node) -> None:
        for peer in node._engine.book.all():  # type: ignore[union-attr]
            for path in peer.paths:
                path.confirmed = False

    assert in_a_cluster(unprove) == ["an unconfirmed session teaches no route"]


def test_only_so_many_violations_are_kept(checkers: Checkers) -> None:
    for number in range(1_000):
        checkers.answered("alice", "bob", b"", b"%d" % number)
    assert len(checkers.violations) == 100


def test_a_world_ends_whatever_the_checkers_saw() -> None:
    async def story(network: Network) -> float:
        return network.loop.now

    assert simulate(story).value == 0.0
