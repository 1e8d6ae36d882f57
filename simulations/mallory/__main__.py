"""``python -m simulations.mallory``: let Mallory loose on the engine, on all processors.

Schedule number N is drawn from the seed N, so the same number on the same commit gives the same
verdict. A failure prints the one command that plays it again, step by step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from simulations.mallory.attacks import ATTACKS, attack
from simulations.mallory.many import Verdict, play_many
from simulations.mallory.schedule import STEPS, draw, play
from simulations.mallory.small_world import Conditions


def _at_least_one(text: str) -> int:
    """With no schedules, or no steps, the program would report that Mallory never won."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulations.mallory", description=__doc__)
    parser.add_argument("--schedules", type=_at_least_one, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--steps", type=_at_least_one, default=STEPS, help="of each schedule")
    parser.add_argument("--replay", action="store_true", help="play the one of --seed, and show it")
    parser.add_argument("--attacks", action="store_true", help="play the named attacks instead")
    options = parser.parse_args(arguments)
    if options.attacks:
        return _attacks()
    if options.replay:
        return _replay(options.seed, options.steps)
    return _many(options.seed, options.schedules, options.steps)


def _many(first: int, count: int, steps: int) -> int:
    began_s, failed = time.perf_counter(), 0
    outcomes: Counter[str] = Counter()
    checks = ran = 0
    for verdict in play_many(range(first, first + count), steps):
        outcomes.update(verdict.outcomes)
        checks, ran = checks + verdict.checks, ran + verdict.ran
        if verdict.failures:
            failed += 1
            _tell(verdict, steps)
    took_s = time.perf_counter() - began_s
    told = ", ".join(f"{count} {outcome or 'open'}" for outcome, count in outcomes.most_common())
    print(f"{count} schedules of {steps} steps in {took_s:.0f} s; looked {checks} times")
    print(f"{ran} handlers ran; outcomes: {told}")
    print(f"Mallory won in {failed} of them" if failed else "Mallory never won")
    return 1 if failed else 0


def _tell(verdict: Verdict, steps: int) -> None:
    print(f"seed {verdict.seed}:", *verdict.failures, sep="\n  ")
    again = f"python -m simulations.mallory --replay --seed {verdict.seed} --steps {steps}"
    print(f"  again: {again}", flush=True)


def _replay(seed: int, count: int) -> int:
    conditions, steps = Conditions.draw(seed), draw(seed, count)
    print(conditions)
    print(*steps, sep="\n")
    played = play(conditions, steps, seed)
    print(*played.violations or ["nothing happened that must not"], sep="\n")
    print(f"trace {played.digest}")
    return 1 if played.violations else 0


def _attacks() -> int:
    won = 0
    for name in ATTACKS:
        violations = attack(name)
        won += bool(violations)
        print(f"{name}: {'; '.join(map(str, violations)) or 'in vain'}")
    return 1 if won else 0


if __name__ == "__main__":
    sys.exit(main())
