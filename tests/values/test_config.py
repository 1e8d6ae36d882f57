"""Every setting refuses what cannot work, and says which one it was."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.handshake import PeerLimits
from egtp.config import NodeConfig
from egtp.errors import InvalidConfig
from egtp.queries.checks import TIMEOUT_S_MAX
from egtp.relay.leases import RelayLimits
from egtp.values import canonical

NUMBERS = [field.name for field in fields(NodeConfig) if field.type in ("int", "float")]
COUNTS = [field.name for field in fields(NodeConfig) if field.type == "int"]
FLAGS = [field.name for field in fields(NodeConfig) if field.type == "bool"]
RATES = [field.name for field in fields(NodeConfig) if field.type == "float | None"]
MAY_BE_ZERO = {
    "relays_wanted", "lookups_max", "stagger_s", "address_checks_per_minute", "busy_poll_s",
}  # fmt: skip


def taken(names: list[str], *values: object) -> list[str]:
    """The settings that took a value without a word, or refused it without their name."""
    wrong = []
    for name in names:
        for value in values:
            settings: dict[str, Any] = {name: value}
            try:
                NodeConfig(**settings)
            except InvalidConfig as error:
                if name not in str(error):
                    wrong.append(f"{name}={value!r}: {error}")
            except Exception as error:
                wrong.append(f"{name}={value!r}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{name}={value!r} was taken")
    return wrong


def test_the_kinds_of_settings_are_known_here() -> None:
    # The others are the network, and what is remembered of answers.
    assert len(NUMBERS) + len(RATES) + len(FLAGS) + 2 == len(fields(NodeConfig))
    assert "network" not in NUMBERS
    assert COUNTS
    assert FLAGS


def test_the_defaults_work() -> None:
    config = NodeConfig()
    assert config.limits == (
        config.body_bytes_max,
        config.reassembly_bytes_max,
        config.open_queries_max,
        config.relayed_bytes_max,
    )
    assert not config.private_addresses


def test_a_config_cannot_be_changed_behind_its_checks() -> None:
    with pytest.raises(FrozenInstanceError):
        NodeConfig().dial_timeout_s = -1  # type: ignore[misc]


def test_no_number_is_negative_or_infinite_or_none_at_all() -> None:
    assert taken(NUMBERS, -1, -0.001, float("inf"), float("-inf"), float("nan")) == []


def test_a_rate_is_a_positive_number_or_none_for_no_limit() -> None:
    of_all = ["send_bytes_per_s", "receive_bytes_per_s"]
    assert [*of_all, *(f"peer_{rate}" for rate in of_all)] == RATES
    assert taken(RATES, 0, -1, float("inf"), float("nan"), True, "fast") == []
    assert NodeConfig(send_bytes_per_s=None).send_bytes_per_s is None
    assert NodeConfig(receive_bytes_per_s=1000).receive_bytes_per_s == 1000


def test_shares_of_a_small_table_leave_room_for_somebody() -> None:
    config = NodeConfig(connections_max=1)
    assert (config.strangers_max, config.peer_connections_max) == (1, 2)
    assert NodeConfig().strangers_max == 5000
    assert NodeConfig().known_strangers_max == 10_000
    assert NodeConfig(peers_max=1).known_strangers_max == 1
    assert taken(["strangers_share"], 1.1) == []


def test_numbers_are_positive_but_for_those_that_can_be_switched_off() -> None:
    assert taken([name for name in NUMBERS if name not in MAY_BE_ZERO], 0) == []
    assert NodeConfig(relays_wanted=0, lookups_max=0, stagger_s=0).relays_wanted == 0


def test_a_number_is_not_a_text() -> None:
    """What a program reads from its environment and hands on."""
    assert taken(NUMBERS, "30", "") == []


def test_a_number_is_not_a_truth_value_nor_missing() -> None:
    assert taken(NUMBERS, True, None) == []


def test_sizes_and_counts_are_whole() -> None:
    """They travel in the handshake, where there are no fractions."""
    assert taken(COUNTS, 1.5, 1e6) == []


def test_a_query_may_wait_for_as_long_as_the_wire_can_say() -> None:
    assert NodeConfig(hard_timeout_s=TIMEOUT_S_MAX).hard_timeout_s == TIMEOUT_S_MAX
    assert taken(["hard_timeout_s"], TIMEOUT_S_MAX + 1, 5_000_000) == []


def test_what_peers_are_told_is_a_number_that_the_handshake_can_say() -> None:
    told = ["reassembly_bytes_max", "open_queries_max", "relayed_bytes_max"]
    assert taken([*told, "body_bytes_max"], 2**64, 2**65) == []
    most = NodeConfig(**dict.fromkeys(told, 2**64 - 1))  # type: ignore[arg-type]
    packed = canonical.pack(most.limits)
    assert PeerLimits.parse(canonical.decode(packed)) == most.limits


def test_what_is_remembered_of_answers_has_limits() -> None:
    assert taken(["answers"], None, {"window": 5}) == []


def test_a_switch_is_a_truth_value() -> None:
    """The text "no" is true in Python, and would open the private network."""
    assert taken(FLAGS, "no", 0, None) == []


@pytest.mark.parametrize(
    "network", ["", "x" * 33, "größe", "\u0661", "A B", "Main", "main\n", None, 5, b"main"]
)
def test_a_network_is_a_short_name_that_a_dht_can_have_as_well(network: Any) -> None:
    assert taken(["network"], network) == []


@pytest.mark.parametrize("network", ["m", "x" * 32, "main"])
def test_a_network_may_be_as_long_as_the_handshake_says(network: str) -> None:
    assert NodeConfig(network=network).network == network


def test_a_record_lives_for_a_day_at_most() -> None:
    assert NodeConfig(record_lifetime_s=24 * 3600).record_lifetime_s == 24 * 3600
    assert taken(["record_lifetime_s"], 24 * 3600 + 1) == []


def test_a_loop_is_kept_awake_for_milliseconds_at_most() -> None:
    """Whoever takes them for microseconds is told."""
    assert NodeConfig().busy_poll_s == 0
    assert NodeConfig(busy_poll_s=0.01).busy_poll_s == 0.01
    assert taken(["busy_poll_s"], 0.011, 50) == []


def test_there_is_room_to_put_a_largest_body_together() -> None:
    assert taken(["body_bytes_max"], NodeConfig().reassembly_bytes_max + 1) == []
    assert taken(["reassembly_bytes_max"], NodeConfig().body_bytes_max - 1) == []


def test_a_body_fits_into_the_fields_of_its_chunks() -> None:
    """The total of a chunked message is 32 bits on the wire."""
    with pytest.raises(InvalidConfig, match="body_bytes_max"):
        NodeConfig(body_bytes_max=2**32, reassembly_bytes_max=2**33, waiting_bytes_max=2**33)


def test_a_lease_is_asked_for_in_whole_seconds_so_it_is_one_at_least() -> None:
    """Half a second would be asked for as none, which gives the lease back."""
    assert taken(["relay_lease_s"], 0.5) == []
    assert NodeConfig(relay_lease_s=1).relay_lease_s == 1


def test_settings_go_by_name_only() -> None:
    with pytest.raises(TypeError):
        NodeConfig("main")  # type: ignore[call-arg]


# A relay's own limits


@pytest.mark.parametrize(
    "settings",
    [
        {"mailbox_s_max": 600.1},
        {"mailbox_s_max": float("nan")},
        {"mailbox_s_max": float("inf")},
        {"leases_max": 0},
        {"leases_max": -1},
        {"lease_s_max": 0},
        {"lease_s_max": float("nan")},
        {"queue_bytes_max": 0},
    ],
    ids=str,
)
def test_a_relay_refuses_limits_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        RelayLimits(**settings)


def test_a_relay_may_hold_nothing_at_all() -> None:
    assert RelayLimits(mailbox_packets_max=0).mailbox_packets_max == 0
    assert RelayLimits(mailbox_s_max=600).mailbox_s_max == 600


@given(st.integers(0, 100_000), st.integers(1, 100_000))
def test_connections_never_need_more_files_than_may_be_open(files: int, wanted: int) -> None:
    config = NodeConfig(connections_max=wanted).within(files)
    assert 1 <= config.connections_max <= wanted
    assert config.connections_max == 1 or config.connections_max + config.closing_max <= files
    if config.connections_max < wanted:
        bigger = replace(config, connections_max=config.connections_max + 1)
        assert bigger.connections_max + bigger.closing_max + 64 >= files - 1


def test_without_a_limit_of_files_the_settings_are_as_they_are() -> None:
    config = NodeConfig()
    assert config.within(None) is config
