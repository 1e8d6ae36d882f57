"""The types of what the fixtures give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from egtp.values.comm_record import SignedCommRecord
from lookup_dht import DHTLookup

Start = Callable[..., Awaitable[DHTLookup]]
Network = Callable[..., Awaitable[list[DHTLookup]]]
Sign = Callable[..., SignedCommRecord]
