"""What a record costs a store that already holds many.

``python -m benchmarks.stored_records SIZE`` prints JSON: the processor time to take one more record
from a stranger and give it away ten times, and the memory per record. Each size needs a process of
its own, since Python does not give back memory that it once had.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from benchmarks.machine import pss_bytes
from egtp import Address, CommRecord, Identity, NodeId, SignedCommRecord, TCPStrat
from egtp.values.comm_record import SUITE_AESGCM
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.settings import DHTLimits, NodeSettings
from lookup_dht.wire.datagram import StoreStatus

NOW_S: Final = 1_800_000_000
MORE: Final = 1000
"""How many records are stored and given away while the clock runs."""
GIVEN: Final = 10
"""How often each of them is given away: records are asked for more often than stored."""
OF_ONE_NETWORK: Final = 100


def records(count: int, rng: random.Random) -> Iterator[tuple[NodeId, bytes]]:
    for number in range(count):
        identity = Identity.generate(rng.randbytes)
        address = Address(rng.randbytes(4), 1024 + number % 60_000)
        content = CommRecord(
            NOW_S + 3600,
            rng.randbytes(8),
            ((SUITE_AESGCM, identity.channel_key),),
            (TCPStrat(address),),
        )
        signed = SignedCommRecord.sign(identity, NOW_S, content)
        yield signed.peer_id, signed.encode()


def store_for(size: int) -> RecordStore:
    limits = replace(DHTLimits(), records_max=size, sequences_max=size)
    rng = random.Random(1)  # noqa: S311
    settings = NodeSettings(lambda: float(NOW_S), lambda: 0.0, rng.randbytes, limits=limits)
    return RecordStore(rng.randbytes(20), settings, Counter())


def measure(size: int) -> dict[str, float]:
    rng = random.Random(size)  # noqa: S311
    store = store_for(size + MORE)
    more = list(records(MORE, rng))
    before = pss_bytes(os.getpid())
    for number, (peer_id, data) in enumerate(records(size, rng)):
        _put(store, number, peer_id, data)
    grown = pss_bytes(os.getpid()) - before
    began_s = time.process_time()
    for number, (peer_id, data) in enumerate(more, size):
        _put(store, number, peer_id, data)
        for _ in range(GIVEN):
            if store.held(peer_id) is None:
                raise AssertionError("a record that was stored is not there")
    return {
        "cpu_us": (time.process_time() - began_s) / MORE * 1e6,
        "bytes_each": grown / size,
    }


def _put(store: RecordStore, number: int, peer_id: NodeId, data: bytes) -> None:
    network = (number // OF_ONE_NETWORK).to_bytes(3, "big")
    if store.put(peer_id, data, network) is not StoreStatus.STORED:
        raise AssertionError("a valid record was not stored")


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
