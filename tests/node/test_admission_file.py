"""Who may connect, from a file that is edited while the node runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp import AdmissionFile, ContactLink, Identity, InvalidConfig, NodeId, WrongLoop
from egtp.admission_file import FILE_BYTES_MAX, parse_admission_file
from tests.node.at_hand import Start, greets

ONE, TWO, THREE = (Identity.generate(os.urandom).node_id for _ in range(3))
SELDOM_S = 3600.0
"""Tests have the file looked at themselves."""


def look(*files: AdmissionFile) -> None:
    """An edit is read once the file has not changed between two looks."""
    for file in files:
        file._file.poll()
        file._file.poll()


def parsed(text: str) -> frozenset[NodeId]:
    return parse_admission_file(text.encode(), "fleet.txt")


# What is in it


def test_each_line_names_a_peer_by_its_peer_id_or_a_contact_link() -> None:
    text = f"\ufeff# our fleet\n\n{ONE}  # the gateway\r\negtp:{TWO}\n EGTP:{str(THREE).upper()}\n"
    assert parsed(text) == {ONE, TWO, THREE}
    assert parsed("") == parsed("# nobody\n") == frozenset()


async def test_the_record_in_a_link_does_not_matter(start: Start) -> None:
    link = (await start()).link
    assert parsed(link) == {ContactLink.parse(link).peer_id}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("gateway", "32 characters"),
        (f"{ONE} {TWO}", "32 characters"),
        (f"mailto:{ONE}", "32 characters"),
        ("1" * 32, "base32"),
    ],
    ids=["a word", "two", "a link", "no base32"],
)
def test_what_is_no_peer_is_named_with_its_line(line: str, why: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"fleet\.txt: line 3: .*{why}"):
        parsed(f"# fleet\n{ONE}\n{line}\n")


def test_a_file_that_is_too_large_is_refused_as_a_whole() -> None:
    with pytest.raises(InvalidConfig, match="larger than"):
        parse_admission_file(b"#" * (FILE_BYTES_MAX + 1), "fleet.txt")


@given(st.binary(max_size=200))
def test_whatever_is_in_it_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidConfig):
        assert all(type(one) is NodeId for one in parse_admission_file(data, "fleet.txt"))


# Edits


async def test_an_edit_lets_others_in_and_is_told(start: Start, tmp_path: Path) -> None:
    path, told = tmp_path / "fleet.txt", []
    peer = await start(listen=())
    path.write_text("")
    file = AdmissionFile(path, poll_interval_s=SELDOM_S, on_change=lambda: told.append(1))
    assert not file(peer.node_id)
    async with file:
        node = greets(await start(admit=file))
        assert file.admitted == frozenset()
        path.write_text(str(peer.node_id))
        look(file)
        assert file(peer.node_id)
        assert await peer.query(node.node_id, "greet") == b"hello "
        path.write_text(f"{peer.node_id} # the same")
        look(file)
        assert told == [1]
    assert not file(peer.node_id)


async def test_an_edit_that_cannot_be_used_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, errors = tmp_path / "fleet.txt", list[InvalidConfig]()
    path.write_text(str(ONE))
    file = AdmissionFile(path, poll_interval_s=SELDOM_S, on_error=errors.append)
    async with file, AdmissionFile(path, poll_interval_s=SELDOM_S) as silent:
        path.write_text("nobody")
        with caplog.at_level(logging.WARNING):
            look(file, silent)
        path.unlink()
        look(file)
        assert file(ONE)
        assert silent(ONE)
        assert ["line 1" in str(errors[0]), "does not exist" in str(errors[1])] == [True, True]
        assert file.counters == {"edit rejected": 1, "file missing": 1}
    assert "who was admitted before still is" in caplog.text


async def test_the_start_needs_a_good_file_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "fleet.txt"
    file = AdmissionFile(path)
    with pytest.raises(InvalidConfig, match=r"create it \(empty if nobody is to be admitted\)"):
        file.start()
    path.mkdir()
    with pytest.raises(InvalidConfig, match="name a text file with peerIds"):
        file.start()
    path.rmdir()
    path.write_text(str(ONE))
    file.start()
    path.write_text(str(TWO))
    file.start()  # does nothing
    assert file.admitted == {ONE}
    file.close()
    file.close()  # does nothing
    assert file.admitted == frozenset()
    assert len(asyncio.all_tasks()) == 1


def test_who_starts_it_without_a_loop_is_told_how_to(tmp_path: Path) -> None:
    path = tmp_path / "fleet.txt"
    path.write_text(str(ONE))
    with pytest.raises(WrongLoop, match="async with"):
        AdmissionFile(path).start()
