"""The own record: its number is never used twice and never goes back, whatever crashes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.errors import InvalidConfig, InvalidRecord
from egtp.identity_file import IdentityFile
from egtp.own.own_record import MemorySequence, OwnRecord, SequenceStore
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.identity import Identity
from egtp.values.mutable_item import SEQUENCE_LIMIT

LIFETIME_S = 7200.0
NOW = 1_700_000_000


def strategies(port: int) -> tuple[CommStrat, ...]:
    return (TCPStrat(Address(bytes([8, 8, 8, 8]), port)),)


class PowerFailure(Exception):
    pass


class Disk:
    """Stores durably; can fail before or after it has done so."""

    def __init__(self) -> None:
        self.sequence = 0
        self.history: list[int] = []
        self.fails: str | None = None

    def load_sequence(self) -> int:
        return self.sequence

    def store_sequence(self, sequence: int) -> None:
        if self.fails == "full":
            raise InvalidConfig("no space left")
        if self.fails == "before":
            raise PowerFailure
        self.sequence = sequence
        self.history.append(sequence)
        if self.fails == "after":
            raise PowerFailure


class Watched(Identity):
    """Tells before it signs."""

    __slots__ = ("before",)
    before: Callable[[], None]

    def sign(self, buffer: bytes) -> bytes:
        self.before()
        return super().sign(buffer)


def nobody(_: object) -> None:
    """Is told anything here."""


def own_record(
    identity: Identity,
    store: SequenceStore,
    clock: Callable[[], float] = lambda: NOW,
) -> OwnRecord:
    return OwnRecord(identity, bytes(8), store, clock, LIFETIME_S, nobody, tuple, nobody)


class OwnRecordMachine(RuleBasedStateMachine):
    """Restarts, crashes at the worst moment, and a wall clock that is set at will."""

    def __init__(self) -> None:
        super().__init__()
        parts = iter((bytes([1]) * 32, bytes([2]) * 32))
        self.identity = Watched.generate(lambda _: next(parts))
        self.identity.before = self._about_to_sign
        self.signed: list[int] = []
        self.disk = Disk()
        self.now = float(NOW)
        self.own: OwnRecord | None = None
        self.start()

    def _about_to_sign(self) -> None:
        assert self.disk.sequence not in self.signed, "a number that was signed before"
        assert self.disk.sequence > max(self.signed, default=0), "went back"
        self.signed.append(self.disk.sequence)

    @rule()
    def start(self) -> None:
        self.disk.fails = None
        self.own = own_record(self.identity, self.disk, lambda: self.now)

    @rule(to=st.one_of(st.floats(1, 2e9), st.just(0.0), st.just(float(NOW))))
    def the_clock_is_set(self, to: float) -> None:
        self.now = to

    @rule(port=st.integers(1, 3))
    def change(self, port: int) -> None:
        if self.own is not None:
            differs = self.own.current.strategies != strategies(port)
            before = self.own.current
            assert self.own.change(strategies(port)) == differs
            assert (self.own.current is before) == (not differs)
            assert self.own.current.strategies == strategies(port)

    @rule()
    def renew(self) -> None:
        if self.own is not None:
            before = self.own.current
            self.own.renew()
            assert self.own.current.strategies == before.strategies

    @rule(ahead=st.integers(-1000, 1000))
    def somebody_holds_a_record(self, ahead: int) -> None:
        if self.own is not None:
            before = self.own.current.sequence
            seen = max(1, before + ahead)
            assert self.own.saw(seen) == (seen >= before)
            assert self.own.current.sequence > seen or seen < before

    @rule(port=st.integers(1, 3), ahead=st.integers(0, 1000))
    def the_disk_is_full_for_a_while(self, port: int, ahead: int) -> None:
        if self.own is None:
            return
        self.disk.fails, current = "full", self.own.current
        assert not self.own.saw(current.sequence + ahead)
        assert not self.own.change(strategies(port))
        assert not self.own.try_again()
        assert self.own.current is current
        self.disk.fails = None
        assert self.own.try_again()
        assert self.own.current.sequence > current.sequence + ahead
        assert self.own.current.strategies == strategies(port)

    @rule(when=st.sampled_from(["before", "after"]), what=st.sampled_from(["renew", "saw"]))
    def crash(self, when: str, what: str) -> None:
        if self.own is None:
            return
        self.disk.fails = when
        signed, current = len(self.signed), self.own.current
        with pytest.raises(PowerFailure):
            if what == "renew":
                self.own.renew()
            else:
                self.own.saw(self.own.current.sequence + 5)
        # What is not durable must not have been signed, still less be in use.
        assert len(self.signed) == signed
        assert self.own.current is current
        self.own = None

    @invariant()
    def what_is_stored_only_grows_and_the_record_is_what_was_stored(self) -> None:
        history = self.disk.history
        assert all(a < b for a, b in pairwise(history))
        if self.own is not None:
            assert self.own.current.sequence == self.disk.sequence == self.signed[-1]
            assert self.own.current.peer_id == self.identity.node_id


def test_no_sequence_is_signed_twice_or_after_a_higher_one() -> None:
    run_state_machine_as_test(OwnRecordMachine)


@given(clocks=st.lists(st.floats(1, 2e9), min_size=2, max_size=4))
def test_a_process_started_anew_on_the_same_file_goes_on_above_whatever_the_clock_says(
    tmp_path_factory: pytest.TempPathFactory, clocks: list[float]
) -> None:
    path = tmp_path_factory.mktemp("identity") / "identity"
    highest = 0
    for clock in clocks:
        # No close in between but that of the file: a crash says no goodbye.
        with IdentityFile.open(path) as file:
            own = own_record(file.identity, file, lambda clock=clock: clock)  # type: ignore[misc]
            assert own.current.sequence > highest
            own.renew()
            highest = own.current.sequence
            assert file.load_sequence() == highest


def test_a_sequence_is_at_least_the_unix_time(alice: Identity) -> None:
    own = own_record(alice, MemorySequence(), lambda: NOW + 0.9)
    assert own.current.sequence == NOW
    assert own.current.expiry_unix_s == NOW + LIFETIME_S


def test_two_records_in_one_second_have_two_numbers(alice: Identity) -> None:
    own = own_record(alice, MemorySequence())
    own.change(strategies(1))
    own.renew()
    assert own.current.sequence == NOW + 2


def test_only_a_record_as_high_as_ours_makes_us_sign_again(alice: Identity) -> None:
    own = own_record(alice, MemorySequence())
    assert not own.saw(NOW - 1)
    assert own.current.sequence == NOW
    assert own.saw(NOW), "another record with this number"
    assert own.current.sequence == NOW + 1
    assert own.saw(NOW + 10)
    assert own.current.sequence == NOW + 11


def test_what_does_not_fit_into_a_record_is_left_out_the_last_first(alice: Identity) -> None:
    """Eight relays with all their hints are more than a record holds."""
    hints = tuple(Address(bytes([8] * 16), port) for port in range(1, 5))
    relays = tuple(RelayStrat(bytes([n]) * 32, 1, bytes(32), hints) for n in range(1, 8))
    own = own_record(alice, MemorySequence())
    assert own.change(strategies(1) + relays)
    said = own.current.strategies
    assert 1 < len(said) < 8
    assert said == (strategies(1) + relays)[: len(said)]
    assert not own.change(strategies(1) + relays)
    own.renew()
    assert own.current.strategies == said


def test_the_last_number_of_all_does_not_stop_the_node_from_starting_again(
    alice: Identity,
) -> None:
    """Only the owner can sign it, with a clock that is wrong by millions of years; but what was
    stored because of it would be there at every start."""
    disk = Disk()
    own = own_record(alice, disk)
    with contextlib.suppress(InvalidRecord, InvalidConfig):
        own.saw(SEQUENCE_LIMIT - 1)
    assert disk.sequence < SEQUENCE_LIMIT, "a number that can never be signed was stored"
    assert own.renew(), "and this process goes on as well"
    own_record(alice, disk)


def test_a_memory_sequence_remembers_within_its_process() -> None:
    store = MemorySequence()
    assert store.load_sequence() == 0
    store.store_sequence(7)
    assert store.load_sequence() == 7


def test_a_number_that_cannot_be_stored_signs_nothing_until_it_can(
    tmp_path: Path,
) -> None:
    """A disk that is full for a moment: the record before is used on, and nothing is forgotten of
    what the next one is to say."""
    folder, told = tmp_path / "folder", list[str]()
    folder.mkdir()
    with IdentityFile.open(folder / "identity") as file:
        own = OwnRecord(
            file.identity,
            bytes(8),
            file,
            lambda: NOW,
            LIFETIME_S,
            lambda before: told.append(f"signed after {before}"),
            tuple,
            lambda error: told.append(f"not stored: {error}"),
        )
        before = own.current
        folder.rename(tmp_path / "elsewhere")
        assert not own.change(strategies(1))
        assert own.is_behind
        # The store is not asked each time.
        assert not any([own.renew(), own.saw(NOW + 5), own.change(strategies(2))])
        (why,) = told
        assert why.startswith(f"not stored: cannot use {folder}")
        assert not own.try_again()
        assert own.current is before
        assert told == [why] * 2
        (tmp_path / "elsewhere").rename(folder)
        assert file.load_sequence() == NOW
        assert own.try_again()
        assert own.current.strategies == strategies(2)
        assert own.current.sequence == file.load_sequence() == NOW + 6
        assert told[2:] == [f"signed after {NOW}"]
        assert own.renew()


def test_while_none_can_be_stored_the_highest_number_seen_is_remembered(alice: Identity) -> None:
    disk = Disk()
    own = own_record(alice, disk)
    disk.fails = "full"
    assert not any(own.saw(NOW + ahead) for ahead in (100, 10))
    disk.fails = None
    assert own.try_again()
    assert own.current.sequence == NOW + 101


def test_what_could_not_be_signed_is_not_taken_for_said(alice: Identity) -> None:
    disk = Disk()
    own = own_record(alice, disk)
    disk.fails = "before"
    with pytest.raises(PowerFailure):
        own.change(strategies(1))
    disk.fails = None
    assert own.change(strategies(1))
    assert own.current.strategies == strategies(1)


def test_without_a_first_record_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with IdentityFile.open(folder / "identity") as file:
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(InvalidConfig, match="cannot use"):
            own_record(file.identity, file)
