"""What may pass by itself, as a full disk, is no mistake: systemd is to start again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.at_hand import HANGS_S, run

ROOT = Path(__file__).parents[2]
FAILING = """
import os, pathlib, runpy, sys

number, mark, program, *arguments = sys.argv[1:]
real = os.fsync

def fsync(descriptor):
    if pathlib.Path(mark).exists():
        raise OSError(int(number), os.strerror(int(number)))
    real(descriptor)

os.fsync = fsync
sys.argv = [program, *arguments]
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""
"""A program whose disk fails while there is a file ``mark``."""
DHT = ("lookup_dht", "--listen", "127.0.0.1:0")
PEER = ("egtp", "echo", "--dht-listen", "127.0.0.1:0")


def launch(number: int, mark: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", FAILING, str(number), str(mark), *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("program", [DHT, PEER])
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, 1),
        (errno.EDQUOT, 1),
        (errno.EIO, 1),
        (errno.EMFILE, 1),
        (errno.ENFILE, 1),
        (errno.EROFS, 2),
        (errno.EACCES, 2),
    ],
)
def test_what_a_restart_may_mend_is_status_1_at_the_start(
    tmp_path: Path, program: tuple[str, ...], number: int, status: int
) -> None:
    mark, state = tmp_path / "mark", tmp_path / "state"
    mark.touch()
    server = launch(number, mark, *program, "--state", str(state))
    said, errors = server.communicate(timeout=HANGS_S)
    assert (server.returncode, said) == (status, ""), errors
    assert errors.lower().endswith(f"{os.strerror(number).lower()}\n")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("program", [DHT, PEER])
def test_a_disk_that_is_full_at_the_end_is_status_1(
    tmp_path: Path, program: tuple[str, ...]
) -> None:
    mark, state = tmp_path / "mark", tmp_path / "state"
    server = launch(errno.ENOSPC, mark, *program, "--state", str(state))
    assert server.stdout is not None
    server.stdout.readline()
    mark.touch()
    server.terminate()
    _, errors = server.communicate(timeout=HANGS_S)
    assert server.returncode == 1, errors
    assert errors.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in errors


@pytest.mark.parametrize("program", [DHT, PEER])
def test_a_file_of_records_that_fails_is_status_1(tmp_path: Path, program: tuple[str, ...]) -> None:
    """SQLite has errors of its own."""
    code = (
        "import resource, runpy, sys;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *program, "--state", str(tmp_path / "state")],
        cwd=ROOT, capture_output=True, text=True, timeout=HANGS_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "cannot use the record file" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("lookup_dht", "--listen", "203.0.113.9:9100"),
        ("lookup_dht", "--listen", "[2001:db8::9]:9100"),
        ("egtp", "relay", "--listen", "203.0.113.9:4000", "--dht-listen", "127.0.0.1:0"),
        ("egtp", "relay", "--listen", "127.0.0.1:0", "--dht-listen", "203.0.113.9:9100"),
    ],
)
def test_an_address_that_the_machine_does_not_have_is_status_1(arguments: tuple[str, ...]) -> None:
    """It may have it soon: a machine that boots gets its addresses late."""
    done = run("-m", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (missing,) = (it for it in arguments if it.startswith(("203.", "[2001:")))
    assert "cannot listen on " in done.stderr
    assert f" {missing}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
