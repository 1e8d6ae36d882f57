"""A small Internet of network namespaces, with a bootstrap node and two relays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from simulations.netns import Host, Internet, Program, why_not

ROOT: Final = Path(__file__).parents[2]
JOIN: Final = ("--bootstrap", "5.1.0.2:9100")


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip, with the reason, where there are none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


class World:
    """Two public machines with a relay each, of which the first runs the bootstrap node, too."""

    def __init__(self, internet: Internet) -> None:
        self.internet: Final = internet
        self.machines: Final = [internet.host("one", "5.1.0.2"), internet.host("two", "5.2.0.2")]
        bootstrap = self._start(self.machines[0], "lookup_dht", "--listen", "5.1.0.2:9100")
        bootstrap.line("listening on")
        self.relays: Final = [
            self._start(one, "egtp", "relay", "--listen", f"{one.address}:4000", *JOIN)
            for one in self.machines
        ]
        self.relay_ids: Final = [one.line("relay ").removeprefix("relay ") for one in self.relays]
        self._contacts: Final = [one.line("contact = ") for one in self.relays]

    def echo(self, host: Host, folder: Path, *options: str, relays: int = 2) -> tuple[str, Program]:
        """Start a peer that uses so many of the relays: its peerId, and its program."""
        file = folder / f"{host.name}.toml"
        file.write_text("".join(f"[[relay]]\n{one}\n" for one in self._contacts[:relays]))
        program = self._start(host, "egtp", "echo", "--relays", str(file), *JOIN, *options)
        return program.line("peer ").removeprefix("peer "), program

    def ask(self, host: Host, peer_id: str, body: str = "hello") -> str:
        """Ask, have the right answer, and return by which path it came."""
        asked = self._start(host, "egtp", "ask", peer_id, "echo", body, *JOIN)
        status, printed = asked.ended()
        assert status == 0, printed
        path, _, answer = printed.partition("\n")
        assert answer == body
        return path.partition(", ")[2]

    def _start(self, host: Host, module: str, *arguments: str) -> Program:
        return host.start("-m", module, *arguments, cwd=ROOT)


@pytest.fixture
def internet(namespaces: None) -> Iterator[Internet]:
    """With nothing in it."""
    with Internet() as internet:
        yield internet


@pytest.fixture
def world(namespaces: None) -> Iterator[World]:
    """One that a test may break."""
    with Internet() as internet:
        yield World(internet)


@pytest.fixture(scope="module")
def shared_world(namespaces: None) -> Iterator[World]:
    """One whose relays are left alone; each test has sites and machines of its own in it."""
    with Internet() as internet:
        yield World(internet)
