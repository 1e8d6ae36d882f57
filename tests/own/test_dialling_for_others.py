"""What a node does when it is asked to dial back: nobody can have it dial anybody but himself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import HandlerFailed, HardTimeout, Introduction, NodeConfig, ReplyCode
from egtp.channel.frames import FrameSplitter, frame
from egtp.channel.handshake import Responder, ResponsePayload
from egtp.channel.packet import Initiation, decode_packet
from egtp.own.address_check import CHECK_KIND, encode_check
from egtp.own.own_addresses import OwnState
from egtp.values import canonical
from egtp.values.comm_strat import Address

Play = Callable[[Callable[[Any], Awaitable[None]]], None]

ASKER, VERIFIER, VICTIM = "5.1.0.1", "5.2.0.1", "5.3.0.1"
TOKEN = bytes(range(16))


async def refused(asker: Any, verifier: Any, body: bytes) -> int:
    with pytest.raises(HandlerFailed) as caught:
        await asker.query(verifier, CHECK_KIND, body)
    return caught.value.code


async def asked_by(world: Any, **options: Any) -> tuple[Any, Any]:
    """An asker, and a verifier to which it has a connection."""
    asker, verifier = await world.players(ASKER, VERIFIER, **options)
    await asker.ask(verifier)
    verifier.dialled.clear()
    return asker, verifier


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        canonical.encode((4000,)),
        canonical.encode((4000, b"short")),
        canonical.encode((4000, bytes(17))),
        canonical.encode((0, TOKEN)),
        canonical.encode((65536, TOKEN)),
        canonical.encode((-4000, TOKEN)),
        canonical.encode((True, TOKEN)),
        canonical.encode(("4000", TOKEN)),
        canonical.encode(((VICTIM, 4000), TOKEN)),
        canonical.encode((1023, TOKEN)),
        canonical.encode((22, TOKEN)),
    ],
)
def test_what_is_no_question_or_a_low_port_is_refused_without_a_dial(
    play: Play, body: bytes
) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)
        assert await refused(asker, verifier, body) == ReplyCode.REFUSED
        assert not verifier.dialled
        assert sum(n for r, n in verifier.node.counters.items() if "address check" in r) == 1

    play(story)


def test_whatever_else_is_asked_for_the_askers_own_address_is_what_is_dialled_once(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)
        victim = Address.parse(f"{VICTIM}:4000")
        body = canonical.encode((4321, TOKEN, victim.ip, victim.port, (victim.ip, victim.port)))
        said = await asker.query(verifier, CHECK_KIND, body)
        assert said == b"connection refused"
        assert [str(address) for address in verifier.dialled] == [f"{ASKER}:4321"]

    play(story)


def test_a_record_that_names_a_victim_has_nobody_dial_the_victim(play: Play) -> None:
    async def story(world: Any) -> None:
        (verifier,) = await world.players(VERIFIER)
        (liar,) = await world.players(ASKER, announce=f"{VICTIM}:4000")
        await liar.ask(verifier)
        assert await liar.query(verifier, CHECK_KIND, encode_check(4000, TOKEN)) == b""
        assert [str(address) for address in verifier.dialled] == [f"{ASKER}:4000"]

    play(story)


def test_who_asks_through_a_relay_is_refused(play: Play) -> None:
    async def story(world: Any) -> None:
        (relay,) = await world.players("5.9.0.1", relay_server=True)
        known = StaticDiscovery([Introduction(relay.node_id, relay.node.record)])
        hidden = await world.start(
            world.network.host("hidden", "5.4.0.1"), listen=(), discovery=known
        )
        asker = await world.start(world.network.host("asker", ASKER), listen=())
        await asyncio.sleep(1)
        await asker.ask(hidden)
        assert asker.paths_to(hidden) == (f"relay {relay.node_id}",)
        before = list(hidden.dialled)
        body = encode_check(4000, TOKEN)
        with pytest.raises(HandlerFailed) as caught:
            await asker.run(asker.engine.ask_peer(hidden.node_id, CHECK_KIND, body, 5.0))
        assert caught.value.code == ReplyCode.REFUSED
        assert hidden.dialled == before

    play(story)


def test_who_asks_over_a_connection_that_the_other_side_opened_is_refused(play: Play) -> None:
    """There, his address is what some record said."""

    async def story(world: Any) -> None:
        asker, verifier = await world.players(ASKER, VERIFIER)
        await verifier.ask(asker)
        verifier.dialled.clear()
        assert await refused(asker, verifier, encode_check(4000, TOKEN)) == ReplyCode.REFUSED
        assert not verifier.dialled

    play(story)


def test_who_is_seen_at_a_private_address_is_not_dialled(play: Play) -> None:
    """A service in the local network is nobody's business, though the subnet is the same."""

    async def story(world: Any) -> None:
        gateway, verifier = await world.at_home(forwarded=False)
        beside = world.network.host("beside", "192.168.1.3", behind=gateway)
        asker = await world.start(beside, listen=())
        await asker.ask(verifier)
        assert await refused(asker, verifier, encode_check(4000, TOKEN)) == ReplyCode.REFUSED
        assert not verifier.dialled

    play(story)


def test_a_peer_is_dialled_now_and_then_only_and_so_is_an_ip_address(play: Play) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)
        interval_s = verifier.node.config.address_check_interval_s
        body = encode_check(4000, TOKEN)
        await asker.query(verifier, CHECK_KIND, body)
        assert await refused(asker, verifier, body) == ReplyCode.BUSY
        alias = await world.start(asker.host, listen=f"{ASKER}:4001")
        await alias.ask(verifier)
        assert await refused(alias, verifier, body) == ReplyCode.BUSY
        await asyncio.sleep(interval_s)
        await alias.query(verifier, CHECK_KIND, body)
        assert len(verifier.dialled) == 2

    play(story)


def test_all_askers_together_have_a_node_dial_so_often_in_a_minute(play: Play) -> None:
    async def story(world: Any) -> None:
        config = NodeConfig(address_checks_per_minute=3)
        (verifier,) = await world.players(VERIFIER, config=config)
        askers = await world.players(*(f"6.{n}.0.1" for n in range(5)))
        codes = []
        for asker in askers:
            await asker.ask(verifier)
            try:
                await asker.query(verifier, CHECK_KIND, encode_check(4000, TOKEN))
            except HandlerFailed as failed:
                codes.append(failed.code)
        assert codes == [ReplyCode.BUSY] * 2
        await asyncio.sleep(60)
        await askers[-1].query(verifier, CHECK_KIND, encode_check(4000, TOKEN))

    play(story)


def test_a_node_that_dials_for_nobody_says_that_it_is_busy(play: Play) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world, config=NodeConfig(address_checks_per_minute=0))
        assert await refused(asker, verifier, encode_check(4000, TOKEN)) == ReplyCode.BUSY
        assert not verifier.dialled

    play(story)


def test_nothing_but_one_handshake_is_said_and_nothing_is_taken_in_return(play: Play) -> None:
    """An asker who answers the handshake gets no session of it, and not one byte more."""

    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)
        before = verifier.paths_to(asker)
        heard: list[bytes] = []
        ended = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            splitter = FrameSplitter()
            while data := await reader.read(65536):
                for packet in splitter.feed(data):
                    heard.append(packet)
                    writer.write(frame(respond(packet)))
            writer.close()
            ended.set()

        def respond(packet: bytes) -> bytes:
            initiation = decode_packet(packet)
            assert isinstance(initiation, Initiation)
            responder = Responder(asker.node.identity, "main", initiation)
            assert responder.payload.check == TOKEN
            assert responder.payload.early == b""
            assert responder.record.peer_id == verifier.node_id
            limits = asker.node.config.limits
            payload = ResponsePayload(bytes(8), 0, True, None, 0, limits)
            response, _ = responder.respond(
                payload, 7, asker.engine.channels.handshakes._ephemeral()
            )
            return response.encode()

        await asker.run(asyncio.start_server(accept, ASKER, 5555))
        await asker.query(verifier, CHECK_KIND, encode_check(5555, TOKEN))
        await ended.wait()
        assert len(heard) == 1
        assert verifier.paths_to(asker) == before
        assert verifier.node.counters["response to no dial of ours"] == 1
        assert verifier.engine.channels.dialling == 0

    play(story)


def test_one_who_takes_the_connection_and_says_nothing_is_left_after_a_while(play: Play) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        await asker.run(asyncio.start_server(accept, ASKER, 5555))
        began_s = world.now
        assert await asker.query(verifier, CHECK_KIND, encode_check(5555, TOKEN)) == b""
        assert world.now - began_s == pytest.approx(verifier.node.config.dial_timeout_s, abs=0.2)
        assert len(verifier.engine.comms) == 1
        assert verifier.engine.channels.dialling == 0

    play(story)


# The asking side: what does not count as having been reached


def test_a_verifier_that_says_it_dialled_is_not_believed(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players("5.1.0.1", "5.2.0.1")
        for observer in observers:
            observer.engine.verifier._knock = say_yes
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        assert home.state(world.PUBLIC) is OwnState.FAILED
        assert "not this node" in str(home.node.own_addresses[-1])
        assert world.PUBLIC not in home.tcp

    async def say_yes(*_: Any) -> str:
        return ""

    play(story)


def test_a_token_counts_from_the_one_it_was_given_to_and_once(play: Play) -> None:
    async def story(world: Any) -> None:
        asker, verifier, other = await world.players(ASKER, VERIFIER, VICTIM)
        await asker.ask(verifier, other)
        await other.ask(asker)
        asking = asker.engine.addresses._dial_back
        assert not asking.arrived(verifier.node_id, TOKEN)
        answer = asyncio.ensure_future(asker.run(asking.ask(verifier.node_id, 4000)))
        while not asking._open:
            await asyncio.sleep(0)
        (token,) = asking._open
        assert not asking.arrived(other.node_id, token)
        assert not asking.arrived(verifier.node_id, bytes(16))
        assert (await answer).outcome.name == "REACHED"
        assert not asking._open
        assert not asking.arrived(verifier.node_id, token)

    play(story)


def test_a_token_on_a_connection_that_we_opened_or_through_a_relay_proves_nothing(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)
        watch = asker.engine.addresses
        (connection,) = asker.engine.comms.all()
        watch._dial_back._open[TOKEN] = (
            verifier.node_id,
            asyncio.get_running_loop().create_future(),
        )
        ip = Address.parse(f"{VERIFIER}:1").ip
        watch.arrived(verifier.node_id, TOKEN, connection.number, ip)
        watch.arrived(verifier.node_id, TOKEN, None, ip)
        assert not watch._dial_back._open[TOKEN][1].done()
        assert asker.node.counters["dial-back that nobody waits for"] == 2

    play(story)


def test_a_token_that_comes_from_within_the_local_network_proves_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await world.players(ASKER, VERIFIER)
        await verifier.ask(asker)
        watch = asker.engine.addresses
        (accepted,) = asker.engine.comms.all()
        came = asyncio.get_running_loop().create_future()
        watch._dial_back._open[TOKEN] = verifier.node_id, came
        for ip, proves in (("192.168.1.3", False), (VERIFIER, True)):
            seen = Address.parse(f"{ip}:1").ip
            watch.arrived(verifier.node_id, TOKEN, accepted.number, seen)
            assert came.done() == proves

    play(story)


def test_a_question_over_a_direct_path_has_its_time_and_the_dial_is_part_of_it(play: Play) -> None:
    async def story(world: Any) -> None:
        asker, verifier = await asked_by(world)

        async def never(_: Any) -> bytes:
            await asyncio.Event().wait()
            return b""

        verifier.node.handle("never", never)
        connect = asker.engine.searching.connect

        async def slowly(peer: Any) -> None:
            await asyncio.sleep(6.0)
            await connect(peer)

        asker.engine.searching.connect = slowly
        began = world.now
        with pytest.raises(HardTimeout):
            await asker.query(verifier, "never", b"")
        assert world.now - began < 8.1
        asker.engine.searching.connect = connect

    play(story)
