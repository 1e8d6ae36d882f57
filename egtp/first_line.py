"""The first line of a file that may be a pipe, perhaps with nobody to write to it: opening it in
the usual way could take for ever, and no signal would end that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from egtp.errors import InvalidConfig

__all__ = ["first_line"]

LINE_BYTES_MAX: Final = 4096


async def first_line(file: Path, *, patience_s: float = 30.0) -> bytes:
    """The line, without its end. Waits for anybody who has the pipe open for writing, who may have
    to ask somebody first; and for up to ``patience_s`` until anybody opens it.

    Raises :class:`InvalidConfig` if nobody does, or if the file cannot be read.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as opened:  # noqa: ASYNC230 - it does not block
            somebody_wrote = not stat.S_ISFIFO(os.fstat(descriptor).st_mode)
            patient, line = True, b""
            while b"\n" not in line and len(line) < LINE_BYTES_MAX:
                more = opened.read(LINE_BYTES_MAX)
                if more is None:  # Somebody has it open for writing.
                    somebody_wrote = True
                    await _readable(descriptor)
                elif more:
                    line += more
                elif somebody_wrote or line:
                    break
                elif patient:
                    patient = False
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience_s):
                            await _readable(descriptor)
                            somebody_wrote = True
                else:
                    raise InvalidConfig(f"nobody has written to {file} for {patience_s:g} s")
    except OSError as error:
        raise InvalidConfig(f"cannot read {file}: {error.strerror}") from None
    return line.split(b"\n", 1)[0].rstrip(b"\r")


async def _readable(descriptor: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
