"""The digest of a trace depends on all that happened, and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Trace

PACKET: dict[str, Any] = {
    "at_s": 1.5,
    "kind": "udp",
    "source": ("192.0.2.1", 1),
    "target": ("198.51.100.1", 2),
    "data": b"hello",
}
times = st.floats(0, 1e9).map(lambda seconds: round(seconds, 3))
entries = st.lists(
    st.one_of(
        st.tuples(times, st.text(max_size=10)), st.tuples(times, st.binary(min_size=1, max_size=10))
    ),
    max_size=5,
)


def traced(entries: list[tuple[float, str | bytes]]) -> Trace:
    trace = Trace(keep=True)
    for at_s, what in entries:
        if isinstance(what, str):
            trace.note(at_s, what)
        else:
            trace.packet(at_s, "udp", ("192.0.2.1", 1), ("198.51.100.1", 2), what)
    return trace


def digest_of(**fields: Any) -> str:
    trace = Trace()
    trace.packet(**fields)
    return trace.digest


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("at_s", 1.500000001),
        ("kind", "tcp"),
        ("source", ("192.0.2.2", 1)),
        ("source", ("192.0.2.1", 2)),
        ("target", ("198.51.100.2", 2)),
        ("target", ("198.51.100.1", 1)),
        ("data", b"hellp"),
        ("data", b"hello "),
        ("data", b""),
    ],
)
def test_each_field_of_a_packet_counts(field: str, other: object) -> None:
    assert digest_of(**PACKET) == digest_of(**PACKET)
    assert digest_of(**PACKET) != digest_of(**{**PACKET, field: other})


@given(entries, entries)
def test_two_traces_have_one_digest_only_if_they_are_the_same(
    one: list[tuple[float, str | bytes]], other: list[tuple[float, str | bytes]]
) -> None:
    assert (traced(one).digest == traced(other).digest) == (one == other)


def test_the_border_between_two_entries_counts() -> None:
    one, other = Trace(), Trace()
    one.note(1, "a")
    one.note(2, "b")
    other.note(1, "a2.000000000 b")
    assert one.digest != other.digest


def test_the_digest_is_there_at_any_time_and_the_order_counts() -> None:
    trace, other = Trace(), Trace()
    empty = trace.digest
    assert empty == other.digest
    trace.note(1, "a")
    between = trace.digest
    assert between != empty
    trace.note(2, "b")
    other.note(2, "b")
    other.note(1, "a")
    assert trace.digest not in {between, other.digest}


def test_lines_are_kept_only_if_asked_for_and_change_nothing() -> None:
    kept, not_kept = Trace(keep=True), Trace()
    for trace in (kept, not_kept):
        trace.note(1, "something happens")
        trace.packet(**PACKET)
    assert not_kept.lines is None
    assert kept.lines is not None
    assert kept.digest == not_kept.digest
    assert kept.entries == not_kept.entries == len(kept.lines) == 2
    assert kept.lines[0] == "1.000000000 something happens"
    assert kept.lines[1].startswith("1.500000000 udp 192.0.2.1 1 > 198.51.100.1 2 5 ")


def test_what_is_in_a_packet_is_seen_in_its_line() -> None:
    trace = Trace(keep=True)
    trace.packet(**PACKET)
    trace.packet(**{**PACKET, "data": b"jello"})
    assert trace.lines is not None
    assert trace.lines[0] != trace.lines[1]
