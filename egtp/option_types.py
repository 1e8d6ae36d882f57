"""What the options of our programs share: how they are parsed, and their types; and an option."""

from __future__ import annotations

import argparse
import contextlib
import math
from pathlib import Path
from typing import Final, NoReturn

__all__ = [
    "USAGE",
    "OptionParser",
    "add_metrics_option",
    "bytes_per_s",
    "duration_s",
    "interval_s",
    "named",
    "path",
]

USAGE: Final = 2
"""The exit status for a mistake of the user's: trying again will fail again."""


class OptionParser(argparse.ArgumentParser):
    """Complains in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        program = self.prog.removeprefix("python -m ").partition(" ")[0]
        self.exit(USAGE, f"{program}: {message}; see {self.prog} --help\n")


def add_metrics_option(parser: argparse.ArgumentParser) -> None:
    """``--metrics``, which all servers have: see :mod:`egtp.metrics_server`."""
    parser.add_argument(
        "--metrics",
        metavar="IP:PORT",
        type=named,
        help="where Prometheus gets the statistics over HTTP, from anybody who can connect "
        "(default: nowhere)",
    )


def named(text: str) -> str:
    """The type of an option that must not be empty, as an unset shell variable is."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def path(text: str) -> Path:
    """The type of an option that names a file or a folder."""
    return Path(named(text))


def interval_s(text: str) -> float:
    """The type of an option that says how often something is done: seconds above 0."""
    return _above_0(text, "seconds")


def bytes_per_s(text: str) -> float:
    """The type of an option that limits a rate: bytes per second above 0."""
    return _above_0(text, "bytes per second")


def _above_0(text: str, of_what: str) -> float:
    with contextlib.suppress(argparse.ArgumentTypeError):
        if number := duration_s(text):
            return number
    raise argparse.ArgumentTypeError(f"must be a number of {of_what} above 0, not {text!r}")


def duration_s(text: str) -> float:
    """The type of an option that says how long something may take: seconds, 0 or more."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {text!r}")
    return seconds
