"""A program's figures in the text format of Prometheus (version 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Part", "exposition", "of_dht"]

TOTALS: Final = {
    "bytes_received": "Bytes that its connections brought.",
    "bytes_sent": "Bytes handed to its connections.",
    "cpu_seconds": "Processor time, of user and system.",
}
"""What only grows, beside the counters."""
GAUGES: Final = {
    "askers_remembered": "Peers whose queries are remembered, to answer each once.",
    "connections": "Open connections.",
    "connections_max": "Connections that there may be.",
    "contacts": "Nodes in the table.",
    "handlers_running": "Handlers that have not returned.",
    "leases": "Clients of this relay.",
    "leases_max": "Clients that this relay may have.",
    "mailboxes_bytes": "What this relay holds for clients that are away.",
    "mailboxes_bytes_max": "What this relay may hold for clients that are away.",
    "nodes_estimated": "How many nodes the network has, by how close they are to a key.",
    "open_fds": "Open file descriptors.",
    "open_queries": "Queries that wait for a reply.",
    "peers": "Peers about which something is known.",
    "queries_bytes": "What the queries of others take up.",
    "queries_bytes_max": "What the queries of others may take up.",
    "queries_open": "Queries without an outcome.",
    "queries_remembered": "Queries that are remembered, to answer each once.",
    "record_bytes": "Size of the records held.",
    "record_sequence": "Sequence of its own record.",
    "records": "Records held.",
    "records_max": "Records that it may hold.",
    "relays": "Relays that grant it a lease.",
    "replies_remembered_bytes": "Size of the replies that are remembered.",
    "resident_memory_bytes": "Memory, without what is swapped out.",
    "server": "1 if others may ask this node, 0 if it only asks.",
    "unproven_sessions": "Sessions whose peer has not proven who it is.",
    "unread_bytes": "What waits for peers that do not read.",
    "unread_bytes_max": "What may wait for peers that do not read.",
    "uptime_s": "Time since the start.",
}
"""What goes up and down."""
NAMES: Final = frozenset({"peer_id", "node_id", "address", "network"})
"""Who the node is: labels of the metric ``info``."""
TROUBLES: Final = {"record_not_published": "1 while nobody stores its record."}
"""A text, or None if all is well: 1 or 0."""
LEFT_OUT: Final = frozenset({"buckets", "queries_answered_per_s", "queries_sent_per_s", "over_s"})
"""Prometheus computes rates by itself, and from any time to any other."""
ALARMING: Final = {
    "egtp": ("handler raised", "relay: lease refused: full"),
    "egtp_dht": ("query_over_rate", "record_file_failed"),
}
"""Events, by prefix, that are worth an alert: told from 0 on, as a rate needs two values, and the
first of them would go unnoticed."""


class Part(NamedTuple):
    """The statistics of a node, and how their metrics are named and labelled."""

    prefix: str
    labels: Mapping[str, str]
    statistics: Mapping[str, Any]


def of_dht(statistics: Mapping[str, Any]) -> Part:
    """Of a DHT node; a program may have one for each version of IP."""
    version = "6" if statistics["address"].startswith("[") else "4"
    return Part("egtp_dht", {"ip": version}, statistics)


class _Metric(NamedTuple):
    kind: str
    meaning: str
    samples: list[tuple[Mapping[str, str], float]]


def exposition(parts: Iterable[Part]) -> str:
    """All figures of all parts. Counters, by name, are the label ``event`` of one metric each. A
    figure that is not known here is a gauge."""
    metrics: dict[str, _Metric] = {}
    for prefix, labels, statistics in parts:
        for name, kind, meaning, more_labels, value in _figures(prefix, statistics):
            metric = metrics.setdefault(f"{prefix}_{name}", _Metric(kind, meaning, []))
            metric.samples.append(({**labels, **more_labels}, value))
    lines = []
    for name, (kind, meaning, samples) in metrics.items():
        lines += [f"# HELP {name} {meaning}"] if meaning else []
        lines.append(f"# TYPE {name} {kind}")
        lines += (f"{name}{_written(labels)} {value!r}" for labels, value in samples)
    return "\n".join(lines) + "\n"


def _figures(
    prefix: str, statistics: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, Mapping[str, str], float]]:
    """Name, kind, meaning, labels and value of each."""
    names = {name: value for name, value in statistics.items() if name in NAMES}
    if names:
        yield "info", "gauge", "Who it is: always 1.", names, 1
    for name, value in statistics.items():
        if name == "counters":
            counts = {**dict.fromkeys(ALARMING.get(prefix, ()), 0), **value}
            for event, count in sorted(counts.items()):
                yield "events_total", "counter", "What happened.", {"event": event}, count
        elif name in TROUBLES:
            yield name, "gauge", TROUBLES[name], {}, int(value is not None)
        elif name in TOTALS:
            yield f"{name}_total", "counter", TOTALS[name], {}, value
        elif name in names or name in LEFT_OUT or value is None:
            continue
        else:
            number = len(value) if isinstance(value, list) else value
            number = int(number) if isinstance(number, bool) else number
            in_seconds = f"{name}econds" if name.endswith("_s") else name
            yield in_seconds, "gauge", GAUGES.get(name, ""), {}, number


def _written(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
