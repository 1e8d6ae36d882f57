"""Each attack that the protocol's rules were made against is tried, and tried in vain. And each
would work if its rule were broken: the judge would see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from egtp.channel import handshake
from egtp.channel.session import SlidingWindow
from egtp.engine import routes
from egtp.engine.answering import Answering
from egtp.engine.engine import Engine
from egtp.engine.upkeep import Upkeep
from egtp.paths.channels import SecureChannels
from egtp.paths.handshakes import Handshakes
from egtp.paths.path import Path
from egtp.paths.relayed_paths import RelayedPaths
from egtp.queries.answers import Answers
from egtp.queries.asker import Answer, Asker
from egtp.queries.exchange import Exchange
from egtp.queries.outgoing import Outgoing
from simulations.mallory.attacks import ATTACKS, attack

TWICE = "no handler runs twice for one query"


@pytest.mark.parametrize("name", ATTACKS)
def test_mallory_tries_in_vain(name: str) -> None:
    assert attack(name) == []


def floor_stays(patch: pytest.MonkeyPatch) -> None:
    """Askers are forgotten, and early data that their queries came in is taken all the same."""
    forget = Answers._forget_below

    def broken(answers: Answers, sequence: int) -> None:
        forget(answers, sequence)
        answers.early_floor = 0

    patch.setattr(Answers, "_forget_below", broken)


def settled_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """What is settled is forgotten, and so is that it was settled."""
    settle = Answers.settle

    def broken(answers: Answers, asker: Asker, settled: int) -> None:
        settle(answers, asker, settled)
        asker.floor = 0

    patch.setattr(Answers, "settle", broken)


def answers_are_freed_when_given(patch: pytest.MonkeyPatch) -> None:
    """A query is forgotten as soon as it was answered."""

    def broken(answers: Answers, asker: Asker, answer: Answer, _: Outgoing) -> None:
        answers.forget(asker, answer)

    patch.setattr(Answers, "answered", broken)


def incarnations_are_alike(patch: pytest.MonkeyPatch) -> None:
    """Whoever was restarted is given again what it was given before."""
    patch.setattr(Exchange, "may_be_given_to", lambda *_: True)


def nobody_needs_to_prove_himself(patch: pytest.MonkeyPatch) -> None:
    """A session is used before its other side has shown that it lives."""
    receive = Handshakes.initiation

    def broken(handshakes: Handshakes, *args: Any) -> None:
        sessions = handshakes._sessions
        before = set(sessions.by_index)
        receive(handshakes, *args)
        for index in sessions.by_index.keys() - before:
            path: Path = sessions.by_index[index]
            sessions.unconfirmed.remove(path)
            sessions.confirm(path)

    patch.setattr(Handshakes, "initiation", broken)


def notes_of_unproven_sessions_are_believed(patch: pytest.MonkeyPatch) -> None:
    """Whoever got an answer to a recording need not know its session for Bob to dial Alice, whom
    he takes for somebody that he knows."""
    patch.setattr(Engine, "knows", lambda *_: True)
    receive = SecureChannels._receive_note

    def broken(channels: SecureChannels, *args: Any) -> None:
        sessions = channels.sessions
        unproven = [path for path in sessions.by_index.values() if not path.confirmed]
        known = dict(sessions.by_remote)
        sessions.by_remote.update({path.session.remote_index: path for path in unproven} | known)
        for path in unproven:
            path.confirmed = True
        receive(channels, *args)
        for path in unproven:
            path.confirmed = False
            if path.session.remote_index not in known:
                sessions.by_remote.pop(path.session.remote_index, None)

    patch.setattr(SecureChannels, "_receive_note", broken)


def any_note_is_believed(patch: pytest.MonkeyPatch) -> None:
    """However soon after the one before, and whatever it says of what was sent."""
    patch.setattr(routes, "NOTES_PER_S", 1000.0)
    patch.setattr(Path, "sent_lately", lambda *_: True)


def handshakes_name_nobody(patch: pytest.MonkeyPatch) -> None:
    """Whoever has the channel key is taken for the one who was dialled."""
    prologue = handshake.prologue
    patch.setattr(handshake, "prologue", lambda network, _: prologue(network, bytes(32)))


def what_was_held_is_as_good_as_new(patch: pytest.MonkeyPatch) -> None:
    """Sessions live for ever and open a packet twice, nobody reckons how old it is, and what is
    settled runs: each of these alone is enough to make it harmless."""
    settled_is_ignored(patch)
    patch.setattr(SlidingWindow, "fits", lambda *_: True)
    patch.setattr(Upkeep, "_renew_when_old", lambda *_: None)
    patch.setattr(RelayedPaths, "idle", lambda *_: [])
    patch.setattr(routes.Routes, "_end_dead_others", lambda *_: None)
    receive = Answering.receive

    def broken(
        answering: Answering,
        path: Any,
        peer_id: Any,
        message: Any,
        data: bytes,
        _: int,
        **options: bool,
    ) -> None:
        receive(answering, path, peer_id, message, data, 0, **options)

    patch.setattr(Answering, "receive", broken)


@pytest.mark.parametrize(
    ("break_it", "name", "rule"),
    [
        (floor_stays, "an initiation of a peer whose clock is ahead", TWICE),
        (settled_is_ignored, "a second sealed copy, after everything was acknowledged", TWICE),
        (answers_are_freed_when_given, "a lost answer", TWICE),
        (incarnations_are_alike, "a restart after the query ran", TWICE),
        (
            nobody_needs_to_prove_himself,
            "replayed initiations against live sessions",
            "a path leads to the peer that it says",
        ),
        (
            notes_of_unproven_sessions_are_believed,
            "a note about a session that only a recording asked for",
            "an unconfirmed session leaves nothing behind",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_mallory_wins_if_a_rule_is_broken(
    break_it: Callable[[pytest.MonkeyPatch], None],
    name: str,
    rule: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_it(monkeypatch)
    assert rule in [violation.rule for violation in attack(name)]


@pytest.mark.parametrize(
    ("break_it", "name"),
    [
        (any_note_is_believed, "forged notes that a session is unknown"),
        (handshakes_name_nobody, "a record with the channel key of another"),
        (what_was_held_is_as_good_as_new, "a relay that keeps data packets for hours"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_attack_itself_sees_that_it_was_not_in_vain(
    break_it: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        attack(name)
