"""Writes anew what in ``vectors.json`` follows from the rest: run it from the top folder.

For a change of the wire that is meant, before it is released. The inputs (keys, ephemeral secrets,
payload fields, items) stay as they are in the file; what comes of them is computed and replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import (
    InitiationPayload,
    Initiator,
    PeerLimits,
    Responder,
    ResponsePayload,
)
from egtp.channel.packet import UnknownSession
from egtp.channel.session import InOrder, Session
from egtp.values.comm_strat import Address
from egtp.values.identity import Identity

VECTORS = Path(__file__).with_name("vectors.json")


def identity(keys: dict[str, str]) -> Identity:
    parts = iter((keys["signing_seed"], keys["channel_secret"]))
    return Identity.generate(lambda _: bytes.fromhex(next(parts)))


def payloads(shake: dict[str, Any]) -> tuple[InitiationPayload, ResponsePayload]:
    first, second = shake["initiation_payload"], shake["response_payload"]
    introduced = InitiationPayload(
        bytes.fromhex(first["record"]),
        first["time_ms"],
        first["responder_sequence"],
        first["responder_incarnation"],
        bytes.fromhex(first["incarnation"]),
        PeerLimits(*first["limits"]),
        bytes.fromhex(first["early"]),
        first["uptime_ms"],
    )
    ip, port = second["observed"]
    answer = ResponsePayload(
        bytes.fromhex(second["incarnation"]),
        second["uptime_ms"],
        second["early_accepted"],
        Address(bytes.fromhex(ip), port),
        second["time_ms"],
        PeerLimits(*second["limits"]),
        bytes.fromhex(second["record"]),
    )
    return introduced, answer


def ephemeral_secrets(shake: dict[str, Any]) -> list[X25519PrivateKey]:
    """The initiator's, and the responder's."""
    return [
        X25519PrivateKey.from_private_bytes(bytes.fromhex(shake[f"{side}_ephemeral_secret"]))
        for side in ("initiator", "responder")
    ]


def freeze(vectors: dict[str, Any]) -> None:
    shake, packets = vectors["handshake"], vectors["packets"]
    alice, bob = (identity(vectors["identities"][name]) for name in ("alice", "bob"))
    first, second = shake["initiation_payload"], shake["response_payload"]
    introduced, answer = payloads(shake)
    secrets = ephemeral_secrets(shake)
    first["bytes"], second["bytes"] = introduced.encode().hex(), answer.encode().hex()
    indices = [int(shake[f"{side}_index"], 16) for side in ("initiator", "responder")]
    initiator = Initiator(alice, shake["network"], bob.key, bob.channel_key, indices[0])
    initiation = initiator.initiate(introduced, secrets[0])
    responder = Responder(bob, shake["network"], initiation)
    response, theirs = responder.respond(answer, indices[1], secrets[1])
    packets["initiation"]["bytes"] = initiation.encode().hex()
    packets["response"]["bytes"] = response.encode().hex()
    shake["initiator_to_responder_key"] = theirs.receive.hex()
    shake["responder_to_initiator_key"] = theirs.send.hex()
    ours, theirs_index = indices
    ends = {
        "alice": (theirs.receive, ours, theirs_index),
        "bob": (theirs.send, theirs_index, ours),
    }
    sessions = {
        name: Session(
            index=index,
            remote_index=remote,
            send_key=key,
            receive_key=bytes(32),
            window=InOrder(),
            started_s=0.0,
        )
        for name, (key, index, remote) in ends.items()
    }
    for name in ("data_confirming", "data_query", "data_reply"):
        packet = packets[name]
        packet["bytes"] = sessions[packet["from"]].seal(bytes.fromhex(packet["plaintext"])).hex()
    note = packets["unknown_session"]
    about = bytes.fromhex(packets[note["about"]]["bytes"])
    note["bytes"] = UnknownSession(indices[1], about[-16:]).encode().hex()


if __name__ == "__main__":
    frozen = json.loads(VECTORS.read_text())
    freeze(frozen)
    VECTORS.write_text(json.dumps(frozen, indent=2) + "\n")
