"""The relay file's parser: what it takes, and what it says about mistakes."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discovery import FILE_BYTES_MAX, RELAYS_MAX, parse_relay_file
from egtp.discovery_service import Introduction
from egtp.errors import InvalidConfig
from egtp.values.contact_link import ContactLink
from egtp.values.identity import NodeId


def toml_of(links: list[ContactLink], note: str | None = None) -> str:
    entries = []
    for link in links:
        entries.append(f'[[relay]]\ncontact = "{link}"\n')
        if note is not None:
            # Every JSON string is a TOML string, but for DEL, which JSON does not escape.
            entries.append(
                f"note = {json.dumps(note, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
            )
    return "".join(entries)


def mistake_in(data: str | bytes) -> str:
    """What the parser says about ``data``."""
    with pytest.raises(InvalidConfig) as caught:
        parse_relay_file(data.encode() if isinstance(data, str) else data, "relays.toml")
    message = str(caught.value)
    assert message.startswith("relays.toml: ")
    return message


# Text in TOML's own alphabet gets much further into the parser than arbitrary text does.
toml_like = st.lists(
    st.sampled_from(
        [
            "[[relay]]",
            "[relay]",
            "relay",
            "contact",
            "note",
            "=",
            ".",
            "\n",
            '"',
            "'",
            '"""',
            "{",
            "}",
            "[",
            "]",
            ",",
            "1",
            "true",
            "1979-05-27",
            "#",
            "egtp:",
            "a" * 32,
            "\\u0041",
            " ",
        ]
    )
).map("".join)


@given(st.text() | toml_like)
@example("relay = " + "[" * 100_000)
@example("relay = " + "9" * 5_000)
@example("relay = 9999-99-99")
@example('[[relay]]\ncontact = "egtp:' + "=" * 32 + '"')
@example('[[relay]]\ncontact = "egtp:' + "é" * 32 + '"')
@example('[[relay]]\ncontact = "egtp:' + "a" * 32 + '.é"')
def test_any_text_is_a_list_or_an_invalid_config(text: str) -> None:
    try:
        parsed = parse_relay_file(text.encode("utf-8", "surrogatepass"), "relays.toml")
    except InvalidConfig as error:
        assert str(error).startswith("relays.toml: ")  # noqa: PT017 both outcomes are right
    else:
        assert all(isinstance(introduction, Introduction) for introduction in parsed)


@given(st.binary())
def test_any_bytes_are_a_list_or_an_invalid_config(data: bytes) -> None:
    try:
        parse_relay_file(data, "relays.toml")
    except InvalidConfig as error:
        assert str(error).startswith("relays.toml: ")  # noqa: PT017 both outcomes are right


@given(st.data(), st.none() | st.text(st.characters(exclude_categories=["Cs"])))
def test_links_written_into_a_file_come_back_in_its_order(
    links: list[ContactLink], data: st.DataObject, note: str | None
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(links), unique=True))
    parsed = parse_relay_file(toml_of(chosen, note).encode(), "relays.toml")
    assert [ContactLink(each.peer_id, each.record) for each in parsed] == chosen


@given(st.lists(st.binary(min_size=20, max_size=20).map(NodeId), unique=True))
def test_peer_ids_without_records_come_back_in_either_case(peer_ids: list[NodeId]) -> None:
    text = "".join(f'[[relay]]\ncontact = "EGTP:{str(each).upper()}"\n' for each in peer_ids)
    assert parse_relay_file(text.encode(), "r") == tuple(Introduction(each) for each in peer_ids)


@pytest.mark.parametrize("text", ["", "# no relays yet\n", "relay = []"])
def test_a_file_without_relays_is_fine(text: str) -> None:
    assert parse_relay_file(text.encode(), "relays.toml") == ()


def test_a_byte_order_mark_and_windows_line_ends_are_fine(links: list[ContactLink]) -> None:
    data = b"\xef\xbb\xbf" + toml_of(links).replace("\n", "\r\n").encode()
    assert len(parse_relay_file(data, "relays.toml")) == len(links)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relais = 1", "unknown key 'relais'"),
        ("k" * 100 + " = 1", "'" + "k" * 60 + "...'"),
        ("[relay]\ncontact = 'x'", "two brackets"),
        ("relay = [1]", "relay entry 1 is not a table"),
        ("[[relay]]\nnote = 'x'", "relay entry 1 has no contact; add contact ="),
        ("[[relay]]\ncontact = 1", "relay entry 1: contact must be text"),
        ("[[relay]]\ncontact = 'x'\nnote = true", "relay entry 1: note must be text"),
        ("[[relay]]\ncontakt = 'x'", "relay entry 1: unknown key 'contakt'"),
        ("[[relay]]\ncontact = 'http://x'", "starts with egtp:"),
        ("[[relay]]\ncontact = 'egtp:abc'", "relay entry 1: the contact link 'egtp:abc'"),
        ("\n\n[[relay]\n", "line 3"),
        ("[[relay]]\ncontact = 'x'\ncontact = 'x'", "not TOML: "),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    assert said in mistake_in(text)


def test_the_mistaken_entry_is_counted_from_one(links: list[ContactLink]) -> None:
    assert "relay entry 3" in mistake_in(toml_of(links[:2]) + "[[relay]]\n")


def test_bytes_that_are_not_utf8_are_named_with_their_line() -> None:
    assert "line 2 is not UTF-8" in mistake_in(b"# ok\n# caf\xe9\n")


def test_a_record_of_another_peer_is_refused(links: list[ContactLink]) -> None:
    record = str(links[0]).partition(".")[2]
    said = mistake_in(f'[[relay]]\ncontact = "egtp:{links[1].peer_id}.{record}"')
    assert "relay entry 1" in said
    assert "another peer" in said


def test_a_record_with_a_changed_byte_is_refused(links: list[ContactLink]) -> None:
    link = str(links[0])
    changed = link[:-20] + ("A" if link[-20] != "A" else "B") + link[-19:]
    assert "relay entry 1" in mistake_in(f'[[relay]]\ncontact = "{changed}"')


def test_two_links_to_one_relay_are_an_error_that_names_both(links: list[ContactLink]) -> None:
    # With and without its record it is the same relay.
    again = ContactLink(links[0].peer_id)
    said = mistake_in(toml_of([links[0], links[1], again]))
    assert "relay entry 3 names the same relay as entry 1" in said
    assert str(again.peer_id) in said


def test_the_largest_allowed_file_is_read_and_one_byte_more_is_not(
    links: list[ContactLink],
) -> None:
    text = toml_of(links)
    full = (text + "#" + " " * (FILE_BYTES_MAX - len(text) - 1)).encode()
    assert len(parse_relay_file(full, "relays.toml")) == len(links)
    assert "larger than" in mistake_in(full + b" ")


def test_as_many_relays_as_allowed_are_read_and_one_more_is_not() -> None:
    every = [ContactLink(NodeId(n.to_bytes(20, "big"))) for n in range(RELAYS_MAX + 1)]
    assert len(parse_relay_file(toml_of(every[:-1]).encode(), "relays.toml")) == RELAYS_MAX
    assert "at most 1000" in mistake_in(toml_of(every))
