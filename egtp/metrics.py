"""A program's figures in the text format of Prometheus (version 0.0.4). Pure.

Counters, and totals that only grow, are counters; all other figures are gauges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Part", "exposition", "of_dht"]

TOTALS: Final = frozenset({"bytes_received", "bytes_sent", "cpu_seconds"})
"""What only grows, beside the counters."""
NAMES: Final = frozenset({"peer_id", "node_id", "address", "network"})
"""Who the node is: labels of the metric ``info``."""
TROUBLES: Final = frozenset({"record_not_published"})
"""A text, or None if all is well: 1 or 0."""
LEFT_OUT: Final = frozenset({"buckets", "queries_answered_per_s", "queries_sent_per_s", "over_s"})
"""Prometheus computes rates by itself, and from any time to any other."""


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
    samples: list[tuple[Mapping[str, str], float]]


def exposition(parts: Iterable[Part]) -> str:
    """All figures of all parts. Counters, by name, are the label ``event`` of one metric each."""
    metrics: dict[str, _Metric] = {}
    for prefix, labels, statistics in parts:
        for name, kind, more_labels, value in _figures(statistics):
            metric = metrics.setdefault(f"{prefix}_{name}", _Metric(kind, []))
            metric.samples.append(({**labels, **more_labels}, value))
    lines = []
    for name, (kind, samples) in metrics.items():
        lines.append(f"# TYPE {name} {kind}")
        lines += (f"{name}{_written(labels)} {value!r}" for labels, value in samples)
    return "\n".join(lines) + "\n"


def _figures(
    statistics: Mapping[str, Any],
) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
    """Name, kind, labels and value of each."""
    names = {name: value for name, value in statistics.items() if name in NAMES}
    if names:
        yield "info", "gauge", names, 1
    for name, value in statistics.items():
        if name == "counters":
            for event, count in sorted(value.items()):
                yield "events_total", "counter", {"event": event}, count
        elif name in TROUBLES:
            yield name, "gauge", {}, int(value is not None)
        elif name in TOTALS:
            yield f"{name}_total", "counter", {}, value
        elif name in names or name in LEFT_OUT or value is None:
            continue
        else:
            number = len(value) if isinstance(value, list) else value
            seconds = f"{name}econds" if name.endswith("_s") else name
            yield seconds, "gauge", {}, int(number) if isinstance(number, bool) else number


def _written(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
