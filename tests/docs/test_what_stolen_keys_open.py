"""What docs/threat-model.md says of stolen channel keys, and of who is on the way."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import prologue
from egtp.channel.noise import Handshake
from egtp.errors import HandshakeFailed
from egtp.values.static_key import StaticKey
from simulations.mallory.small_world import Conditions, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network
from simulations.virtual.simulate import run_in

PROLOGUE = prologue("main", bytes(32))
SECRET = b"nobody else should read this, whoever keeps it for however long"


def key(fill: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes((fill,)) * 32)


ALICE, BOB = StaticKey(key(1)), StaticKey(key(2))


def initiation(payload: bytes) -> tuple[Handshake, bytes]:
    """What Alice says first to Bob."""
    alice = Handshake(PROLOGUE, ALICE, BOB.public)
    return alice, alice.write_initiation(key(3), BOB.public, payload)


class InHerName(StaticKey):
    """What a thief of Bob's channel key has for Alice's: her public key, and what it agrees on
    with Bob's."""

    def __init__(self) -> None:
        super().__init__(key(4))
        self.public = ALICE.public  # type: ignore[misc]

    def agree(self, static: bytes) -> bytes:
        assert static == BOB.public
        return BOB.agree(ALICE.public)


def test_the_channel_key_of_the_responder_opens_recorded_initiations() -> None:
    _, recorded = initiation(SECRET)
    thief = Handshake(PROLOGUE, StaticKey(key(2)), BOB.public)
    assert thief.read_initiation(recorded) == SECRET
    assert thief.remote == ALICE.public


def test_the_channel_key_of_the_initiator_opens_nothing_recorded() -> None:
    alice, first = initiation(SECRET)
    bob = Handshake(PROLOGUE, BOB, BOB.public)
    bob.read_initiation(first)
    second = bob.write_response(key(5), SECRET)
    with pytest.raises(HandshakeFailed):
        Handshake(PROLOGUE, StaticKey(key(1)), BOB.public).read_initiation(first)
    # All that a thief can do is begin again, and an ephemeral key is never the same.
    thief = Handshake(PROLOGUE, StaticKey(key(1)), BOB.public)
    thief.write_initiation(key(6), BOB.public, SECRET)
    with pytest.raises(HandshakeFailed):
        thief.read_response(second)
    assert alice.read_response(second) == SECRET


def test_the_responders_own_key_is_enough_for_an_initiation_of_anybody_but_no_session() -> None:
    thief = Handshake(PROLOGUE, InHerName(), BOB.public)
    forged = thief.write_initiation(key(6), BOB.public, b"in her name")
    bob = Handshake(PROLOGUE, BOB, BOB.public)
    assert bob.read_initiation(forged) == b"in her name"
    assert bob.remote == ALICE.public
    with pytest.raises(HandshakeFailed):
        thief.read_response(bob.write_response(key(5), b""))
    assert thief.split() != bob.split()


@pytest.mark.parametrize("relays", [0, 1])
def test_nobody_on_the_way_sees_a_byte_of_a_body(relays: int) -> None:
    network = Network(seed=1)
    conditions = Conditions(relays=relays, bob_listens=not relays)

    async def talk() -> tuple[str, list[bytes]]:
        async with SmallWorld.opened(network, conditions, XRay()) as world:
            question = world.ask(world.alice, world.bob, "echo", SECRET)
            await asyncio.sleep(5)
            seen = [frame.packet for frame in world.line.recorded]
            if world.crooked is not None:
                assert world.crooked.recorded
                seen += [passed.packet for passed in world.crooked.recorded]
            return question.outcome, seen

    outcome, seen = run_in(network, talk(), unreal=False).value
    assert outcome == "reply"
    assert sum(map(len, seen)) > 2 * len(SECRET)
    pieces = {SECRET[at : at + 4] for at in range(len(SECRET) - 3)}
    assert not any(piece in packet for packet in seen for piece in pieces)
