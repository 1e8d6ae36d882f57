"""What a node takes from the world: time and entropy, as arguments.

Protocol logic never reads a clock or a random generator itself, so a simulation can run the same
code in virtual time from one seed.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any, Final

from egtp.values.identity import Entropy
from egtp.values.message import NONCE_BYTES

__all__ = [
    "Environment",
    "clock_counting_sleep",
    "give_way",
    "local_addresses",
    "nonces",
    "open_files_max",
    "process_id",
]

SOMEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are nobody's (RFC 5737, RFC 3849), reached by the default route if by any."""
PREFER_PUBLIC: Final = (getattr(socket, "IPPROTO_IPV6", 41), 72, 2)
"""Linux's IPV6_ADDR_PREFERENCES (RFC 5014): not the temporary address, which changes every day."""


def local_addresses() -> Sequence[str]:
    """The addresses from which this machine reaches the Internet: at most one of each family. A
    link-local one reaches nobody there; the system chooses it where a router has announced itself
    and no network.

    A UDP socket is "connected" to an address that nobody has. This sends nothing, but makes the
    system choose the address to send from. It works everywhere and takes some ten microseconds. It
    shows only the address of the default route, which is the one that matters.
    """
    found = []
    for family, somewhere in SOMEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                with contextlib.suppress(OSError):
                    probe.setsockopt(*PREFER_PUBLIC)
            probe.connect((somewhere, 9))
            host = str(probe.getsockname()[0])
            if not ipaddress.ip_address(host.partition("%")[0]).is_link_local:
                found.append(host)
    return found


def open_files_max() -> int | None:
    """How many files and sockets this process may have open; None if there is no limit, or none is
    known."""
    try:
        import resource  # noqa: PLC0415 - not on Windows, where sockets are no files
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


@functools.cache
def process_id() -> int:
    """The id of this process, without asking the system each time. A node stays in the process that
    it was started in (R15): in one that is forked from there, the same keys, nonces and sockets
    would be used twice."""
    return os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process_id.cache_clear)


give_way: Final[Callable[[], object]] = getattr(os, "sched_yield", partial(time.sleep, 0))
"""Let whoever else is ready have this processor first."""


def clock_counting_sleep(system: str, clocks: Any = time) -> Callable[[], float]:
    """The clock of ``system`` (``sys.platform``) that counts the time in which a machine sleeps, of
    those that the module ``clocks`` has: a laptop that slept for an hour must find its deadlines
    passed.

    Linux has CLOCK_BOOTTIME for that, and its CLOCK_MONOTONIC and CLOCK_MONOTONIC_RAW stand still.
    On macOS it is CLOCK_MONOTONIC_RAW: Apple's clock_gettime(3) says that CLOCK_MONOTONIC "will
    continue to increment while the system is asleep", that CLOCK_MONOTONIC_RAW is like it but not
    adjusted, and that CLOCK_UPTIME_RAW does not count sleep, being mach_absolute_time(), which is
    what Python's ``time.monotonic`` reads there (python/cpython#86273). Elsewhere it is
    ``time.monotonic``, whatever that counts.
    """
    if hasattr(clocks, "CLOCK_BOOTTIME"):
        return partial(clocks.clock_gettime, clocks.CLOCK_BOOTTIME)
    if system == "darwin" and hasattr(clocks, "CLOCK_MONOTONIC_RAW"):
        return partial(clocks.clock_gettime, clocks.CLOCK_MONOTONIC_RAW)
    monotonic: Callable[[], float] = clocks.monotonic
    return monotonic


ELAPSED: Final = clock_counting_sleep(sys.platform)


@dataclass(frozen=True, slots=True)
class Environment:
    """Time and entropy, by default the machine's own; and, where they are given, functions that
    tell the machine's addresses and limits."""

    elapsed: Callable[[], float] = ELAPSED
    """Seconds since any fixed moment, never going back, counting time spent suspended."""
    unix_time: Callable[[], float] = time.time
    """Seconds since 1970. May be wrong and may jump. The expiry and the sequences of records depend
    on it, and whether early data is accepted."""
    entropy: Entropy = os.urandom
    """Returns that many unpredictable bytes."""
    local_addresses: Callable[[], Sequence[str]] | None = None
    """Returns the machine's addresses now, as text, each with the length of its prefix if it is
    known (``192.168.1.7/24``); see :func:`local_addresses`. With None, a node that listens on a
    wildcard announces only what others observe."""
    open_files_max: Callable[[], int | None] | None = None
    """Returns how many files the process may have open; see :func:`open_files_max`. With None,
    ``connections_max`` is as configured."""
    give_way: Callable[[], object] | None = None
    """Called again and again while the node is busy polling; see :func:`give_way`. None where time
    stands still until the event loop sleeps: the node then never polls."""


_NONCE: Final = struct.Struct(f"{NONCE_BYTES}s")
NONCES_AT_FIRST: Final = 16
NONCES_AT_A_TIME: Final = 256
"""Four KiB, which who asks little does not need."""


def nonces(entropy: Entropy) -> Iterator[bytes]:
    """Nonces of messages, unique for ever (R1), taken from entropy in larger pieces: asking the
    system for each costs more than all the rest of making a message."""
    counts = chain((NONCES_AT_FIRST,), repeat(NONCES_AT_A_TIME))
    stocks = (_NONCE.iter_unpack(entropy(count * NONCE_BYTES)) for count in counts)
    return chain.from_iterable(chain.from_iterable(stocks))
