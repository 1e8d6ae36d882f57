"""The harness itself: what it makes is separate, what it counts is true, and all of it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.netns import Host, Internet, NatKind, Site, why_not

ROOT = Path(__file__).parents[2]

LISTEN = """
import socket
server = socket.create_server(("0.0.0.0", 4000))
print("listening", flush=True)
while True:
    connection, (ip, port) = server.accept()
    connection.sendall(f"{ip}:{port}".encode())
    connection.close()
"""
CONNECT = """
import socket, sys
with socket.socket() as one:
    one.settimeout(0.5)
    one.bind(("0.0.0.0", 5000))
    try:
        one.connect((sys.argv[1], 4000))
        print(one.recv(100).decode())
    except OSError as error:
        print(error)
"""


def connect(host: Host, address: str) -> str:
    """From port 5000: the address that the other side sees, or why there is none."""
    return host.start("-c", CONNECT, address).line()


@pytest.fixture
def site(internet: Internet) -> Site:
    return internet.site("site", "5.3.0.2")


def test_a_gateway_hides_who_is_behind_it_and_lets_nobody_in(
    internet: Internet, site: Site
) -> None:
    public, inside = internet.host("public", "5.1.0.2"), site.host("inside", "192.168.1.2")
    for host in (public, inside):
        host.start("-c", LISTEN).line("listening")
    assert connect(inside, "5.1.0.2") == "5.3.0.2:5000"
    assert connect(public, "5.3.0.2") == "[Errno 111] Connection refused"
    assert connect(public, "192.168.1.2") == "[Errno 101] Network is unreachable"
    site.forward_port(4000, inside)
    assert connect(public, "5.3.0.2") == "5.1.0.2:5000"


def test_a_symmetric_gateway_uses_another_port_each_time(internet: Internet) -> None:
    public = internet.host("public", "5.1.0.2")
    inside = internet.site("site", "5.3.0.2", NatKind.SYMMETRIC).host("inside", "192.168.1.2")
    public.start("-c", LISTEN).line("listening")
    ip, _, port = connect(inside, "5.1.0.2").partition(":")
    assert (ip, port != "5000") == ("5.3.0.2", True)


def test_a_firewall_says_nothing(internet: Internet) -> None:
    walled, other = internet.host("walled", "5.1.0.2"), internet.host("other", "5.2.0.2")
    for host in (walled, other):
        host.start("-c", LISTEN).line("listening")
    walled.drop_incoming()
    assert connect(other, "5.1.0.2") == "timed out"
    assert connect(walled, "5.2.0.2") == "5.1.0.2:5000"


def test_the_old_address_of_a_machine_is_gone(internet: Internet) -> None:
    mobile, other = internet.host("mobile", "5.1.0.2"), internet.host("other", "5.2.0.2")
    mobile.start("-c", LISTEN).line("listening")
    mobile.change_address("5.1.0.77")
    assert connect(other, "5.1.0.2") == "timed out"
    assert connect(other, "5.1.0.77") == "5.2.0.2:5000"


def namespaces_of(pid: int) -> list[str]:
    listed = subprocess.run(
        ["ip", "netns", "list"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in listed.stdout.splitlines() if line.startswith(f"egtp-{pid}-")]


def test_namespaces_and_programs_are_gone_at_the_end(namespaces: None) -> None:
    with Internet() as internet:
        program = internet.host("public", "5.1.0.2").start("-c", LISTEN)
        program.line("listening")
        assert len(namespaces_of(os.getpid())) == 2
    assert namespaces_of(os.getpid()) == []
    assert program.ended()[0] == -signal.SIGKILL


def test_what_a_killed_run_has_left_is_deleted_by_the_next_one(namespaces: None) -> None:
    story = (
        "import os, signal\n"
        "from simulations.netns import Internet\n"
        "with Internet() as internet:\n"
        "    host = internet.host('public', '5.1.0.2')\n"
        f"    host.start('-c', {LISTEN!r}).line('listening')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", story], cwd=ROOT) as killed:  # noqa: S603
        assert killed.wait(20) == -signal.SIGKILL
    assert namespaces_of(killed.pid)
    with Internet():
        assert namespaces_of(killed.pid) == []


def test_without_what_it_needs_it_says_what_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert why_not() == "ip and nft missing: apt-get install iproute2 nftables"
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_not() == "network namespaces need root"
