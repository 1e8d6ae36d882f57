"""Internet: machines in namespaces of their own, and one router between their networks.

Every public machine has its own /24 behind the router, and so does the gateway of a site. Addresses
look public, since nodes treat private ones differently; no packet leaves this machine, as no
namespace has an interface to the outside.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simulations.netns.program import Program

__all__ = ["Host", "Internet", "NatKind", "Site", "why_not"]

PREFIX: Final = "egtp"
COMMAND_TIMEOUT_S: Final = 20.0


class NatKind(enum.Enum):
    """How a gateway maps connections; the value is the end of its nft rule.

    Both filter by address and port: only packets from endpoints that were sent to come in.
    """

    PORT_RESTRICTED = ""
    """The same port outside as inside, whatever the destination, if it is free."""
    SYMMETRIC = "fully-random"
    """A different port for each connection."""


def why_not() -> str | None:
    """Why namespaces cannot be used here, or None if they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} missing: apt-get install iproute2 nftables"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"{PREFIX}-{os.getpid()}-probe"
    try:
        _run("ip", "netns", "add", name)
    except RuntimeError as error:
        return f"no network namespace can be made: {error}"
    try:
        _run("ip", "netns", "exec", name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        _run("ip", "netns", "exec", name, "nft", "add", "table", "inet", "probe")
    except RuntimeError as error:
        return f"no router can be made in a network namespace: {error}"
    finally:
        _run("ip", "netns", "delete", name)
    return None


class _Namespace:
    """One network namespace. Its interfaces are created in it and disappear with it."""

    def __init__(self, internet: Internet, name: str) -> None:
        self.internet: Final = internet
        self.name: Final = internet.add_namespace(name)
        # Nobody else can have its IPv6 addresses, so nobody waits for a second to find out.
        self._set(0, "ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad")
        self.ip("link set lo up")

    def ip(self, *commands: str) -> None:
        """Run some ``ip`` commands in the namespace."""
        _run("ip", "-n", self.name, "-batch", "-", told="\n".join(commands))

    def nft(self, rules: str) -> None:
        _run("ip", "netns", "exec", self.name, "nft", "-f", "-", told=rules)

    def forward(self) -> None:
        """Forward packets, as a router does."""
        self._set(1, "ipv4/ip_forward", "ipv6/conf/all/forwarding")

    def _set(self, value: int, *switches: str) -> None:
        """Set switches of the kernel; a machine may be without IPv6."""
        for switch in switches:
            file = f"/proc/sys/net/{switch}"
            command = f"! [ -e {file} ] || echo {value} >{file}"
            _run("ip", "netns", "exec", self.name, "sh", "-c", command)

    def command(self, arguments: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *arguments]


class Host(_Namespace):
    """A machine, and the programs that run on it."""

    def __init__(self, internet: Internet, name: str, address: str) -> None:
        super().__init__(internet, name)
        self.address = address
        self.ipv6: str | None = None

    def start(self, *arguments: str, cwd: Path | None = None) -> Program:
        """Start a Python program, such as ``("-m", "egtp", "ask", ...)``; it ends with the
        Internet."""
        program = Program(self.command([sys.executable, *arguments]), cwd)
        self.internet.programs.append(program)
        return program

    def change_address(self, address: str) -> None:
        """Move to another address in the same /24; connections of the old one fall silent."""
        self.ip(
            f"address delete {self.address}/24 dev wan",
            f"address add {address}/24 dev wan",
            f"route replace default via {_router_of(address)}",
        )
        self.address = address

    def use_temporary_addresses(self) -> None:
        """Dial from IPv6 addresses that the machine makes up, beside the one that it keeps: what
        desktops do (RFC 8981)."""
        self._set(2, "ipv6/conf/wan/use_tempaddr")
        self.ip(f"address change {self.ipv6}/64 dev wan mngtmpaddr")

    def drop_incoming(self) -> None:
        """A firewall: silently drop all packets but those of connections begun here."""
        self.nft(
            "table inet firewall {\n"
            "  chain input {\n"
            "    type filter hook input priority filter; policy drop;\n"
            '    iifname "lo" accept\n'
            "    ct state established,related accept\n"
            "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n"
            "  }\n"
            "}\n"
        )


class Site:
    """A private network behind a gateway."""

    def __init__(self, internet: Internet, name: str, address: str, kind: NatKind) -> None:
        self._internet: Final = internet
        self._name: Final = name
        self.gateway: Final = internet.host(f"{name}-gw", address)
        self.gateway.ip("link add lan type bridge", "address add 192.168.1.1/24 dev lan")
        self.gateway.ip("link set lan up")
        self.gateway.forward()
        self.gateway.nft(
            "table ip nat {\n"
            "  chain out {\n"
            "    type nat hook postrouting priority srcnat;\n"
            f'    oifname "wan" masquerade {kind.value}\n'
            "  }\n"
            "  chain in {\n"
            "    type nat hook prerouting priority dstnat;\n"
            "  }\n"
            "  chain through {\n"
            "    type filter hook forward priority filter; policy drop;\n"
            "    ct state established,related accept\n"
            "    ct status dnat accept\n"
            '    iifname "lan" accept\n'
            "  }\n"
            "}\n"
        )

    def host(self, name: str, address: str) -> Host:
        """A machine in 192.168.1.0/24."""
        host = Host(self._internet, f"{self._name}-{name}", address)
        line = f"to-{name}"
        self.gateway.ip(
            f"link add {line} type veth peer name wan netns {host.name}",
            f"link set {line} master lan up",
        )
        host.ip(
            "link set wan up",
            f"address add {address}/24 dev wan",
            "route add default via 192.168.1.1",
        )
        return host

    def forward_port(self, port: int, host: Host) -> None:
        """Forward a public TCP port to a machine behind the gateway."""
        to = f"{host.address}:{port}"
        self.gateway.nft(f'add rule ip nat in iifname "wan" tcp dport {port} dnat to {to}\n')


class Internet:
    """Use it as ``with Internet() as internet:``; no namespace or program outlives the block."""

    def __init__(self) -> None:
        self.programs: Final[list[Program]] = []
        self._prefix: Final = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        self._namespaces: Final[list[str]] = []
        self._counted: Final[set[str]] = set()
        self._router: _Namespace

    def __enter__(self) -> Self:
        _delete_leftovers()
        try:
            self._router = _Namespace(self, "router")
            self._router.forward()
            self._router.nft(
                "table ip count {\n"
                "  chain through {\n"
                "    type filter hook forward priority filter; policy accept;\n"
                "  }\n"
                "}\n"
            )
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clean_up()

    def add_namespace(self, name: str) -> str:
        full = f"{self._prefix}-{name}"
        _run("ip", "netns", "add", full)
        self._namespaces.append(full)
        return full

    def host(self, name: str, address: str, ipv6: str | None = None) -> Host:
        """A public machine, alone in its /24, and in its /64 if it has an IPv6 address, which must
        end in ``::`` and a number."""
        host, router = Host(self, name, address), _router_of(address)
        line = f"to-{name}"
        self._router.ip(
            f"link add {line} type veth peer name wan netns {host.name}",
            f"address add {router}/24 dev {line}",
            f"link set {line} up",
        )
        host.ip(
            "link set wan up",
            f"address add {address}/24 dev wan",
            f"route add default via {router}",
        )
        if ipv6 is not None:
            self._router.ip(f"address add {_ipv6_router_of(ipv6)}/64 dev {line}")
            host.ip(
                f"address add {ipv6}/64 dev wan",
                f"route add default via {_ipv6_router_of(ipv6)}",
            )
            host.ipv6 = ipv6
        return host

    def renumber(self, host: Host, ipv6: str) -> None:
        """Replace the IPv6 prefix of a public machine, and with it each of its addresses."""
        assert host.ipv6 is not None
        line = f"to-{host.name.rpartition('-')[2]}"
        self._router.ip(
            f"address delete {_ipv6_router_of(host.ipv6)}/64 dev {line}",
            f"address add {_ipv6_router_of(ipv6)}/64 dev {line}",
        )
        host.ip(
            f"address delete {host.ipv6}/64 dev wan mngtmpaddr",
            f"address add {ipv6}/64 dev wan mngtmpaddr",
            f"route replace default via {_ipv6_router_of(ipv6)}",
        )
        host.ipv6 = ipv6

    def site(self, name: str, address: str, kind: NatKind = NatKind.PORT_RESTRICTED) -> Site:
        """A private network behind a public address."""
        return Site(self, name, address, kind)

    def drop_ipv6(self, host: Host) -> None:
        """Silently drop all IPv6 packets from and to a public machine in the router, which has lost
        its uplink, while the machine's addresses and routes say that all is well. Its own firewall
        would not do: the system reports what that drops to whoever sends it."""
        line = f"to-{host.name.rpartition('-')[2]}"
        self._router.nft(
            "table ip6 hole {\n"
            "  chain through {\n"
            "    type filter hook forward priority filter;\n"
            f'    iifname "{line}" drop\n'
            f'    oifname "{line}" drop\n'
            "  }\n"
            "}\n"
        )

    def tcp_bytes(self, source: Host, to: Host) -> int:
        """Bytes of TCP packets that have crossed the router from one /24 to another since the first
        call for the two."""
        name = f"{_network_of(source.address)}_{_network_of(to.address)}"
        name = "n" + name.replace(".", "-").replace("/24", "")
        if name not in self._counted:
            self._counted.add(name)
            self._router.nft(
                f"add counter ip count {name}\n"
                f"add rule ip count through ip protocol tcp ip saddr {_network_of(source.address)} "
                f"ip daddr {_network_of(to.address)} counter name {name}\n"
            )
        listed = _run(*self._router.command(["nft", "-j", "list", "counter", "ip", "count", name]))
        counters = [one["counter"] for one in json.loads(listed)["nftables"] if "counter" in one]
        return int(counters[0]["bytes"])

    def _clean_up(self) -> None:
        for program in self.programs:
            program.kill()
        for name in reversed(self._namespaces):
            _delete(name)
        self._namespaces.clear()


def _router_of(address: str) -> str:
    return address.rpartition(".")[0] + ".1"


def _ipv6_router_of(ipv6: str) -> str:
    return ipv6.rpartition("::")[0] + "::1"


def _network_of(address: str) -> str:
    return address.rpartition(".")[0] + ".0/24"


def _delete_leftovers() -> None:
    """Delete the namespaces of runs that were killed, with the programs in them."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split(" ")[0]
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == PREFIX and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            _delete(name)


def _delete(name: str) -> None:
    """Kill every process in a namespace, since it lives as long as they do, and delete it."""
    with contextlib.suppress(RuntimeError):
        for pid in _run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "delete", name)


def _run(*command: str, told: str = "") -> str:
    """The output of a command. Raises :class:`RuntimeError` with its stderr if it fails."""
    done = subprocess.run(  # noqa: S603
        command,
        input=told,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
