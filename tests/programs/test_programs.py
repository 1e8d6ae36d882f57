"""The programs, each a real process, used as a newcomer would use them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.communicate()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_the_quickstart_works_as_printed(start: Start) -> None:
    greeter = start("examples/greeter.py")
    command = line(greeter).removeprefix("now run:  python ")
    asked = run(*command.split())
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("hello, stranger\n")
    assert "path: tcp" in asked.stdout
    assert "says 'stranger'" in line(greeter)


def test_a_peer_behind_a_relay_answers_and_its_death_is_told(start: Start, tmp_path: Path) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    address = line(bootstrap).removeprefix("listening on ")
    join = ("--bootstrap", address)
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", *join)
    line(relay)
    line(relay)
    relays = tmp_path / "relays.toml"
    relays.write_text(f"[[relay]]\n{line(relay)}\n")
    echo = start("-m", "egtp", "echo", "--relays", str(relays), *join)
    peer_id = line(echo).removeprefix("peer ")
    while "relay" not in line(echo):
        pass  # until its lease is in the DHT
    asked = run("-m", "egtp", "ask", peer_id, "echo", "over the relay", *join)
    assert asked.returncode == 0, asked.stderr
    assert "14 bytes, relay" in asked.stderr
    assert asked.stdout == "over the relay\n"
    stop(echo)
    asked = run("-m", "egtp", "ask", peer_id, *join)
    assert asked.returncode == 1
    assert "the relay says that it does not know the peer" in asked.stderr
    assert "Traceback" not in asked.stderr
    stop(relay)
    stop(bootstrap)


@pytest.mark.parametrize(
    "arguments",
    [
        ("relay",),
        ("relay", "--listen", "nowhere", "--bootstrap", "127.0.0.1:9"),
        ("relay", "--listen", "127.0.0.1:0", "--bootstrap", "127.0.0.1:9", "--identity", "/"),
        ("echo", "--bootstrap", "127.0.0.1:9", "--relays", "/no/such/file"),
        ("ask", "nobody", "--bootstrap", "127.0.0.1:9"),
        ("dance",),
        (),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = run("-m", "egtp", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_and_a_broken_identity_are_told(start: Start, tmp_path: Path) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "))
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", *join)
    line(relay)
    address = line(relay).removeprefix("listening on ")
    done = run("-m", "egtp", "relay", "--listen", address, *join)
    assert done.returncode == 2
    assert f"cannot listen on {address}" in done.stderr
    broken = tmp_path / "identity.pem"
    broken.write_text("no key")
    done = run("-m", "egtp", "echo", "--identity", str(broken), *join)
    assert done.returncode == 2
    assert done.stderr == f"egtp: {broken} is not an identity file\n"
