"""What a firewall remembers is what was used in the last two minutes, and not much more is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual.flows import IDLE_S, Flows

PEERS = [("192.0.2.1", 1), ("192.0.2.1", 2), ("198.51.100.1", 1)]

ports, peers = st.sampled_from([1, 2]), st.sampled_from(PEERS)
steps = st.lists(
    st.tuples(
        st.sampled_from(["sent", "admits"]), st.sampled_from([0.0, 1.0, 59.0, 120.0]), ports, peers
    ),
    max_size=30,
)


@given(steps)
def test_a_flow_is_known_for_two_minutes_after_its_last_datagram(
    steps: list[tuple[str, float, int, tuple[str, int]]],
) -> None:
    flows, used_s, now_s = Flows(), dict[tuple[int, tuple[str, int]], float](), 0.0
    for what, after_s, port, peer in steps:
        now_s += after_s
        known = now_s - used_s.get((port, peer), -IDLE_S - 1) <= IDLE_S
        if what == "sent":
            flows.sent(now_s, port, peer)
        else:
            assert flows.admits(now_s, port, peer) is known
        if known or what == "sent":
            used_s[port, peer] = now_s


def test_what_is_over_is_not_kept() -> None:
    flows = Flows()
    for number in range(10_000):
        flows.sent(float(number), 1, ("192.0.2.1", number))
    kept = [flow for ports in (flows._young, flows._old) for flow in ports.values()]
    assert sum(map(len, kept)) <= 2 * (IDLE_S + 2)


def test_a_machine_that_starts_again_knows_nobody() -> None:
    flows = Flows()
    flows.sent(0, 1, PEERS[0])
    flows.forget()
    assert not flows.admits(1, 1, PEERS[0])
