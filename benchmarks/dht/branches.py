"""Branches: one world is booted once, and each thing that can happen to it happens to a fork."""

from __future__ import annotations

import gc
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["BranchFailed", "in_branches"]


class BranchFailed(Exception):
    """A fork ended otherwise than by telling its figures."""


def in_branches(work: Mapping[str, Callable[[], Any]], jobs: int = 1) -> dict[str, Any]:
    """What each piece of work returns, which must fit into JSON; ``jobs`` at a time.

    Each runs in a process of its own that begins as a copy of this one, and sees nothing of what
    the others do. Raises :class:`BranchFailed`.
    """
    results: dict[str, Any] = {}
    waiting = dict(work)
    running: dict[int, tuple[str, int, list[bytes]]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = next(iter(waiting))
            reader, child = _fork(waiting.pop(name))
            running[reader] = (name, child, [])
        for reader in select.select(list(running), [], [])[0]:
            name, child, chunks = running[reader]
            if chunk := os.read(reader, 65_536):
                chunks.append(chunk)
                continue
            del running[reader]
            os.close(reader)
            if os.waitpid(child, 0)[1]:
                raise BranchFailed(name)
            results[name] = json.loads(b"".join(chunks))
    return {name: results[name] for name in work}


def _fork(work: Callable[[], Any]) -> tuple[int, int]:
    """Where the result is to be read, and the child's process id."""
    sys.stdout.flush()
    gc.freeze()  # What is not looked at is not copied.
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        gc.unfreeze()
        return reader, child
    status = 1
    try:
        os.close(reader)
        result = json.dumps(work()).encode()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(result)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Nothing of the parent's is to be ended here a second time.
        sys.stderr.flush()
        os._exit(status)
