"""What a contestant's processes and the harness say to each other: one JSON object per line.

A process is started as ``python -m benchmarks.contestants.NAME ROLE SETTINGS``, with the settings
as JSON. It says ``ready`` (a server with its ``address``) and then, for each piece of work that it
reads, ``begin``, and ``end`` with what it measured. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Roles", "Settings", "say", "take_part"]

Settings: TypeAlias = dict[str, Any]
Roles: TypeAlias = dict[str, Callable[[Settings], None]]
"""What to do as ``serve``, ``client`` or ``relay``; each runs until the process ends."""


def say(word: str, **facts: object) -> None:
    print(json.dumps({"say": word, **facts}), flush=True)


def next_work() -> dict[str, Any]:
    """The next piece of work; ends the process if there is none. Blocks."""
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    work: dict[str, Any] = json.loads(line)
    return work


def take_part(roles: Roles) -> None:
    """Do what the command line says."""
    role, settings = sys.argv[1], json.loads(sys.argv[2])
    if role != "client":
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        roles[role](settings)
    except Exception as error:
        say("failed", reason=f"{type(error).__name__}: {error}"[:300])
        raise


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)
