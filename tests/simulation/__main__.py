"""`python -m tests.simulation --seed N [--trace] [--hosts K] [--seconds S] [--count M] ...`: run seeds, tell the story of one."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from tests.simulation.scenario import run_seed


def told(moment: float, who: str, what: str) -> None:
    """One line of the story."""
    print(f"{moment:10.4f} {who:>4} {what}")


def main() -> int:
    """Run; the exit code is 1 when any seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--hosts", type=int, default=0, help="hosts (drawn from the seed otherwise)")
    parser.add_argument("--seconds", type=float, default=0.0, help="seconds of chaos (drawn from the seed otherwise)")
    parser.add_argument("--kinds", default="", help="kinds of faults, with commas (drawn from the seed otherwise)")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between faults (drawn from the seed otherwise)")
    parser.add_argument("--entries", type=int, default=0, help="entries an append carries (drawn from the seed otherwise)")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    arguments = parser.parse_args()
    failed: list[int] = []
    node_seconds = 0.0
    began = time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        try:
            report = run_seed(
                seed, hosts=arguments.hosts, seconds=arguments.seconds, every_s=arguments.every,
                kinds=tuple(arguments.kinds.split(",")) if arguments.kinds else (),
                append_entries_max=arguments.entries, trace=told if arguments.trace else None,
            )  # fmt: skip
        except Exception as error:  # whatever a core raises is a finding; the next seeds are run all the same
            failed.append(seed)
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f"seed {seed}: FAILED {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
            if arguments.trace:
                traceback.print_exc()
        else:
            node_seconds += report.node_seconds
            print(
                f"seed {seed}: ok, {report.hosts} hosts, {report.seconds:.0f} s, {report.events} events, "
                f"{report.entries} entries, {report.requests} requests, healed in {report.healed_in_s:.0f} s, "
                f"{', '.join(report.faults)}"
            )
    took_s = time.perf_counter() - began
    print(f"{arguments.count} seeds in {took_s:.1f} s, {node_seconds / took_s:.0f} node-seconds per second, failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
