"""What to ask, and the options beside it, come in any order."""

from __future__ import annotations

import pytest

from egtp.command_options import parse

PEER = "a" * 32


@pytest.mark.parametrize(
    ("arguments", "kind", "body"),
    [
        ((), "echo", ""),
        (("greet",), "greet", ""),
        (("greet", "hi", "--timeout", "2"), "greet", "hi"),
        (("greet", "--timeout", "2", "hi"), "greet", "hi"),
        (("--timeout", "2", "greet", "hi"), "greet", "hi"),
        (("--timeout", "2", "greet", "-"), "greet", "-"),
        (("greet", "--", "-x"), "greet", "-x"),
    ],
)
def test_kind_and_body_may_stand_behind_options(
    arguments: tuple[str, ...], kind: str, body: str
) -> None:
    options = parse(["ask", PEER, *arguments])
    assert (options.peer, options.kind, options.body) == (PEER, kind, body)


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (("ask", PEER, "--nope", "hi"), "--nope hi"),
        (("ask", PEER, "greet", "--timeout", "2", "hi", "there"), "there"),
        (("relay", "hi"), "hi"),
    ],
)
def test_what_is_left_over_is_refused_by_name(
    command: tuple[str, ...], left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse([*command])
    assert capsys.readouterr().err.startswith(f"egtp: unrecognized arguments: {left};")
