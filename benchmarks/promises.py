"""What each promise costs: EGTP with all of them, beside EGTP without one.

``python -m benchmarks.promises [--rounds N] [--json FILE] [--plots DIR] [--into PAGE]``

Each round takes every promise away once (:mod:`benchmarks.without`). Right beside that window, in
turns before or after it, runs one with all promises kept; a cost is the median difference of such
pairs. Processor time of both processes tells it best, since others may share the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks.__main__ import allow_files
from benchmarks.contest import CONTESTANTS, ONE, THOUSAND, R, Work
from benchmarks.machine import describe
from benchmarks.pair import QUIET_CORES, Pair, cpu_us
from benchmarks.report import Table, put_into, spread
from benchmarks.stack import stacked_chart
from benchmarks.without import ALL, PROMISES
from egtp import NodeId
from egtp.queries.answers import Answers
from egtp.queries.asker import Asker
from egtp.queries.outgoing import Outgoing

__all__ = ["Compared", "compare", "draw", "memory_table", "remembered_bytes", "table"]

EGTP: Final = CONTESTANTS[0]
WORKS: Final = (ONE, R, THOUSAND)
PEERS, ANSWERS_EACH = 2000, 16
REPLY_BYTES: Final = 164
"""A reply with a body of 100 bytes, as it is kept."""
Facts: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two windows, one right after the other: with all promises kept, and without one."""

    promise: str
    work: str
    kept: Facts
    without: Facts

    @property
    def cost_us(self) -> float:
        """What the promise costs in processor time per query, both sides together."""
        return cpu_us(self.kept) - cpu_us(self.without)

    def ratio(self, figure: str) -> float:
        """A figure with the promise over that without it."""
        return float(self.kept[figure] / self.without[figure])

    @property
    def disturbed(self) -> bool:
        return any(one["others"] > QUIET_CORES for one in (self.kept, self.without))


def compare(rounds: int, seconds: float, warm_up_s: float = 0.2) -> list[Compared]:
    """Run all rounds. Returns all pairs of windows."""
    names = [*PROMISES, ALL]
    chance = random.Random(1)  # noqa: S311 - the order of measurements
    found: list[Compared] = []
    with ExitStack() as stack:
        kept = stack.enter_context(Pair(EGTP))
        without = {
            name: stack.enter_context(Pair(replace(EGTP, form=f"without {name}"))) for name in names
        }
        for number in range(rounds):
            for name in chance.sample(names, len(names)):
                for work in WORKS:
                    order = work.order(warm_up_s, seconds)
                    pairs = [kept, without[name]]
                    both = [pair.measure(order) for pair in pairs[:: 1 if number % 2 else -1]]
                    facts = both[:: 1 if number % 2 else -1]
                    found.append(Compared(name, work.name, facts[0], facts[1]))
                    print(_line(found[-1]), file=sys.stderr, flush=True)
    return found


def _line(one: Compared) -> str:
    mark = " (disturbed)" if one.disturbed else ""
    return f"{one.promise:14} {one.work:16} {one.cost_us:6.2f} us a query{mark}"


def _of(found: Sequence[Compared], promise: str, work: Work) -> list[Compared]:
    return [one for one in found if (one.promise, one.work) == (promise, work.name)]


def _whole_us(found: Sequence[Compared], work: Work) -> float:
    return statistics.median([cpu_us(one.kept) for one in found if one.work == work.name])


def table(found: Sequence[Compared]) -> str:
    """A line for each promise, and one for all of them."""
    lines = []
    for name in (*PROMISES, ALL):
        at_64, at_1000 = _of(found, name, R), _of(found, name, THOUSAND)
        p50 = spread(one.ratio("p50_us") for one in _of(found, name, ONE))
        rates = [spread(one.ratio("per_s") for one in some) for some in (at_64, at_1000)]
        costs = [statistics.median([one.cost_us for one in some]) for some in (at_64, at_1000)]
        lines.append((name, *(f"{us:.2f}" for us in costs), f"{rates[0]:.2f}", f"{rates[1]:.2f}",
                      f"{p50:.2f}"))  # fmt: skip
    whole = [_whole_us(found, work) for work in (R, THOUSAND)]
    lines.append(("a query with everything", *(f"{us:.2f}" for us in whole), "1", "1", "1"))
    heads = ("promise", "us, 64 in flight", "us, 1,000 in flight", "/s, 64 in flight",
             "/s, 1,000 in flight", "p50, one at a time")  # fmt: skip
    note = f"{sum(one.disturbed for one in found)} of {len(found)} pairs were disturbed by others."
    return f"{Table(heads, lines)}\n\n{note}"


def draw(found: Sequence[Compared], folder: Path) -> Path:
    """Draw the stacked chart. Returns its file."""
    wholes: dict[str, dict[str, float]] = {}
    for work in WORKS:
        costs = {
            name: max(0.0, statistics.median([one.cost_us for one in _of(found, name, work)]))
            for name in PROMISES
        }
        rest = max(0.0, _whole_us(found, work) - sum(costs.values()))
        wholes[work.name] = {"all the rest": rest} | costs
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "promises.svg"
    title = "What a 100 B query costs, us of processor time of both sides"
    file.write_text(stacked_chart(title, wholes), encoding="utf-8")
    return file


def remembered_bytes() -> dict[str, float]:
    """The memory that remembering takes: for a known, idle peer, and for each of its answers."""
    known, answers = _allocated(lambda: _askers(0))
    with_answers, _ = _allocated(lambda: _askers(ANSWERS_EACH))
    del answers
    return {
        "a peer that asked, idle": known / PEERS,
        f"the same with {ANSWERS_EACH} answers of 100 B kept": with_answers / PEERS,
        "each answer": (with_answers - known) / PEERS / ANSWERS_EACH,
    }


def _allocated(make: Callable[[], object]) -> tuple[int, object]:
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size, made


def _askers(each: int) -> tuple[Answers, list[Asker]]:
    answers = Answers()
    askers = []
    for number in range(PEERS):
        peer_id, incarnation = NodeId(number.to_bytes(20, "big")), number.to_bytes(8, "big")
        asker = answers.session_began(peer_id, incarnation, 1, 0.0)
        assert asker is not None
        # One query is answered and settled, as it is for every peer that ever asked.
        for query in range(each + 1):
            reference = (number * 1000 + query).to_bytes(32, "big")
            _, answer = answers.ask(asker, query, reference, 30.0, 0.0)
            assert answer is not None
            answers.answered(asker, answer, Outgoing(bytes(REPLY_BYTES), 0.0))
        answers.settle(asker, 1)
        answers.session_ended(asker)
        askers.append(asker)
    return answers, askers


def held_bytes(count: int, settle_s: float = 2.0) -> dict[str, float]:
    """A server's memory for each peer that is connected and has asked once."""
    found = {}
    for name, form in (("all promises kept", ""), ("without at most once", "without at most once")):
        with Pair(replace(EGTP, form=form)) as pair:
            _, found[name] = pair.hold(count, settle_s)
    return found


def memory_table(remembered: dict[str, float], held: dict[str, float]) -> str:
    lines = [(name, f"{size:,.0f}") for name, size in remembered.items()]
    lines += [(f"a connection, {name}", f"{size:,.0f}") for name, size in held.items()]
    return str(Table(("memory at the answerer", "bytes"), lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each window")
    parser.add_argument("--held", type=int, default=2000, help="connections to weigh")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="DIR")
    parser.add_argument("--into", type=Path, metavar="PAGE")
    options = parser.parse_args()
    allow_files()
    remembered, held = remembered_bytes(), held_bytes(options.held)
    found = compare(options.rounds, options.seconds)
    tables = {"promises": table(found), "promises_memory": memory_table(remembered, held)}
    print("\n\n".join(tables.values()))
    if options.plots:
        draw(found, options.plots)
    if options.into:
        page = put_into(options.into.read_text(encoding="utf-8"), tables)
        options.into.write_text(page, encoding="utf-8")
    if options.json:
        facts = {
            "machine": describe(),
            "compared": [asdict(one) for one in found],
            "remembered_bytes": remembered,
            "held_bytes": held,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
