"""Contacts of an earlier run at which no node can be under the current options. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from egtp.values.comm_strat import Address
from lookup_dht.wire.contact import LAB_HINT, AddressPolicy, Contact

__all__ = ["UnusedContacts"]

UNUSED_MAX: Final = 256
"""More than the tables of most networks hold."""
_LAB: Final = AddressPolicy(private_addresses=True)


class UnusedContacts:
    """Kept for a later run: omitting an option once must not cost the contacts found."""

    def __init__(self, contacts: Iterable[Contact], listen: Address) -> None:
        """``listen`` is this node's address. Contacts that no options would allow are dropped."""
        self._listen = listen
        self.kept: Final = tuple(it for it in contacts if _LAB.allows(it.packed))[:UNUSED_MAX]

    def why(self) -> list[str]:
        """A line for each reason."""
        reachable = sum(len(it.packed) == len(self._listen.ip) for it in self.kept)
        reasons = {
            f"they are not on the Internet{LAB_HINT}": reachable,
            f"a node that listens on {self._listen} cannot reach them": len(self.kept) - reachable,
        }
        return [
            f"{count} of the DHT contacts of an earlier run are kept, but not used: {reason}"
            for reason, count in reasons.items()
            if count
        ]
