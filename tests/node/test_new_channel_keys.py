"""A peer that has a new channel key is reached by who knows the old one, once it has published."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from discovery import StaticDiscovery
from egtp import FastFail, Identity, Incoming, Introduction, Node
from egtp.attempts import AttemptReason

Start = Callable[..., Awaitable[Node]]
Eventually = Callable[..., Awaitable[None]]


async def echo(query: Incoming) -> bytes:
    return query.body


def renewed(identity: Identity) -> Identity:
    """The same peer with another channel key."""
    return Identity(identity.signing_key, X25519PrivateKey.generate())


@pytest.fixture
def address() -> str:
    """Where a node can listen again and again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def test_who_was_connected_goes_on_with_the_new_key(start: Start, address: str) -> None:
    identity = Identity.generate(os.urandom)
    before = await start(identity, listen=address)
    before.handle("echo", echo)
    asker = await start()
    assert await asker.query(before.node_id, "echo", b"old") == b"old"
    await before.close()
    after = await start(renewed(identity), listen=address)
    after.handle("echo", echo)
    assert await asker.query(after.node_id, "echo", b"new") == b"new"


async def test_who_has_an_old_contact_looks_up_the_new_key(start: Start, address: str) -> None:
    identity = Identity.generate(os.urandom)
    before = await start(identity, listen=address)
    contact = before.link
    await before.close()
    after = await start(renewed(identity), listen=address)
    after.handle("echo", echo)
    asker = await start()
    asker.add_contact(contact)
    assert await asker.query(after.node_id, "echo", b"new") == b"new"


async def test_without_a_lookup_service_an_old_contact_fails_fast(
    start: Start, address: str
) -> None:
    identity = Identity.generate(os.urandom)
    before = await start(identity, listen=address)
    contact = before.link
    await before.close()
    await start(renewed(identity), listen=address)
    asker = await start(lookup=None)
    asker.add_contact(contact)
    with pytest.raises(FastFail) as caught:
        await asker.query(identity.node_id, "echo", b"")
    assert AttemptReason.HUNG_UP in str(caught.value.attempts)


async def test_clients_of_a_relay_with_a_new_key_come_back_and_are_reached(
    start: Start, address: str, eventually: Eventually
) -> None:
    identity = Identity.generate(os.urandom)
    before = await start(identity, listen=address, relay_server=True)
    known = StaticDiscovery([Introduction(before.node_id, before.record)])
    hidden = await start(listen=(), discovery=known)
    hidden.handle("echo", echo)
    await eventually(lambda: len(hidden.relays) == 1)
    await hidden.published()
    asker = await start(listen=())
    assert await asker.query(hidden.node_id, "echo", b"old") == b"old"
    await before.close()
    await eventually(lambda: not hidden.relays)
    await start(renewed(identity), listen=address, relay_server=True)
    await eventually(lambda: len(hidden.relays) == 1)
    await hidden.published()
    assert await asker.query(hidden.node_id, "echo", b"new") == b"new"
