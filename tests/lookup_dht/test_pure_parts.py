"""The parts of the DHT that decide: no loop, no socket, no clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.values.comm_strat import Address
from egtp.values.identity import Identity
from lookup_dht.protocol.open_queries import OpenQueries, OpenQuery
from lookup_dht.protocol.rate_limit import BURST_S, SOURCES_MAX, Bucket, Pace, SourceLimit
from lookup_dht.protocol.round_trip import RoundTripEstimate
from lookup_dht.protocol.write_token import TOKEN_ROTATION_S, TokenMint
from lookup_dht.resolving.answer_cache import AnswerCache
from lookup_dht.settings import DHTLimits
from lookup_dht.state.seeds import default_listen
from lookup_dht.statistics import Traffic, overview
from lookup_dht.walks.inheritance import inheritances, is_among
from lookup_dht.walks.newcomers import Newcomers
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import Method, Query
from tests.lookup_dht.at_hand import Sign

K = 20


def contact(number: int) -> Contact:
    return Contact(number.to_bytes(20, "big"), bytes([8, number % 251, number % 241, 1]), 9100)


# Tokens


def mint(seed: int = 1) -> TokenMint:
    return TokenMint(random.Random(seed).randbytes)


@given(st.floats(0, 1e6), st.floats(0, TOKEN_ROTATION_S))
def test_a_token_is_taken_for_five_minutes_at_least(now: float, later: float) -> None:
    tokens = mint()
    token = tokens.token(b"\1\2\3\4\0\11", b"key", now)
    assert tokens.knows(token, b"\1\2\3\4\0\11", b"key", now + later)


def test_a_token_is_bound_to_address_key_and_time_and_node() -> None:
    tokens = mint()
    token = tokens.token(b"\1\2\3\4\0\11", b"key", 0.0)
    assert not tokens.knows(token, b"\1\2\3\5\0\11", b"key", 0.0)
    assert not tokens.knows(token, b"\1\2\3\4\0\10", b"key", 0.0)
    assert not tokens.knows(token, b"\1\2\3\4\0\11", b"kex", 0.0)
    assert not tokens.knows(token[:7], b"\1\2\3\4\0\11", b"key", 0.0)
    assert not tokens.knows(b"", b"\1\2\3\4\0\11", b"key", 0.0)
    assert not mint(2).knows(token, b"\1\2\3\4\0\11", b"key", 0.0)
    assert not tokens.knows(token, b"\1\2\3\4\0\11", b"key", 2 * TOKEN_ROTATION_S)
    asked_now_and_then = mint()
    token = asked_now_and_then.token(b"\1\2\3\4\0\11", b"key", 0.0)
    asked_now_and_then.token(b"\0\1", b"", TOKEN_ROTATION_S)
    assert asked_now_and_then.knows(token, b"\1\2\3\4\0\11", b"key", TOKEN_ROTATION_S + 1)
    asked_now_and_then.token(b"\0\1", b"", 2 * TOKEN_ROTATION_S)
    assert not asked_now_and_then.knows(token, b"\1\2\3\4\0\11", b"key", 2 * TOKEN_ROTATION_S + 1)


# Open queries


def open_query(number: int) -> OpenQuery:
    query = Query(Method.PING, "main", bytes(20), True)
    return OpenQuery(bytes([number]), ("1.2.3.4", 9), None, query, b"", lambda _: None, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100)), max_size=60))
def test_each_query_is_due_once_at_its_last_time_or_never_if_closed(
    steps: list[tuple[int, float]],
) -> None:
    waiting = OpenQueries(1000)
    queries = [open_query(number) for number in range(4)]
    expected: dict[bytes, float] = {}
    for number, at in steps:
        query = queries[number]
        if not query.open:
            continue
        if at < 10:
            if query.message_id in expected:
                waiting.close(query)
                del expected[query.message_id]
        else:
            waiting.wait(query, at)
            expected[query.message_id] = at
    assert len(waiting) == len(expected)
    while (next_due_at := waiting.next_due_at) is not None:
        assert next_due_at == min(expected.values())
        for query in waiting.due(next_due_at):
            assert expected.pop(query.message_id) == next_due_at
            waiting.close(query)
            waiting.close(query)
    assert expected == {}
    assert len(waiting) == 0


def test_of_queries_due_at_once_one_that_another_has_ended_is_left_out() -> None:
    queries = OpenQueries(10)
    first, second = made = [open_query(number) for number in range(2)]
    for query in made:
        queries.wait(query, 5.0)
    due = []
    for query in queries.due(5.0):
        due.append(query)
        queries.close(second if query is first else first)
    assert due == [first]


# Inheritance


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_a_newcomer_gets_each_record_from_two_nodes_if_it_should_have_it_at_all(
    seed: int, count: int
) -> None:
    rng = random.Random(seed)
    everybody = [Contact(rng.randbytes(20), rng.randbytes(4), 9) for _ in range(count)]
    newcomer, key = everybody[0], rng.randbytes(20)
    target = int.from_bytes(key, "big")
    ranked = sorted(everybody, key=lambda it: it.long_id ^ target)

    def gives(node: Contact) -> bool:
        others = [it for it in everybody if it is not node]

        def closest(target: int, wanted: int) -> list[Contact]:
            return sorted(others, key=lambda it: it.long_id ^ target)[:wanted]

        return inheritances(
            newcomer, [key], node.long_id, closest, lambda _: True, K, 1 << 160
        ) == [key]  # fmt: skip

    givers = [node for node in everybody if node is not newcomer and gives(node)]
    rank = ranked.index(newcomer)
    assert givers == ([] if rank >= K else sorted(ranked[rank + 1 : rank + 3], key=everybody.index))


def test_who_cannot_survey_the_neighbourhood_gives_nothing() -> None:
    assert gives_to(contact(1), surveyed=True)
    assert not gives_to(contact(1), surveyed=False)


def test_who_is_hardly_one_of_the_closest_by_the_size_of_the_network_inherits_nothing() -> None:
    near, far = contact(1), Contact((1 << 90).to_bytes(20, "big"), bytes(4), 9)
    assert gives_to(near)
    assert not gives_to(far)


def gives_to(newcomer: Contact, *, surveyed: bool = True) -> bool:
    """Whether a node that knows nobody else gives it a record whose key is zero."""
    key, own_id = bytes(20), 9 << 100
    return inheritances(
        newcomer, [key], own_id, lambda *_: [], lambda _: surveyed, K, 1 << 80
    ) == [key]  # fmt: skip


def test_who_knows_enough_closer_ones_itself_is_given_nothing() -> None:
    key = (255).to_bytes(20, "big")
    closer = [contact(255 ^ number).compact for number in range(K)]
    far = [contact(255 ^ number).compact for number in range(100, 100 + K)]
    newcomer = contact(255 ^ 50)
    assert not is_among(newcomer, key, closer, K)
    assert is_among(newcomer, key, [*closer[1:], far[0]], K)
    assert is_among(newcomer, key, far, K)
    assert is_among(newcomer, key, [], K)


# Answers remembered


def test_an_answer_is_remembered_until_it_is_old_or_has_expired(
    identity: Identity, sign: Sign
) -> None:
    limits = DHTLimits(cached_max=2, cache_s=60, absent_cache_s=1)
    cache = AnswerCache(limits)
    peer_id = identity.node_id
    old, new = sign(identity, 5, expiry=1000), sign(identity, 6, expiry=1000)
    cache.absent(peer_id, 0.0)
    assert cache.known_absent(peer_id, 0.9)
    assert not cache.known_absent(peer_id, 1.0)
    cache.found(new, 2.0)
    cache.found(old, 3.0)
    assert cache.record(peer_id, 61.9, 999.0) == new
    assert cache.record(peer_id, 62.0, 999.0) is None
    assert cache.record(peer_id, 10.0, 1000.0) is None
    assert not cache.known_absent(peer_id, 10.0)
    newer = sign(identity, 7, expiry=1000)
    cache.found(newer, 20.0)
    assert cache.record(peer_id, 20.0, 20.0) == newer
    cache.found(newer, 50.0)  # Found again, it is good for another minute.
    assert cache.record(peer_id, 109.0, 109.0) == newer
    for seed in range(3):
        cache.absent(Identity.generate(random.Random(seed + 10).randbytes).node_id, 0.0)
    assert len(cache) == 2
    cache.forget(peer_id)
    assert cache.record(peer_id, 0.0, 0.0) is None


# Times and rates


def test_who_is_patient_is_so_by_what_was_measured() -> None:
    estimate = RoundTripEstimate(0.3, 0.7)
    assert estimate.soft_timeout_s(0.35, 0.1) == 0.35
    assert estimate.timeout_s == 0.7
    for _ in range(50):
        estimate.observe(0.001)
    assert estimate.soft_timeout_s(0.35, 0.1) == 0.1
    assert estimate.timeout_s == 0.3
    for _ in range(50):
        estimate.observe(5.0)
    assert estimate.soft_timeout_s(0.35, 0.1) == estimate.timeout_s == 0.7


def test_patience_is_the_mean_round_trip_and_several_deviations() -> None:
    """With the weights of RFC 6298."""
    estimate = RoundTripEstimate(0.01, 10.0)
    for round_trip_s, mean_s, deviation_s in (
        (0.1, 0.1, 0.05),
        (0.2, 0.1125, 0.0625),
        (0.1125, 0.1125, 0.046875),
    ):
        estimate.observe(round_trip_s)
        assert estimate.timeout_s == pytest.approx(mean_s + 4 * deviation_s)
        assert estimate.soft_timeout_s(9.0, 0.01) == pytest.approx(mean_s + 3 * deviation_s)


takings = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 10), st.sampled_from((0.0, 0.25, 1.0, 9.0))),
    max_size=20,
)


@given(takings)
def test_who_must_leave_half_of_a_bucket_keeps_nobody_from_that(
    asked: list[tuple[int, int, float]],
) -> None:
    bucket, now, level = Bucket(4.0), 0.0, 4.0 * BURST_S
    for who, times, pause_s in asked:
        now += pause_s
        level = min(4.0 * BURST_S, level + 4.0 * pause_s)
        leave = bucket.half if who else 0.0
        for _ in range(times):
            may = level >= 1 + leave
            assert bucket.take(now, leave) == may
            level -= may
            assert bucket.strained == (level < 1 + 2.0 * BURST_S)


@given(takings)
def test_a_source_may_use_what_is_in_its_bucket(asked: list[tuple[int, int, float]]) -> None:
    """Whatever is forgotten of it meanwhile."""
    limit, now, of_each = SourceLimit(2.0), 0.0, [2.0 * BURST_S] * 4
    for source, times, pause_s in asked:
        now += pause_s
        of_each = [min(2.0 * BURST_S, level + 2.0 * pause_s) for level in of_each]
        for _ in range(times):
            may = of_each[source] >= 1
            assert limit.allow(source, now) == may
            of_each[source] -= may


def test_who_begins_when_its_pace_says_is_never_refused_by_a_node_of_that_rate() -> None:
    pace, node = Pace(100.0), SourceLimit(100.0)
    begun = [pace.wait_s(0.0) for _ in range(1000)]
    assert 200 <= begun.count(0.0) <= 201
    assert all(node.allow("me", begin_s) for begin_s in begun)
    assert begun[-1] < 8.1
    assert [pace.wait_s(100.0, units=150) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_silent_sources_take_no_memory() -> None:
    limit = SourceLimit(10.0)
    for number in range(10_000):
        assert limit.allow(number, number * 0.1)
    remembered = len(limit)
    assert BURST_S / 0.1 < remembered <= 2 * BURST_S / 0.1 + 1  # of this turn and the last
    for number in range(10_000):
        limit.allow(-number, 1000.0)
    assert SOURCES_MAX / 2 < len(limit) <= SOURCES_MAX


def test_statistics_tell_rates_since_they_were_last_asked_for() -> None:
    traffic = Traffic(100.0)
    first = traffic.rates({"query_ping": 10, "sent_store": 4, "other": 9}, 110.0)
    assert (first["queries_answered_per_s"], first["queries_sent_per_s"]) == (1.0, 0.4)
    second = traffic.rates({"query_ping": 10, "sent_store": 8}, 112.0)
    assert (second["queries_answered_per_s"], second["queries_sent_per_s"]) == (0.0, 2.0)
    assert (second["over_s"], traffic.uptime_s(112.0)) == (2.0, 12.0)
    text = overview({"contacts": 3, "counters": {"b": 1, "a": 2}})
    assert [line.split() for line in text.splitlines()] == [
        ["contacts", "3"],
        ["a", "2"],
        ["b", "1"],
    ]


# Newcomers


def test_a_newcomer_is_looked_at_twice_and_a_host_that_is_new_again_waits() -> None:
    newcomers = Newcomers(300.0, 10)
    first, other, *ids = (contact(number) for number in range(1, 9))
    assert newcomers.met([("a", first), ("b", other)], 0.0) == [first, other]
    assert newcomers.again(10.0) == []
    assert newcomers.again(30.0) == [first, other]
    assert newcomers.again(60.0) == []
    for second, newcomer in enumerate(ids):  # "a" changes its id all the time.
        assert newcomers.met([("a", newcomer)], 100.0 + second) == []
    assert newcomers.again(329.0) == []
    assert newcomers.again(330.0) == [ids[-1]]
    assert newcomers.met([("b", first)], 331.0) == [first]


def test_the_memory_of_newcomers_is_bounded() -> None:
    newcomers = Newcomers(300.0, 10)
    for number in range(20):
        newcomers.met([(number, contact(1)), (number, contact(2))], 0.0)
    assert len(newcomers.again(300.0)) == 10
    assert len(newcomers._looked_at) == 10


@pytest.mark.parametrize(
    ("bootstrap", "listen"),
    [
        ([], "127.0.0.1:0"),
        (["127.0.0.1:9100", "localhost:9101"], "127.0.0.1:0"),
        (["127.0.0.1:9100", "8.8.8.8:9100"], "0.0.0.0:0"),
        (["dht.example.org:9100"], "0.0.0.0:0"),
        (["[::1]:9100"], "[::1]:0"),
        (["[2001:4860::1]:9100"], "[::]:0"),
        (["[::ffff:8.8.8.8]:9100"], "0.0.0.0:0"),
        (["[::ffff:127.0.0.1]:9100"], "127.0.0.1:0"),
    ],
)
def test_a_node_listens_by_default_where_it_can_reach_its_bootstrap_nodes_from(
    bootstrap: list[str], listen: str
) -> None:
    assert default_listen(bootstrap, ()) == listen
    literal = [text for text in bootstrap if not text[0].isalpha()]
    contacts = [Contact(bytes(20), Address.parse(text).ip, 9100) for text in literal]
    if contacts:
        assert default_listen((), contacts) == listen
