"""The programs, each a real process, used as a newcomer would use them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from egtp import ContactLink, IdentityFile
from tests.programs.at_hand import HANGS_S, ROOT, Start, line, run, stop

ANY = "127.0.0.1:0"
ENOUGH_TO_FILL_A_PIPE = 8 * 2**16
"""Characters. Linux keeps 64 KiB for whoever reads a pipe."""


def test_the_quickstart_works_as_printed(start: Start) -> None:
    greeter = start("examples/greeter.py")
    command = line(greeter).removeprefix("now run:  python ")
    asked = run(*command.split())
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("hello, stranger\n")
    assert "path: tcp" in asked.stdout
    assert "says 'stranger'" in line(greeter)


def test_friends_find_each_other_without_a_dht_wherever_they_move() -> None:
    done = run("-W", "error", "examples/friends.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["hello, Carol", "hello, Carol, again"]


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
    assert asked.stdout == "over the relay"
    # Options may stand before, between and behind what is asked.
    asked = run("-m", "egtp", "ask", peer_id, *join, "echo", "behind")
    assert (asked.returncode, asked.stdout) == (0, "behind"), asked.stderr
    stop(echo)
    asked = run("-m", "egtp", "ask", peer_id, *join)
    assert asked.returncode == 1
    assert "the relay says that it does not know the peer" in asked.stderr
    assert "Traceback" not in asked.stderr
    stop(relay)
    stop(bootstrap)


def test_a_relay_serves_only_those_in_a_file_that_is_edited_meanwhile(
    start: Start, tmp_path: Path
) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "))
    fleet, relays, keys = (tmp_path / name for name in ("fleet.txt", "relays.toml", "keys.pem"))
    missing = run("-m", "egtp", "relay", "--admit", str(fleet), *join)
    assert missing.returncode == 2
    assert "does not exist; create it" in missing.stderr
    with IdentityFile.open(keys) as file:
        fleet.write_text(f"# the fleet\n{file.identity.node_id}\n")
    admit = ("--admit", str(fleet), "--stats-every", "0.1")
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", *admit, *join)
    line(relay)
    line(relay)
    relays.write_text(f"[[relay]]\n{line(relay)}\n")
    echo = start("-m", "egtp", "echo", "--relays", str(relays), "--identity", str(keys), *join)
    peer_id = line(echo).removeprefix("peer ")
    while "relay" not in line(echo):
        pass  # until its lease is in the DHT

    def until(expected: Callable[[dict[str, Any]], object]) -> None:
        while not ((text := line(relay)).startswith("{") and expected(json.loads(text))):
            pass

    asked = run("-m", "egtp", "ask", peer_id, *join)
    assert asked.returncode == 1, "who asks is not in the file, either"
    assert "the relay cannot be reached" in asked.stderr
    until(lambda told: told["connections"] == 1)
    fleet.write_text("")
    until(lambda told: told["connections"] == 0)
    until(lambda told: told["counters"]["dropped: the peer is not admitted"] >= 2)
    fleet.write_text("nobody")
    assert relay.stderr is not None
    assert "line 1" in relay.stderr.readline()


@pytest.mark.parametrize(
    "arguments",
    [
        ("relay",),
        ("relay", "--listen", "nowhere", "--bootstrap", "127.0.0.1:9"),
        ("relay", "--listen", "127.0.0.1:0", "--bootstrap", "127.0.0.1:9", "--identity", "/"),
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


def test_a_relay_takes_as_many_connections_from_one_address_as_its_operator_says(
    start: Start,
) -> None:
    relay = start(
        *("-m", "egtp", "relay", "--listen", "127.0.0.1:0", "--dht-listen", "127.0.0.1:0"),
        *("--connections-per-ip", "1", "--stats-every", "0.1"),
    )
    line(relay)
    host, port = line(relay).removeprefix("listening on ").split(":")
    with socket.create_connection((host, int(port))), socket.create_connection((host, int(port))):
        told: dict[str, Any] = {"counters": {}}
        while "connection refused: too many from one address" not in told["counters"]:
            text = line(relay)
            told = json.loads(text) if text.startswith("{") else told
        assert told["connections"] == 1


def test_a_server_that_waits_for_its_passphrase_can_be_stopped(
    start: Start, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    echo = start(
        *("-m", "egtp", "echo", "--identity", str(tmp_path / "echo.pem")),
        *("--passphrase-file", str(pipe), "--bootstrap", "127.0.0.1:9"),
    )
    writer = os.open(pipe, os.O_WRONLY)  # Which waits until it is read from.
    stop(echo)
    os.close(writer)


def test_a_relay_tells_how_it_is_and_keeps_its_keys_encrypted(start: Start, tmp_path: Path) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    address = line(bootstrap).removeprefix("listening on ")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    keys, join = tmp_path / "relay.pem", ("--bootstrap", address)
    secret = ("--identity", str(keys), "--passphrase-file", str(passphrase))
    relay = start(
        *("-m", "egtp", "relay", "--listen", "127.0.0.1:0", "--leases", "7", *secret, *join),
        *("--connections", "50", "--stats-every", "0.2", "--busy-poll", "0.0005"),
        *("--rate", "1e6", "--peer-rate", "1e5"),
    )
    peer_id = line(relay).removeprefix("relay ")
    told: dict[str, Any] = {}
    while "leases" not in told:
        text = line(relay)
        told = json.loads(text) if text.startswith("{") else {}
    assert (told["peer_id"], told["connections_max"], told["leases"]) == (peer_id, 50, 0)
    # What an operator asks about a DHT node, as it says it on its own.
    assert told["dht"]["contacts"] == 1
    assert "counters" in told["dht"]
    stop(relay)
    assert b"ENCRYPTED" in keys.read_bytes()
    without = run("-m", "egtp", "echo", "--identity", str(keys), *join)
    assert without.returncode == 2
    assert "passphrase" in without.stderr
    passphrase.write_text("wrong")
    wrong = run("-m", "egtp", "echo", *secret, *join)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    passphrase.write_text("\n")
    empty = run("-m", "egtp", "echo", *secret, *join)
    assert empty.returncode == 2
    assert empty.stderr == f"egtp: there is no passphrase in the first line of {passphrase}\n"
    missing = run("-m", "egtp", "echo", *secret[:3], str(tmp_path / "none"), *join)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    eager = run("-m", "egtp", "relay", "--busy-poll", "500", *join)
    assert (eager.returncode, eager.stderr.count("\n")) == (2, 1)
    assert "busy_poll_s must be at most 0.01" in eager.stderr
    for option in ("--rate", "--peer-rate"):
        still = run("-m", "egtp", "relay", option, "0", *join)
        assert (still.returncode, still.stderr.count("\n")) == (2, 1)
        assert f"{option}: must be a number of bytes per second above 0, not '0'" in still.stderr
    useless = run("-m", "egtp", "echo", *secret[2:], *join)
    assert "--identity or --state" in useless.stderr


def test_a_peer_with_a_new_key_is_the_same_peer(start: Start, tmp_path: Path) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "))
    options = ("-m", "egtp", "echo", "--listen", "127.0.0.1:0", "--state", str(tmp_path), *join)
    echo = start(*options)
    peer_id = line(echo).removeprefix("peer ")
    renew = ("-m", "egtp", "renew-key", "--state", str(tmp_path))
    busy = run(*renew)
    assert (busy.returncode, busy.stderr.count("\n")) == (2, 1)
    assert "in use by another process" in busy.stderr
    stop(echo)
    before = (tmp_path / "identity.pem").read_bytes()
    done = run(*renew)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"peer {peer_id} has a new channel key, in use from its next start\n"
    assert (tmp_path / "identity.pem").read_bytes() != before
    echo = start(*options)
    assert line(echo) == f"peer {peer_id}"
    while not line(echo).startswith("record stored"):
        pass
    asked = run("-m", "egtp", "ask", peer_id, "echo", "still you?", *join)
    assert (asked.returncode, asked.stdout) == (0, "still you?"), asked.stderr
    stop(echo)
    nobody = run("-m", "egtp", "renew-key")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)
    assert "--identity FILE or --state DIR" in nobody.stderr
    stop(bootstrap)


@pytest.mark.parametrize(
    ("files", "most", "options", "complaint"),
    [
        (900, 786, (), ""),
        (
            900,
            786,
            ("--connections", "2000"),
            "egtp: connections_max is 786 instead of 2000, since at most 900 files may be open "
            "(ulimit -n, LimitNOFILE)\n",
        ),
        (
            300,
            220,
            (),
            "egtp: connections_max is 220 instead of 10000, since at most 300 files may be open "
            "(ulimit -n, LimitNOFILE)\n",
        ),
    ],
    ids=["enough", "fewer than were asked for", "few"],
)
def test_a_program_may_open_as_many_connections_as_its_user_may_open_files(
    start: Start, files: int, most: int, options: tuple[str, ...], complaint: str
) -> None:
    """The usual limit is one that a process may raise."""
    code = (
        "import resource, runpy, sys;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (200, {files}));"
        "sys.argv = ['egtp', *sys.argv[1:]]; runpy.run_module('egtp', run_name='__main__')"
    )
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "), *options)
    relay = start("-c", code, "relay", "--listen", "127.0.0.1:0", "--stats-every", "0.1", *join)
    text = ""
    while not text.startswith("{"):
        text = line(relay)
    told = json.loads(text)
    assert told["connections_max"] == most
    assert told["counters"]["connections_max is less: too few files may be open"] == 1
    relay.send_signal(signal.SIGTERM)
    assert relay.communicate(timeout=HANGS_S)[1] == complaint
    assert relay.returncode == 0


@pytest.mark.parametrize("files", [9, 12, 14])
@pytest.mark.parametrize(
    "command",
    [("lookup_dht",), ("egtp", "relay", "--bootstrap", "127.0.0.1:9"), ("egtp", "ask", "a" * 32)],
)
def test_too_few_open_files_to_start_with_are_one_line(
    files: int, command: tuple[str, ...]
) -> None:
    code = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    done = run("-c", code, *command)
    assert (done.returncode, done.stdout) == (1, "")
    told = "too many open files; raise the limit (ulimit -n, LimitNOFILE)"
    assert done.stderr == f"{command[0]}: {told}\n"


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        (("relay", "--listen", "127.0.0.1:0"), signal.SIGTERM, 0),
        (("echo",), signal.SIGINT, 0),
        (("ask", "a" * 32), signal.SIGINT, 130),
        (("ask", "a" * 32), signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_a_program_that_still_joins_ends_at_a_signal_and_a_question_says_so(
    start: Start, command: tuple[str, ...], number: int, status: int
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(HANGS_S)
        program = start(
            "-m", "egtp", *command, "--bootstrap", f"127.0.0.1:{silent.getsockname()[1]}"
        )
        silent.recv(1500)
        program.send_signal(number)
        said, errors = program.communicate(timeout=HANGS_S)
    assert (program.returncode, said, errors) == (status, "", "")


def test_who_is_not_in_the_network_is_told_so(start: Start) -> None:
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", "--bootstrap", "127.0.0.1:9")
    assert relay.stderr is not None
    assert relay.stderr.readline() == "egtp: no DHT node has answered yet; still trying\n"
    assert line(relay).startswith("relay ")
    reason = "the record is not stored: no node of the network answers; still trying"
    assert relay.stderr.readline() == f"egtp: {reason}\n"


@pytest.mark.parametrize("program", [("lookup_dht",), ("egtp", "echo")])
def test_a_name_that_stands_for_no_address_is_told_once(
    start: Start, program: tuple[str, ...]
) -> None:
    # With two dots no server needs to be asked for it.
    names = ("--bootstrap", "nosuch..invalid:9100", "--bootstrap", "127.0.0.1:9")
    server = start("-m", *program, "--listen", "127.0.0.1:0", *names)
    line(server)
    server.terminate()
    assert server.communicate(timeout=HANGS_S)[1].splitlines()[:2] == [
        f"{program[0]}: nosuch..invalid does not resolve to an IPv4 address: it is not a host name",
        f"{program[0]}: no DHT node has answered yet; still trying",
    ]


def test_a_question_that_ends_at_once_does_not_say_that_it_goes_on() -> None:
    done = run("-m", "egtp", "ask", "a" * 32, "--bootstrap", "nosuch..invalid:9100")
    assert done.returncode == 1
    assert "nosuch..invalid does not resolve to an IPv4 address" in done.stderr
    assert "egtp: no DHT node has answered\n" in done.stderr
    assert "trying" not in done.stderr
    assert "others may not find it" not in done.stderr, "of no interest to who asks"


def test_a_peer_whose_relay_is_down_says_so(start: Start, tmp_path: Path) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "))
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", *join)
    relay_id = line(relay).removeprefix("relay ")
    line(relay)
    relays = tmp_path / "relays.toml"
    relays.write_text(f"[[relay]]\n{line(relay)}\n")
    stop(relay)
    echo = start("-m", "egtp", "echo", "--relays", str(relays), *join)
    assert echo.stderr is not None
    said = echo.stderr.readline()
    assert said.startswith(f"egtp: relay {relay_id} grants no lease: ")
    assert "connection refused" in said
    stop(echo)
    stop(bootstrap)


def test_a_peer_that_nobody_can_reach_is_told_what_it_lacks(start: Start) -> None:
    echo = start("-m", "egtp", "echo", "--bootstrap", "127.0.0.1:9")
    assert echo.stderr is not None
    assert "no DHT node" in echo.stderr.readline()
    hint = "others can reach this peer only with --listen IP:PORT or --relays FILE"
    assert echo.stderr.readline() == f"egtp: {hint}\n"


def test_a_relay_announces_all_the_addresses_that_it_is_told_to(start: Start) -> None:
    addresses = ["203.0.113.30:4000", "[2001:db8::30]:4000", "192.168.1.2:4000"]
    announce = [text for address in addresses for text in ("--announce", address)]
    any_port = "127.0.0.1:0"
    relay = start("-m", "egtp", "relay", "--listen", any_port, "--dht-listen", any_port, *announce)
    contact = [line(relay) for _ in range(3)][-1].removeprefix('contact = "').removesuffix('"')
    record = ContactLink.parse(contact).record
    assert record is not None
    assert [str(tcp.address) for tcp in record.tcp] == addresses
    stop(relay)


def test_what_is_wrong_with_a_node_is_said_before_it_joins() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        join = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("-m", "egtp", "relay", "--announce", "0.0.0.0:4000", "--bootstrap", join)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.recv(1500)


def test_nobody_reads_what_a_program_prints(start: Start) -> None:
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", "--dht-listen", "127.0.0.1:0")
    assert relay.stdout is not None
    assert relay.stderr is not None
    relay.stdout.close()
    assert relay.wait(timeout=HANGS_S) == 1
    assert relay.stderr.read() == ""


def test_a_question_may_be_any_bytes_and_come_from_stdin(start: Start) -> None:
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "))
    echo = start(
        *("-m", "egtp", "echo", "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"), *join
    )
    peer_id = line(echo).removeprefix("peer ")
    assert [line(echo).rpartition(":")[0] for _ in range(2)] == [
        "listening on 127.0.0.1",
        "listening on 127.0.0.2",
    ]
    assert line(echo).startswith("record stored")
    ask = [sys.executable, "-m", "egtp", "ask", peer_id, "echo"]
    for body, given in ((os.fsdecode(b"\xff\xfe"), b""), ("-", b"\xff\xfe")):
        asked = subprocess.run(  # noqa: S603
            [*ask, body, *join],
            input=given,
            capture_output=True,
            timeout=HANGS_S,
            check=True,
            cwd=ROOT,
        )
        assert asked.stdout == b"\xff\xfe"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_without_a_standard_stream_does_its_work(closed: str, tmp_path: Path) -> None:
    state = tmp_path / "state"  # which it writes once it listens, whoever reads what it says
    script = f'"$@" {closed} & until [ -e {state} ]; do sleep 0.05; done; kill -TERM $!; wait $!'
    serve = [sys.executable, "-m", "lookup_dht", "--listen", "127.0.0.1:0", "--state", str(state)]
    done = subprocess.run(  # noqa: S603
        ["/bin/bash", "-c", script, "bash", *serve],
        cwd=ROOT, capture_output=True, timeout=HANGS_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "program", [("lookup_dht",), ("egtp", "relay", "--dht-listen", "127.0.0.1:0")]
)
@pytest.mark.parametrize("to", ["/dev/full", "a reader that is gone"])
def test_a_program_whose_output_cannot_be_written_says_so_in_a_line_at_most(
    program: tuple[str, ...], to: str
) -> None:
    command = [sys.executable, "-m", *program, "--listen", "127.0.0.1:0", "--stats-every", "0.05"]
    if to == "/dev/full":
        with Path(to).open("wb") as full:
            done = subprocess.run(  # noqa: S603
                command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=HANGS_S, check=False
            )
        assert done.stderr.count(b"\n") == 1
        assert b": cannot write to stdout: no space left" in done.stderr
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=HANGS_S, check=False
        )
        os.close(writer)
        assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.parametrize("program", [("lookup_dht",), ("egtp", "relay", "--dht-listen", ANY)])
def test_a_server_whose_output_nobody_reads_any_more_serves_and_can_be_stopped(
    start: Start, program: tuple[str, ...]
) -> None:
    server = start("-m", *program, "--listen", "127.0.0.1:0", "--stats-every", "0.0001")
    line(server)
    answered = 0
    while answered < ENOUGH_TO_FILL_A_PIPE:
        server.send_signal(signal.SIGUSR1)
        assert server.stderr is not None
        assert select.select([server.stderr], [], [], HANGS_S)[0], "it stands still"
        answered += len(server.stderr.readline())
    server.send_signal(signal.SIGTERM)
    assert server.wait(HANGS_S) == 0


def test_a_server_whose_complaints_nobody_reads_any_more_can_be_stopped(start: Start) -> None:
    server = start("-m", "lookup_dht", "--listen", "127.0.0.1:0", "--stats-every", "0.0001")
    said = len(line(server))
    while said < ENOUGH_TO_FILL_A_PIPE:
        server.send_signal(signal.SIGUSR1)  # Answered on stderr, with as much as it says here.
        assert server.stdout is not None
        assert select.select([server.stdout], [], [], HANGS_S)[0], "it stands still"
        told = line(server)
        assert told, "it is gone"
        said += len(told)
    server.send_signal(signal.SIGTERM)
    assert server.wait(HANGS_S) == 0


def test_servers_tell_how_they_are_and_end_when_their_terminal_is_closed(start: Start) -> None:
    dht = start("-m", "lookup_dht", "--listen", "127.0.0.1:0")
    join = ("--bootstrap", line(dht).removeprefix("listening on "))
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", *join)
    assert line(relay).startswith("relay ")
    assert line(dht).startswith("node id ")
    assert [line(relay).split()[0] for _ in range(2)] == ["listening", "contact"]
    for server, name in ((relay, "connections_max"), (dht, "node_id")):
        server.send_signal(signal.SIGUSR1)
        assert server.stderr is not None
        assert select.select([server.stderr], [], [], 10)[0], "it says nothing"
        assert name in json.loads(server.stderr.readline())
    for server in (relay, dht):
        server.send_signal(signal.SIGHUP)
        assert server.communicate(timeout=HANGS_S)[1] == ""
        assert server.returncode == 0


def pester(process: subprocess.Popen[str]) -> None:
    """Signals of all kinds, a moment apart, for as long as there is a process: it ends in peace."""
    for number in itertools.cycle((signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.001)
            break
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert "Exception" not in errors


@pytest.mark.parametrize(
    "program", [("lookup_dht",), ("egtp", "relay", "--dht-listen", "127.0.0.1:0")]
)
def test_signals_after_the_first_change_nothing_until_the_process_is_gone(
    start: Start, program: tuple[str, ...], tmp_path: Path
) -> None:
    state = ("--state", str(tmp_path / "state"))
    server = start("-m", *program, "--listen", "127.0.0.1:0", *state)
    line(server)
    pester(server)


@pytest.mark.parametrize("program", [("lookup_dht",), ("egtp", "relay")])
def test_signals_after_the_first_change_nothing_while_a_server_joins(
    start: Start, program: tuple[str, ...]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(HANGS_S)
        join = ("--bootstrap", f"127.0.0.1:{silent.getsockname()[1]}")
        server = start("-m", *program, "--listen", "127.0.0.1:0", *join)
        silent.recv(1500)
        pester(server)


def test_of_two_nodes_the_one_that_runs_says_how_it_is(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(HANGS_S)
        listen = ("--listen", "127.0.0.1:0", "--listen", "[::1]:0")
        join = ("--bootstrap", f"127.0.0.1:{silent.getsockname()[1]}")
        server = start("-m", "lookup_dht", *listen, *join)
        silent.recv(1500)
        server.send_signal(signal.SIGUSR1)
        assert server.stderr is not None
        assert json.loads(server.stderr.readline())["address"].startswith("127.0.0.1:")
        stop(server)


def test_a_node_that_joins_nobody_says_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "lookup_dht", "--listen", "127.0.0.1:0", "--bootstrap", address],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert "no DHT node has answered yet" in process.stderr.readline()
        process.terminate()
        process.communicate(timeout=HANGS_S)
        assert process.returncode == 0


def test_statistics_have_their_help() -> None:
    done = run("-m", "lookup_dht", "stats", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "IP:PORT" in done.stdout
    assert "IP:PORT" in run("-m", "lookup_dht", "stats").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("relay", "--listen", ""), "an address must be IP:PORT"),
        (("relay", "--announce", "0.0.0.0:4000"), "nobody can dial 0.0.0.0:4000"),
        (("relay", "--announce", "127.0.0.1:0"), "nobody can dial 127.0.0.1:0"),
        (("relay", "--connections", "-1"), "connections_max"),
        (("relay", "--drain", "nan"), "must be a number of seconds, 0 or more, not 'nan'"),
        (("relay", "--rate", "0"), "must be a number of bytes per second above 0, not '0'"),
        (("relay", "--busy-poll", "-1"), "must be a number of seconds, 0 or more, not '-1'"),
        (("relay", "--state", ""), "--state: must not be empty"),
        (("echo", "--identity", ""), "--identity: must not be empty"),
        (("relay", "--dht-listen", ""), "--dht-listen: must not be empty"),
        (
            ("relay", "--dht-listen", "0.0.0.0:1", "--dht-listen", "0.0.0.0:2"),
            "--dht-listen can be given at most once for IPv4 and once for IPv6",
        ),
        (("echo", "--bootstrap", "::1:9100"), "or [2001:db8::7]:9100, not '::1:9100'"),
        (("echo", "--stats-every", "0"), "must be a number of seconds above 0, not '0'"),
        (("echo", "--relays", "none.toml"), "none.toml"),
        (("ask", "a" * 32, "Bad Kind"), "a kind must be 1 to 64"),
        (("ask", "a" * 32, "echo", "--timeout", "-1"), "a hard timeout must be above 0"),
    ],
)
def test_what_a_user_does_wrong_is_one_line(options: tuple[str, ...], message: str) -> None:
    done = run("-m", "egtp", *options, "--bootstrap", "127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("egtp: ")
