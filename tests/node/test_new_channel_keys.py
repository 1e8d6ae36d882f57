"""A peer that has a new channel key is reached by who knows the old one, once it has published."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from discovery import StaticDiscovery
from egtp import FastFail, Identity, Introduction, Node
from egtp.values.attempts import AttemptReason
from tests.node.at_hand import Eventually, Start, echo


async def again(start: Start, before: Node, **options: Any) -> Node:
    """The same peer at the same address, with another channel key."""
    address = str(before.listening[0])
    await before.close()
    identity = Identity(before.identity.signing_key, X25519PrivateKey.generate())
    node = await start(identity, listen=address, **options)
    assert node.node_id == before.node_id
    node.handle("echo", echo)
    return node


async def test_who_was_connected_goes_on_with_the_new_key(start: Start) -> None:
    before = await start()
    before.handle("echo", echo)
    asker = await start()
    assert await asker.query(before.node_id, "echo", b"old") == b"old"
    after = await again(start, before)
    assert await asker.query(after.node_id, "echo", b"new") == b"new"


async def test_who_has_an_old_contact_looks_up_the_new_key(start: Start) -> None:
    before = await start()
    contact = before.link
    after = await again(start, before)
    asker = await start()
    asker.add_contact(contact)
    assert await asker.query(after.node_id, "echo", b"new") == b"new"


async def test_without_a_lookup_service_an_old_contact_fails_fast(start: Start) -> None:
    before = await start()
    contact = before.link
    after = await again(start, before)
    asker = await start(lookup=None)
    asker.add_contact(contact)
    with pytest.raises(FastFail) as caught:
        await asker.query(after.node_id, "echo", b"")
    assert AttemptReason.HUNG_UP in str(caught.value.attempts)


async def test_clients_of_a_relay_with_a_new_key_come_back_and_are_reached(
    start: Start, eventually: Eventually
) -> None:
    before = await start(relay_server=True)
    known = StaticDiscovery([Introduction(before.node_id, before.record)])
    hidden = await start(listen=(), discovery=known)
    hidden.handle("echo", echo)
    await eventually(lambda: len(hidden.relays) == 1)
    await hidden.published()
    asker = await start(listen=())
    assert await asker.query(hidden.node_id, "echo", b"old") == b"old"
    after = await again(start, before, relay_server=True)
    new_key = after.identity.channel_key
    await eventually(lambda: [one.channel_key for one in hidden.record.relays] == [new_key])
    await hidden.published()
    assert await asker.query(hidden.node_id, "echo", b"new") == b"new"
