"""Machines go by their tables: each event in each state leads to what the table says."""

from __future__ import annotations

from itertools import product

import pytest

from egtp.own.own_addresses import OBSERVED_LIFE, OwnAddresses, OwnEvent, OwnState
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import Answers
from egtp.queries.asker import ANSWER_LIFE, AnswerEvent, AnswerState
from egtp.queries.outgoing import Outgoing
from egtp.state_table import State, StateTable
from egtp.values.comm_strat import Address
from egtp.values.identity import NodeId


class Light(State):
    RED = "red"
    GREEN = "green"
    BROKEN = "broken"


class Push(State):
    BUTTON = "the button"
    HAMMER = "a hammer"


ROWS = [
    (Light.RED, Push.BUTTON, Light.GREEN),
    (Light.GREEN, Push.BUTTON, Light.RED),
    (Light.RED, Push.HAMMER, Light.BROKEN),
    (Light.GREEN, Push.HAMMER, Light.BROKEN),
]


def test_what_has_no_row_changes_nothing() -> None:
    table = StateTable(Light.RED, ROWS)
    assert table.after(Light.GREEN, Push.BUTTON) is Light.RED
    assert table.after(Light.BROKEN, Push.BUTTON) is Light.BROKEN
    assert table.on(Push.HAMMER) == dict.fromkeys(Light, Light.BROKEN)


def test_a_table_without_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        StateTable(Light.RED, [*ROWS, (Light.RED, Push.BUTTON, Light.BROKEN)])
    with pytest.raises(ValueError, match="nothing leads to"):
        StateTable(Light.RED, ROWS[1:])


def test_a_picture_has_an_arrow_for_each_row() -> None:
    assert StateTable(Light.RED, ROWS[:3]).mermaid() == (
        "stateDiagram-v2\n"
        '    state "red" as red\n'
        '    state "green" as green\n'
        '    state "broken" as broken\n'
        "    [*] --> red\n"
        "    red --> green: the button\n"
        "    green --> red: the button\n"
        "    red --> broken: a hammer\n"
        "    broken --> [*]\n"
    )


PEER, US = NodeId(bytes(20)), Address(bytes([8, 8, 8, 8]), 4000)


def observed_in(state: OwnState) -> OwnAddresses:
    own = OwnAddresses(private_addresses=False, lan_addresses=False, recheck_s=60, retry_s=1)
    own.listen([Address(bytes(4), 4000)])
    own.elected(US.ip)
    if state is OwnState.CONFIRMED:
        own.confirmed(US, 0.0)
    elif state is OwnState.FAILED:
        own.failed(US, "nobody is there", 0.0)
    return own


@pytest.mark.parametrize(("state", "event"), list(product(OBSERVED_LIFE.states, OwnEvent)))
def test_an_observed_address_goes_by_its_table(state: OwnState, event: OwnEvent) -> None:
    own = observed_in(state)
    (before,) = own.explain({})
    assert before.state is state
    if event is OwnEvent.CAME:
        own.confirmed(US, 1.0)
    elif event is OwnEvent.DID_NOT_COME:
        own.failed(US, "nobody is there", 1.0)
    else:
        own.nobody_looked(US, "nobody could be asked", 1.0)
    (after,) = own.explain({})
    assert after.state is OBSERVED_LIFE.after(state, event)
    assert after.announced == (after.state is OwnState.CONFIRMED)


@pytest.mark.parametrize(("state", "event"), list(product(ANSWER_LIFE.states, AnswerEvent)))
def test_an_answer_goes_by_its_table(state: AnswerState, event: AnswerEvent) -> None:
    answers = Answers(AnswerLimits(bytes_max=16_000))
    asker = answers.session_began(PEER, b"the first", 1, 0.0)
    assert asker is not None
    _, answer = answers.ask(asker, 0, b"a reference", 60.0, 0.0)
    assert answer is not None
    if state is AnswerState.KEPT:
        answers.answered(asker, answer, Outgoing(bytes(100), 0.0))
    elif state is AnswerState.RAN:
        answers.ended(answer)
    elif state is AnswerState.FORGOTTEN:
        answers.settle(asker, 1)
    assert answer.state is state
    if event is AnswerEvent.REPLY and state in (AnswerState.RUNNING, AnswerState.FORGOTTEN):
        answers.answered(asker, answer, Outgoing(bytes(100), 0.0))
    elif event is AnswerEvent.NO_REPLY:
        answers.ended(answer)
    elif event is AnswerEvent.LET_GO:
        answers.look(1e9, 1)
    elif event is AnswerEvent.FINISHED:
        answers.settle(asker, 1)
    elif event is AnswerEvent.HARMLESS and state in (AnswerState.RUNNING, AnswerState.FORGOTTEN):
        answers.forget(asker, answer)
    assert answer.state is ANSWER_LIFE.after(state, event)
    assert (answer.reply is not None) == (answer.state is AnswerState.KEPT)
    assert answers.bytes == (100 if answer.state is AnswerState.KEPT else 0)
    assert answers.entries == (answer.state is not AnswerState.FORGOTTEN)


def test_an_answer_too_large_to_keep_only_ran() -> None:
    answers = Answers(AnswerLimits(bytes_max=1600))
    asker = answers.session_began(PEER, b"the first", 1, 0.0)
    assert asker is not None
    _, answer = answers.ask(asker, 0, b"a reference", 60.0, 0.0)
    assert answer is not None
    answers.answered(asker, answer, Outgoing(bytes(101), 0.0))
    assert answer.state is AnswerState.RAN
