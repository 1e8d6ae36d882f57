"""Where a passphrase comes from: a file, or a pipe whose writer may be late, or never come."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from egtp.errors import InvalidConfig
from egtp.first_line import LINE_BYTES_MAX, first_line


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("text", [b"secret", b"secret\n", b"secret\r\n", b"secret\nmore\n"])
async def test_the_first_line_of_a_file_is_without_its_end(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(text)
    assert await first_line(file) == b"secret"


async def test_a_file_without_end_is_not_read_to_it() -> None:
    assert await first_line(Path("/dev/zero")) == bytes(LINE_BYTES_MAX)


async def test_a_pipe_that_nobody_writes_to_is_an_error(pipe: Path) -> None:
    with pytest.raises(InvalidConfig, match="nobody has written to"):
        await first_line(pipe, patience_s=0.01)


async def test_who_opens_a_pipe_may_take_his_time_to_write(pipe: Path) -> None:
    opened = os.open(pipe, os.O_RDWR)
    reading = asyncio.ensure_future(first_line(pipe, patience_s=0.0))
    await asyncio.sleep(0)
    os.write(opened, b"sec")
    await asyncio.sleep(0)
    os.write(opened, b"ret\n")
    assert await reading == b"secret"
    os.close(opened)


async def test_a_writer_may_come_after_the_reader(pipe: Path) -> None:
    reading = asyncio.ensure_future(first_line(pipe))
    await asyncio.sleep(0)
    opened = os.open(pipe, os.O_WRONLY)
    os.write(opened, b"secret")
    os.close(opened)
    assert await reading == b"secret"


async def test_a_writer_that_leaves_without_a_word_has_written_an_empty_line(pipe: Path) -> None:
    reading = asyncio.ensure_future(first_line(pipe))
    await asyncio.sleep(0)
    os.close(os.open(pipe, os.O_WRONLY))
    assert await reading == b""


async def test_waiting_for_a_pipe_can_be_cancelled(pipe: Path) -> None:
    reading = asyncio.ensure_future(first_line(pipe))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
