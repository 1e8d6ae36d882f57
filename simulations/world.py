"""The world that a cluster lives in: addresses, time and entropy. This one is this machine."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import Final

from egtp import InvalidConfig
from egtp.identity import Entropy

__all__ = ["LoopbackWorld"]

_HOSTS_PER_ROUND: Final = 250


class LoopbackWorld:
    """Real sockets and real time on the loopback interface. What is random comes from a seed.

    The same seed gives the same keys, so that a run can be told of and repeated. Such keys are no
    secret: this is for simulations only.
    """

    def __init__(self, seed: int, elapsed: Callable[[], float] = time.perf_counter) -> None:
        self.elapsed: Final = elapsed
        self._seed = seed
        self._hosts_given = 0

    def check(self) -> None:
        """Raises :class:`InvalidConfig` on a machine whose loopback has one address only."""
        host = _host(0)
        try:
            with socket.socket() as probe:
                probe.bind((host, 0))
        except OSError as error:
            raise InvalidConfig(
                f"this machine cannot use {host} ({error.strerror}); a cluster needs all of "
                "127.0.0.0/8 on the loopback interface, as Linux has it"
            ) from None

    def new_host(self) -> str:
        """An address that nobody in this world has had before, in a /24 of its own while they
        last: as if everybody lived in another network."""
        host = _host(self._hosts_given)
        self._hosts_given += 1
        return host

    def entropy(self, name: str) -> Entropy:
        """A source for ``name`` alone, so that what one node draws does not depend on how far
        the others have come."""
        return random.Random(f"{self._seed}/{name}").randbytes


def _host(number: int) -> str:
    round_, place = divmod(number, _HOSTS_PER_ROUND)
    return f"127.10.{1 + place}.{1 + round_}"
