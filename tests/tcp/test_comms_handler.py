"""TCPCommsHandler: who comes in, who stays, and who goes (seed III.B, R18)."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from typing import Any

import pytest

from egtp.channel.frames import LENGTH_BYTES
from egtp.errors import InvalidConfig, NotSent
from egtp.tcp.throttling import Rates
from egtp.values.attempts import AttemptReason
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import NodeId
from simulations.virtual.loop import VirtualLoop

SERVER = "127.0.0.1"
ALSO_CLIENT = "127.0.0.3"


def peer_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


class Clock:
    """Elapsed time, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def accepted(server: Any, client: Any, address: TCPStrat, count: int = 1) -> list[Any]:
    """The server's ends of so many new connections, one after the other."""
    before = {connection.number for connection in server.comms.all()}
    numbers: list[Any] = []
    for _ in range(count):
        dialled = client.comms.open(address)
        await client.until(lambda dialled=dialled: dialled.was_open or dialled.is_closed)
        await server.until(
            lambda: [c for c in server.comms.all() if c.number not in before and c.was_open]
        )
        (new,) = [c for c in server.comms.all() if c.number not in before and c.was_open]
        before.add(new.number)
        numbers.append(new)
    return numbers


async def dial(server: Any, client: Any, address: TCPStrat, count: int = 1) -> list[Any]:
    """The client's ends of so many connections; those that the server refuses among them."""
    dialled = [client.comms.open(address) for _ in range(count)]
    await client.until(lambda: all(c.was_open or c.is_closed for c in dialled))
    return dialled


def alive(end: Any, connections: list[Any]) -> list[bool]:
    return [connection.is_open for connection in connections]


# Opening


async def test_a_connection_goes_both_ways(make_end: Any) -> None:
    server, client = make_end(), make_end()
    address = await server.listen()
    dialled = client.comms.open(address)
    dialled.send(b"held until it is open")
    await server.until(lambda: server.packets == [b"held until it is open"])
    (there,) = server.comms.all()
    assert there.dialled is None
    assert client.comms.open(dialled.strategy) is dialled
    there.send(b"back")
    await client.until(lambda: client.packets == [b"back"])


async def test_a_port_where_nobody_listens_refuses(make_end: Any) -> None:
    client, server = make_end(), make_end()
    address = await server.listen()
    await server.comms.listen([])
    dialled = client.comms.open(address)
    await client.until(lambda: dialled.is_closed)
    assert client.reasons == {dialled.number: "connection refused"}
    assert not dialled.was_open
    with pytest.raises(NotSent, match="the connection is closed"):
        client.comms.open(dialled.strategy)


async def test_a_dial_that_runs_out_of_time_in_the_turn_in_which_it_connects_leaves_no_socket(
    make_end: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    called_later: dict[float, tuple[Any, ...]] = {}
    call_later = loop.call_later

    def note(delay_s: float, *call: Any, **options: Any) -> asyncio.TimerHandle:
        called_later[delay_s] = call
        return call_later(delay_s, *call, **options)

    monkeypatch.setattr(loop, "call_later", note)
    # It reads next to nothing, so what the dial has written cannot leave.
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), SERVER, 0)
    writers: list[asyncio.StreamWriter] = []
    transports: list[Any] = []
    client = make_end(dial_timeout_s=4.5, connection_buffer_bytes_max=64 << 20)
    address = Address.of(*server.sockets[0].getsockname()[:2])
    dialled = client.comms.open(TCPStrat(address))

    def written() -> None:
        # It is connected, and whoever dialled has yet to hear of it.
        transports.append(dialled._transport)
        loop.call_soon(*called_later[4.5])

    dialled.send(b"first", written)
    for _ in range(500):
        dialled.send(bytes(1 << 16))
    await client.until(lambda: dialled.is_closed and writers)
    assert client.reasons == {dialled.number: AttemptReason.SILENT}
    (transport,) = transports
    await client.until(lambda: not client.comms._openings)
    is_closing, left_bytes = transport.is_closing(), transport.get_write_buffer_size()
    transport.abort()
    writers[0].transport.abort()
    server.close()
    await server.wait_closed()
    assert is_closing
    assert left_bytes == 0


async def test_a_dial_that_is_given_up_before_its_first_turn_leaves_nothing(make_end: Any) -> None:
    server, client = make_end(), make_end()
    dialled = client.comms.open(await server.listen())
    dialled.abort("not wanted any more")
    await client.until(lambda: not client.comms._openings)
    assert len(client.comms) == 0


class AcceptedTransport(asyncio.Transport):
    """Of a connection that was accepted in a moment that no test can choose."""

    def __init__(self) -> None:
        super().__init__({"peername": (SERVER, 4000), "sockname": (SERVER, 5000)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_what_is_accepted_as_its_socket_is_closed_and_never_opened_does_not_count(
    make_end: Any,
) -> None:
    server = make_end()
    await server.listen()
    accepted = server.comms._listeners._accept()
    await server.comms.listen([])
    assert len(server.comms) == 0
    accepted.connection_lost(None)
    assert server.reasons == {}


@pytest.mark.parametrize("is_made_before", [True, False])
async def test_what_was_accepted_and_is_open_after_all_was_closed_is_closed_too(
    make_end: Any, *, is_made_before: bool
) -> None:
    server = make_end()
    await server.listen()
    accept, transport = server.comms._listeners._accept, AcceptedTransport()
    made = accept() if is_made_before else None
    await server.comms.close()
    accepted = made or accept()
    accepted.connection_made(transport)
    assert transport.aborted
    assert accepted.is_closed
    assert len(server.comms) == 0


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_while_it_begins_to_listen_leaves_the_address_free(
    make_end: Any, turns: int
) -> None:
    before, end = make_end(), make_end()
    address = (await before.listen()).address
    await before.comms.listen([])
    listening = asyncio.ensure_future(end.comms.listen([address]))
    for _ in range(turns):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    if not end.comms.listening:
        await before.comms.listen([address])


async def test_an_address_that_is_not_ours_cannot_be_listened_on(make_end: Any) -> None:
    server = make_end()
    address = await server.listen()
    with pytest.raises(InvalidConfig, match=r"cannot listen on 192\.0\.2\.1:80.*assign"):
        await server.comms.listen([address.address, Address.parse("192.0.2.1:80")])
    assert server.comms.listening == [address.address]


async def test_an_address_that_is_named_twice_is_listened_on_once(make_end: Any) -> None:
    before, end = make_end(), make_end()
    address = (await before.listen()).address
    await before.comms.listen([])
    assert await end.comms.listen([address, address]) == [address]


async def test_an_address_in_use_is_said_to_be_in_a_few_words(make_end: Any) -> None:
    address = str((await make_end().listen()).address)
    with pytest.raises(InvalidConfig) as told:
        await make_end().comms.listen([Address.parse(address)])
    assert str(told.value) == f"cannot listen on {address}: address already in use"


async def test_an_address_that_the_system_gives_no_socket_for_cannot_be_listened_on(
    make_end: Any,
) -> None:
    """Event loops pass over it in silence, as where there is no IPv6: a node would be deaf."""
    if isinstance(asyncio.get_running_loop(), VirtualLoop):
        pytest.skip("sockets are files of a real system")
    server = make_end()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(InvalidConfig) as told:
            await server.comms.listen([Address.parse("127.0.0.1:0")])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert str(told.value) == "cannot listen on 127.0.0.1:0: too many open files"
    # A program ends with another status for what may be otherwise at another time.
    assert isinstance(told.value.__cause__, OSError)
    assert told.value.__cause__.errno == errno.EMFILE
    assert server.comms.listening == []


# Too many


async def test_dialling_makes_room_by_the_connection_that_is_unused_for_longest(
    make_end: Any, clock: Clock
) -> None:
    server = make_end()
    client = make_end(elapsed=clock, connections_max=3, connections_per_peer_max=9)
    address = await server.listen()
    dialled = await dial(server, client, address, 3)
    for number, connection in enumerate(dialled):
        client.prove(connection, number, used_s=clock.now - 10 * number)
    clock.now += 100
    client.busy.add(dialled[2].number)
    client.comms.open(address)
    await client.until(lambda: dialled[1].is_closed)
    assert client.reasons == {dialled[1].number: "another one needs the place"}
    assert alive(client, dialled) == [True, False, True]


async def test_dialling_fails_at_once_if_all_connections_are_in_use(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(), make_end(elapsed=clock, connections_max=2)
    address = await server.listen()
    dialled = await dial(server, client, address, 2)
    client.prove(dialled[0], 1, used_s=clock.now)
    client.busy.add(dialled[0].number)
    clock.now += 100
    with pytest.raises(NotSent, match="connections_max"):
        client.comms.open(address)
    assert alive(client, dialled) == [True, True], "one is busy, the other one is being proven"


async def test_accepting_never_costs_a_known_peer_its_connection(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, connections_max=2), make_end()
    address = await server.listen()
    server.known = {peer_id(1), peer_id(2)}
    there = await accepted(server, client, address, 2)
    for number, connection in enumerate(there, 1):
        server.prove(connection, number, used_s=clock.now)
    clock.now += 100
    (refused,) = await dial(server, client, address)
    await client.until(lambda: refused.is_closed)
    assert alive(server, there) == [True, True]
    assert server.counters == {"connection refused: too many": 1}


async def test_an_accepted_connection_takes_the_place_of_an_idle_stranger(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, connections_max=2, strangers_share=1), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 2)
    for number, connection in enumerate(there, 1):
        server.prove(connection, number, used_s=clock.now)
    server.busy.add(there[0].number)
    clock.now += 100
    (newcomer,) = await accepted(server, client, address)
    await server.until(lambda: there[1].is_closed)
    assert alive(server, [*there, newcomer]) == [True, False, True]


async def test_strangers_have_their_share_and_idle_ones_make_way_for_each_other(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, connections_max=4), make_end()
    address = await server.listen()
    server.known = {peer_id(9)}
    first, second = await accepted(server, client, address, 2)
    server.prove(first, 1, used_s=clock.now)
    server.prove(second, 2, used_s=clock.now + 1)
    clock.now += 100
    (third,) = await accepted(server, client, address)
    server.prove(third, 3, used_s=clock.now)
    await server.until(lambda: first.is_closed)
    assert server.reasons == {first.number: "another stranger needs the place"}
    server.busy |= {second.number, third.number}
    fourth, wanted = await accepted(server, client, address, 2)
    server.prove(fourth, 4, used_s=clock.now)
    server.prove(wanted, 9, used_s=clock.now)
    await server.until(lambda: fourth.is_closed)
    assert alive(server, [second, third, wanted]) == [True, True, True]
    assert server.counters["connection refused: too many strangers"] == 1


async def test_one_peer_has_so_many_connections_and_its_oldest_makes_way(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, connections_per_peer_max=2), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 4)
    server.prove(there[0], 8)
    for connection in there[1:]:
        server.prove(connection, 7)
    await server.until(lambda: there[1].is_closed)
    assert server.reasons == {there[1].number: "its peer has newer ones"}
    assert alive(server, there) == [True, False, True, True]


async def test_one_peer_has_no_more_than_a_sixteenth_of_a_small_table(make_end: Any) -> None:
    assert make_end(connections_max=64).comms._config.peer_connections_max == 4
    assert make_end(connections_max=48).comms._config.peer_connections_max == 3


async def test_proving_the_same_connection_again_changes_nothing(make_end: Any) -> None:
    server, client = make_end(connections_per_peer_max=2), make_end()
    address = await server.listen()
    (there,) = await accepted(server, client, address)
    for _ in range(5):
        server.prove(there, 7)
    assert there.is_open
    assert server.comms._policy.of_peer(peer_id(7)) == (there.number,)


async def test_of_those_that_prove_nobody_the_oldest_makes_way(make_end: Any) -> None:
    server, client = make_end(half_open_max=2), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 3)
    await server.until(lambda: there[0].is_closed)
    assert alive(server, there) == [False, True, True]
    assert server.counters == {"connection refused: too many unproven": 1}
    server.prove(there[1], 1)
    (fourth,) = await accepted(server, client, address)
    assert alive(server, [*there, fourth]) == [False, True, True, True]


async def test_one_address_has_so_many_connections_and_others_have_theirs(make_end: Any) -> None:
    server, client = make_end(connections_per_ip_max=2), make_end()
    other = make_end(dial_from=ALSO_CLIENT)
    address = await server.listen()
    there = await accepted(server, client, address, 2)
    (refused,) = await dial(server, client, address)
    await client.until(lambda: refused.is_closed)
    assert server.counters == {"connection refused: too many from one address": 1}
    await accepted(server, other, address, 2)
    there[0].abort("gone")
    await accepted(server, client, address)


async def test_one_address_connects_so_fast_and_others_are_not_held_up(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, accepts_per_ip_per_s=1.0), make_end()
    other = make_end(dial_from=ALSO_CLIENT)
    address = await server.listen()
    await accepted(server, client, address, 6)
    (refused,) = await dial(server, client, address)
    await client.until(lambda: refused.is_closed)
    assert server.counters == {"connection refused: too fast from one address": 1}
    await accepted(server, other, address)
    clock.now += 1.0
    await accepted(server, client, address)


async def test_all_together_connect_so_fast_and_leave_half_to_newcomers(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, accepts_per_s=1.0), make_end()
    other = make_end(dial_from=ALSO_CLIENT)
    address = await server.listen()
    await accepted(server, client, address, 4)
    (refused,) = await dial(server, client, address)
    await client.until(lambda: refused.is_closed)
    await accepted(server, other, address)
    (refused,) = await dial(server, other, address)
    await other.until(lambda: refused.is_closed)
    assert server.counters == {"connection refused: too fast": 2}


# Cleaning up


async def test_what_proves_nobody_in_time_is_closed_and_the_rest_is_not(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, prove_timeout_s=5), make_end(elapsed=clock)
    address = await server.listen()
    silent, good, late = await accepted(server, client, address, 3)
    server.prove(good, 1, used_s=clock.now)
    clock.now += 4
    server.comms.clean_up()
    server.prove(late, 2, used_s=clock.now)
    clock.now += 1
    server.comms.clean_up()
    assert server.reasons == {silent.number: "no proof in time"}
    assert server.counters == {"connection closed: proved nobody in time": 1}


async def test_a_dialled_connection_that_proves_nobody_is_closed_too(
    make_end: Any, clock: Clock
) -> None:
    server = make_end()
    client = make_end(elapsed=clock, prove_timeout_s=5, dial_timeout_s=3)
    address = await server.listen()
    (dialled,) = await dial(server, client, address)
    clock.now += 7
    client.comms.clean_up()
    assert dialled.is_open
    clock.now += 1
    client.comms.clean_up()
    assert client.reasons == {dialled.number: "no proof in time"}


async def test_an_idle_connection_is_closed_in_peace_and_one_that_is_needed_is_kept(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, idle_timeout_s=100), make_end()
    address = await server.listen()
    idle, needed = await accepted(server, client, address, 2)
    for number, connection in enumerate((idle, needed)):
        server.prove(connection, number, used_s=clock.now)
    server.busy.add(needed.number)
    for _ in range(100):
        clock.now += 1
        server.comms.clean_up()
    assert alive(server, [idle, needed]) == [True, True]
    idle.send(b"last words")
    clock.now += 25
    server.comms.clean_up()
    assert idle.is_closing
    await server.until(lambda: idle.is_closed)
    assert server.reasons == {idle.number: "idle"}
    await client.until(lambda: client.packets == [b"last words"])
    clock.now += 1000
    server.comms.clean_up()
    assert needed.is_open


async def test_cleaning_up_looks_at_each_connection_only_now_and_then(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, idle_timeout_s=120), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 20)
    for number, connection in enumerate(there):
        server.prove(connection, number, used_s=clock.now + 1e6)
    for _ in range(120):
        clock.now += 1
        server.comms.clean_up()
    assert server.looks <= 20 * 4


# Closing


async def test_a_connection_that_does_not_end_in_peace_is_ended_in_time(
    make_end: Any, clock: Clock
) -> None:
    server, client = make_end(elapsed=clock, close_timeout_s=5), make_end()
    address = await server.listen()
    there, other = await accepted(server, client, address, 2)
    for connection in client.comms.all():
        connection.pause_reading()
    server.prove(other, 1, used_s=clock.now)
    there.send(b"never read")
    there.close("enough")
    clock.now += 4.9
    server.comms.clean_up()
    assert (there.is_closing, there.is_closed) == (True, False)
    clock.now += 0.2
    server.comms.clean_up()
    assert there.is_closed
    assert server.reasons == {there.number: "enough"}
    assert server.counters == {"connection closed: what it held did not leave in time": 1}
    assert other.is_open


async def test_those_being_closed_are_bounded_too(make_end: Any, clock: Clock) -> None:
    server, client = make_end(elapsed=clock, connections_max=20), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 18)
    for connection in client.comms.all():
        connection.pause_reading()
    for connection in there:
        connection.close("enough")
    assert [connection.is_closed for connection in there] == [True] * 2 + [False] * 16
    assert len(await accepted(server, client, address, 16)) == 16, "they take nobody's place"
    # Nor do they make way: that of the oldest of the others is the next one's.
    clock.now += 2.0
    await accepted(server, client, address, 8)
    assert sum(not connection.is_closing for connection in server.comms.all()) == 20


async def test_closing_lets_everything_leave_and_leaves_nothing(make_end: Any) -> None:
    server, client = make_end(), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 3)
    packets = [bytes([number]) * 10_000 for number in range(30)]
    for number, packet in enumerate(packets):
        there[number % 3].send(packet)
    opening = server.comms.open(address)
    await server.comms.close()
    assert len(server.comms) == 0
    assert opening.is_closed
    assert server.comms.listening == []
    await client.until(lambda: len(client.packets) == 30)
    assert sorted(client.packets) == packets
    with pytest.raises(NotSent, match="closed"):
        server.comms.open(address)


async def test_dropping_all_ends_everything_at_once(make_end: Any) -> None:
    server, client = make_end(), make_end()
    address = await server.listen()
    there = await accepted(server, client, address, 3)
    server.comms.drop_all("moved")
    assert [connection.is_closed for connection in there] == [True] * 3
    assert set(server.reasons.values()) == {"moved"}


# Throttling


async def test_a_limit_of_all_holds_for_old_and_new_connections_until_it_is_lifted(
    make_end: Any,
) -> None:
    server, client = make_end(), make_end()
    address = await server.listen()
    (old,) = await dial(server, client, address)
    assert old.throttle is None
    client.comms.throttle(Rates(send=1000.0))
    (new,) = await dial(server, client, address)
    for connection in (old, new):
        connection.send(bytes(500))
        assert not connection.takes_more
    client.comms.throttle(Rates())
    assert (old.throttle, new.throttle) == (None, None)
    assert old.takes_more
    assert new.takes_more
    await server.until(lambda: len(server.packets) == 2)


async def test_a_limit_of_a_peer_holds_for_its_connections_only_now_and_later(
    make_end: Any,
) -> None:
    server, client = make_end(), make_end()
    address = await server.listen()
    now, other, later = await dial(server, client, address, 3)
    client.prove(now, 1)
    client.prove(other, 2)
    client.comms.throttle_peer(peer_id(1), Rates(send=1000.0))
    client.prove(later, 1)
    for connection in (now, other, later):
        connection.send(bytes(500))
    assert [c.takes_more for c in (now, other, later)] == [False, True, False]
    client.comms.throttle_peer(peer_id(1), Rates())
    assert [c.takes_more for c in (now, other, later)] == [True, True, True]
    assert now.throttle is None
    await asyncio.sleep(0)


async def test_the_traffic_of_connections_is_counted_when_they_are_gone_too(make_end: Any) -> None:
    server, client = make_end(), make_end()
    address = await server.listen()
    await accepted(server, client, address, 2)
    first, second = client.comms.all()
    first.send(bytes(5000))
    second.send(bytes(300))
    carried = 2 * LENGTH_BYTES + 5300
    await server.until(lambda: server.comms.traffic == (carried, 0))
    first.close("enough")
    await client.until(lambda: len(client.comms) == len(server.comms) == 1)
    assert (client.comms.traffic, server.comms.traffic) == ((0, carried), (carried, 0))


async def test_each_clean_up_tells_of_those_that_may_not_read_now(make_end: Any) -> None:
    server, client = make_end(receive_bytes_per_s=1000.0), make_end()
    address = await server.listen()
    busy, _ = await accepted(server, client, address, 2)
    first, _ = client.comms.all()
    first.send(bytes(5000))
    await server.until(lambda: busy.bytes_in)
    server.comms.clean_up()
    assert server.slow == [busy]
