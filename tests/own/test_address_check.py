"""Dial-back's question on the wire, and how often a node dials for others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import HandlerFailed, InvalidMessage
from egtp.limits.check_quota import CheckQuota
from egtp.own.address_check import Checked, Outcome, decode_check, encode_check
from egtp.own.dial_back import DialBack
from egtp.values import canonical
from egtp.values.identity import NodeId

PORTS = st.integers(1, 65535)
TOKENS = st.binary(min_size=16, max_size=16)


def peer(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def ip(number: int) -> bytes:
    return (9 << 24 | number).to_bytes(4, "big")


@given(PORTS, TOKENS)
def test_a_question_comes_back_as_it_was_asked(port: int, token: bytes) -> None:
    assert decode_check(encode_check(port, token)) == (port, token)


@given(PORTS, TOKENS, st.lists(st.none() | st.binary(max_size=4) | st.integers(0, 9), max_size=5))
def test_what_a_later_version_adds_is_skipped(port: int, token: bytes, more: list[None]) -> None:
    assert decode_check(canonical.encode((port, token, *more))) == (port, token)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_question_or_refused(body: bytes) -> None:
    try:
        port, token = decode_check(body)
    except InvalidMessage:
        return
    assert 1 <= port <= 65535
    assert len(token) == 16


@pytest.mark.parametrize("fields", [(4000,), (0, bytes(16)), (True, bytes(16)), (4000, bytes(15))])
def test_what_is_out_of_range_is_refused(fields: tuple[int | bytes, ...]) -> None:
    with pytest.raises(InvalidMessage):
        decode_check(canonical.encode(fields))


def test_a_peer_and_an_address_wait_for_their_interval() -> None:
    quota = CheckQuota(100, 10.0)
    assert quota.take(peer(1), ip(1), 0.0, stranger=False)
    assert not quota.take(peer(1), ip(2), 9.9, stranger=False)
    assert not quota.take(peer(2), ip(1), 9.9, stranger=False)
    assert quota.take(peer(2), ip(2), 9.9, stranger=False)
    assert quota.take(peer(1), ip(1), 10.0, stranger=False)


def test_addresses_of_one_64_are_one() -> None:
    quota = CheckQuota(100, 10.0)
    prefix = bytes.fromhex("2a00000100020003")
    assert quota.take(peer(1), prefix + bytes(8), 0.0, stranger=False)
    assert not quota.take(peer(2), prefix + b"\1" * 8, 0.0, stranger=False)


asked = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.floats(0, 5)), max_size=200)


@given(asked, st.integers(0, 12))
def test_no_interval_and_no_minute_ever_sees_more_than_it_may(
    questions: list[tuple[int, int, float]], per_minute: int
) -> None:
    quota, now_s = CheckQuota(per_minute, 10.0), 0.0
    taken: list[tuple[float, int, int]] = []
    for who, where, pause_s in questions:
        now_s += pause_s
        last_minute = [one for one in taken if now_s - one[0] < 60]
        recent = [one for one in taken if now_s - one[0] < 10]
        may = len(last_minute) < per_minute and not any(
            who == peer_number or where == address for _, peer_number, address in recent
        )
        assert quota.take(peer(who), ip(where), now_s, stranger=False) == may
        if may:
            taken.append((now_s, who, where))
        assert len(quota) <= 2 * per_minute


def test_strangers_leave_some_dials_to_those_who_are_known() -> None:
    quota = CheckQuota(16, 10.0)
    taken = [quota.take(peer(n), ip(n), 0.0, stranger=True) for n in range(20)]
    assert taken == [True] * 14 + [False] * 6
    assert quota.take(peer(99), ip(99), 0.0, stranger=False)


class Refused:
    """Whoever is asked refuses."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def entropy(self, size: int) -> bytes:
        return bytes(size)

    async def ask_directly(self, *_: object) -> bytes:
        raise HandlerFailed(3, self.body, "somebody answered with code 3, busy")


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"", "somebody answered with code 3, busy"), (b"a low port\n", "refused: a low port")],
)
async def test_why_nobody_has_dialled_is_told_in_words(body: bytes, told: str) -> None:
    checked = await DialBack(Refused(body), 5.0).ask(peer(1), 4000)
    assert checked == Checked(Outcome.UNKNOWN, told)


class Asked:
    """Whoever is asked says nothing until it is told to."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def entropy(self, size: int) -> bytes:
        return bytes(size)

    async def ask_directly(self, *_: object) -> bytes:
        return await self.answer


async def test_only_the_one_who_was_asked_arrives_and_only_while_it_is_awaited() -> None:
    asked = Asked()
    dial_back, token = DialBack(asked, 5.0), bytes(16)
    checking = asyncio.ensure_future(dial_back.ask(peer(1), 4000))
    await asyncio.sleep(0)
    assert not dial_back.arrived(peer(2), token)
    assert not dial_back.arrived(peer(1), b"\1" * 16)
    assert [dial_back.arrived(peer(1), token) for _ in range(2)] == [True, True]
    assert await checking == Checked(Outcome.REACHED)
    assert not dial_back.arrived(peer(1), token)
    assert asked.answer.cancelled()


@pytest.mark.parametrize(
    ("said", "told"),
    [(b"no answer\n", "no answer"), (b"", "somebody took the connection, but not this node")],
)
async def test_who_dialled_and_did_not_arrive_has_not_reached_this_node(
    said: bytes, told: str
) -> None:
    asked = Asked()
    asked.answer.set_result(said)
    checked = await DialBack(asked, 5.0).ask(peer(1), 4000)
    assert checked == Checked(Outcome.UNREACHABLE, told)
