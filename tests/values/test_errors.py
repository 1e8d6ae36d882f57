"""The tree of errors: what a caller may rely on when catching them."""

from __future__ import annotations

import copy
import pickle

import pytest

import egtp.errors
from egtp.errors import (
    CanonicalError,
    EgtpError,
    FastFail,
    HandlerFailed,
    HandshakeFailed,
    HardTimeout,
    HedgeFailed,
    InvalidConfig,
    InvalidMessage,
    InvalidPacket,
    InvalidRecord,
    LocalProtocolError,
    LookupFailed,
    LookupFailure,
    NodeClosed,
    OutcomeUnknown,
    ProtocolError,
    PublishFailed,
    QueryFailed,
    RemoteProtocolError,
    WrongLoop,
)
from egtp.values.attempts import Attempt, AttemptReason
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import NodeId

PEER, OTHER_PEER = NodeId(bytes(20)), NodeId(bytes([1] * 20))

ATTEMPTS = (
    Attempt(TCPStrat(Address(bytes([192, 0, 2, 7]), 4000)), AttemptReason.REFUSED, 0.012),
    Attempt(None, AttemptReason.NOT_FOUND, 0.25),
)

ERRORS: list[EgtpError] = [
    FastFail("no way to reach the peer", ATTEMPTS),
    HardTimeout("no reply in 5 s", may_have_run=True),
    HardTimeout("no reply in 5 s", may_have_run=False),
    OutcomeUnknown("the peer was restarted"),
    NodeClosed(),
    NodeClosed("closed while waiting", may_have_run=True),
    HandlerFailed(3),
    HandlerFailed(64, b"body"),
    HandlerFailed(65, b"body", "no such account"),
    *(LookupFailed(reason) for reason in LookupFailure),
    LookupFailed(LookupFailure.INVALID, "three forged records"),
    PublishFailed("no node stored it"),
    HedgeFailed((), (PEER, OTHER_PEER)),
    LocalProtocolError("no"),
    CanonicalError("no"),
    InvalidConfig("no"),
    WrongLoop("no"),
]


def test_one_root_catches_everything_that_is_exported() -> None:
    exported = [getattr(egtp.errors, name) for name in egtp.errors.__all__]
    errors = [kind for kind in exported if issubclass(kind, BaseException)]
    assert len(errors) == len(exported) - 2  # the two enums of reasons are values
    assert all(issubclass(kind, EgtpError) for kind in errors)
    assert all(issubclass(kind, Exception) for kind in errors)


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (FastFail, ConnectionError),
        (HardTimeout, TimeoutError),
        (LocalProtocolError, ProtocolError),
        (LocalProtocolError, ValueError),
        (RemoteProtocolError, ProtocolError),
        (CanonicalError, RemoteProtocolError),
        (InvalidMessage, RemoteProtocolError),
        (InvalidRecord, RemoteProtocolError),
        (InvalidPacket, RemoteProtocolError),
        (HandshakeFailed, RemoteProtocolError),
        (InvalidConfig, ValueError),
        (WrongLoop, RuntimeError),
    ],
)
def test_errors_are_caught_by_the_names_a_caller_would_try(
    kind: type[Exception], also: type[Exception]
) -> None:
    assert issubclass(kind, also)


def test_what_ends_a_query_is_caught_apart_from_what_makes_trying_again_vain() -> None:
    ended = [error for error in ERRORS if isinstance(error, QueryFailed)]
    assert {type(error) for error in ended} == {
        FastFail, HardTimeout, OutcomeUnknown, HandlerFailed, HedgeFailed
    }  # fmt: skip
    assert all(type(error.may_have_run) is bool for error in ended)


def test_what_a_stranger_did_is_never_taken_for_the_callers_mistake() -> None:
    for kind in (CanonicalError, InvalidMessage, InvalidRecord, InvalidPacket, HandshakeFailed):
        assert not issubclass(kind, ValueError)
        assert not issubclass(kind, LocalProtocolError)


def test_only_fast_fail_promises_that_nothing_ran() -> None:
    assert FastFail("x").may_have_run is False
    assert OutcomeUnknown("x").may_have_run is True
    assert HardTimeout("x", may_have_run=True).may_have_run is True
    assert HardTimeout("x", may_have_run=False).may_have_run is False
    assert NodeClosed("x", may_have_run=True).may_have_run is True


def test_a_fast_fail_lists_every_attempt() -> None:
    error = FastFail("no way to reach the peer", ATTEMPTS)
    assert error.attempts == ATTEMPTS
    assert str(error) == (
        "no way to reach the peer; "
        "tcp 192.0.2.7:4000: connection refused (12 ms); "
        "lookup: no record found (250 ms)"
    )
    assert error.errno is None


def test_a_lookup_failure_is_told_in_words() -> None:
    for reason in LookupFailure:
        assert str(LookupFailed(reason)) == reason.value
    assert str(LookupFailed(LookupFailure.INVALID, "forged")) == "forged"


def test_a_handler_failure_keeps_code_and_body() -> None:
    error = HandlerFailed(70, b"why")
    assert (error.code, error.body) == (70, b"why")
    assert "70" in str(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying_and_pickling(error: EgtpError) -> None:
    """Process pools and test runners move errors by pickling; one that cannot be is a hang."""
    for same in (
        copy.copy(error),
        copy.deepcopy(error),
        pickle.loads(pickle.dumps(error)),  # noqa: S301
    ):
        assert type(same) is type(error)
        assert str(same) == str(error)
        assert vars(same) == vars(error)


def test_several_peers_that_fail_are_counted_and_one_is_not() -> None:
    late, refused = HardTimeout("late", may_have_run=True), FastFail("refused")
    assert str(HedgeFailed(((PEER, late),))) == f"the peer did not reply; {PEER}: late"
    assert str(HedgeFailed(((PEER, late), (OTHER_PEER, refused)))) == (
        f"none of 2 peers replied; {PEER}: late; {OTHER_PEER}: refused"
    )


def test_the_outcome_of_several_peers_is_copied_with_each_of_theirs() -> None:
    one, other = FastFail("refused", ATTEMPTS), HardTimeout("late", may_have_run=True)
    error = HedgeFailed(((PEER, one), (OTHER_PEER, other)))
    same = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(same) == str(error)
    assert [(peer, type(its), vars(its)) for peer, its in same.outcomes] == [
        (PEER, FastFail, vars(one)),
        (OTHER_PEER, HardTimeout, vars(other)),
    ]


@pytest.mark.parametrize(
    ("errors", "may_have_run"),
    [
        ([FastFail("refused")], False),
        ([FastFail("refused"), HardTimeout("late", may_have_run=False)], False),
        ([FastFail("refused"), HardTimeout("late", may_have_run=True)], True),
        ([HandlerFailed(2), FastFail("refused")], True),
    ],
)
def test_several_peers_may_have_run_a_query_if_one_of_them_may(
    errors: list[EgtpError], may_have_run: bool
) -> None:
    assert HedgeFailed(tuple((PEER, error) for error in errors)).may_have_run is may_have_run
