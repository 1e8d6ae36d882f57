"""What a node asks of the relays that it sends through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from egtp.channel.packet import DATA, INITIATION
from egtp.errors import NotSent
from egtp.queries.outgoing import PassedOn
from egtp.relay.relaying import DATA_LIFETIME_MS, INITIATION_LIFETIME_MS, Relaying
from egtp.relay.wire import Relay
from egtp.values.identity import NodeId
from egtp.values.message import NONCE_BYTES, Send, decode_message

RELAY, RECIPIENT = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20)
NOW_S = 100.0


@pytest.mark.reaches_in
@pytest.mark.parametrize(
    ("kind", "left_s", "lifetime_ms"),
    [
        (INITIATION, None, INITIATION_LIFETIME_MS),
        (DATA, None, DATA_LIFETIME_MS),
        (INITIATION, 60.0, INITIATION_LIFETIME_MS),
        (INITIATION, 1.5, 1500),
        (INITIATION, 0.0001, 1),
        (INITIATION, 0.0, None),
    ],
)
def test_a_relay_holds_a_packet_no_longer_than_somebody_waits_for_it(
    kind: int, left_s: float | None, lifetime_ms: int | None
) -> None:
    queued: list[PassedOn] = []
    relay = SimpleNamespace(direct=SimpleNamespace(queue=queued.append))
    node: Any = SimpleNamespace(
        now=lambda: NOW_S,
        nonce=lambda: bytes(NONCE_BYTES),
        book=SimpleNamespace(find={RELAY: relay}.get),
    )
    initiations: Any = None
    relaying = Relaying(node, bytes(32), initiations)
    packet, until_s = bytes((kind, 2, 3)), None if left_s is None else NOW_S + left_s
    if lifetime_ms is None:
        with pytest.raises(NotSent):
            relaying.send(RELAY, RECIPIENT, packet, until_s)
        assert not queued
    else:
        relaying.send(RELAY, RECIPIENT, packet, until_s)
        (message,) = [decode_message(bytes(one.message)) for one in queued]
        assert isinstance(message, Send)
        assert message.lifetime_ms == lifetime_ms
        assert Relay.decode(message.body) == Relay(RECIPIENT, lifetime_ms, packet)
