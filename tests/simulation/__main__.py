"""`python -m tests.simulation --seed N [--count M] [--jobs J] [--trace] [--hosts K] ...`: run seeds, tell the story of one.

Each failure is told with the command that repeats it, and all of them again at the end, with the commit the run was made on. The
exit code is 1 when any seed failed. `--quiet` tells failures and one line a thousand seeds only.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.simulation.scenario import Report, run_seed

TOLD_EVERY = 1000


class Ran(NamedTuple):
    """What became of one seed. `failure` is empty when nothing did."""

    seed: int
    failure: str
    report: Report | None


def told(moment: float, who: str, what: str) -> None:
    """One line of the story."""
    print(f"{moment:10.4f} {who:>4} {what}")


def run(seed: int, options: dict[str, Any]) -> Ran:
    """Run one seed. Whatever a core raises is a finding; the next seeds are run all the same. Garbage is collected in between."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return Ran(seed, "", run_seed(seed, **options))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        if options.get("trace"):
            traceback.print_exc()
        return Ran(seed, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})", None)


def run_all(first: int, count: int, jobs: int, options: dict[str, Any]) -> Iterator[Ran]:
    """Every seed, in order; in so many processes."""
    seeds = range(first, first + count)
    if jobs == 1:
        yield from (run(seed, options) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, seeds, (options for _ in seeds), chunksize=4)


def repeat(seed: int, arguments: argparse.Namespace) -> str:
    """The command that runs one of these seeds again."""
    names = ("hosts", "seconds", "kinds", "every", "entries", "witnesses")
    given = [f"--{name} {getattr(arguments, name)}" for name in names if getattr(arguments, name)]
    given += [f"--no-{name}" for name in ("reads", "later", "newer") if not getattr(arguments, name)]
    return " ".join((f"python -m tests.simulation --seed {seed}", *given))


def describe(report: Report) -> str:
    """One run in one line."""
    return (
        f"seed {report.seed}: ok, {report.hosts} hosts, {report.seconds:.0f} s, {report.events} events, "
        f"{report.entries} entries, {report.requests} requests, {report.judged} reads and writes in order, "
        f"healed in {report.healed_in_s:.0f} s, "
        f"{', '.join(report.faults)}"
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--hosts", type=int, default=0, help="hosts (drawn from the seed otherwise)")
    parser.add_argument("--seconds", type=float, default=0.0, help="seconds of chaos (drawn from the seed otherwise)")
    parser.add_argument("--kinds", default="", help="kinds of faults, with commas (drawn from the seed otherwise)")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between faults (drawn from the seed otherwise)")
    parser.add_argument("--entries", type=int, default=0, help="entries an append carries (drawn from the seed otherwise)")
    parser.add_argument("--reads", action=argparse.BooleanOptionalAction, default=True, help="clients of registers")
    parser.add_argument("--later", action=argparse.BooleanOptionalAction, default=True, help="kinds of faults that came later")
    parser.add_argument("--newer", action=argparse.BooleanOptionalAction, default=True, help="witnesses, orderly stops")
    parser.add_argument("--witnesses", type=int, default=None, help="hosts that run nothing (drawn from the seed otherwise)")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    parser.add_argument("--quiet", action="store_true", help="tell failures and a count only")
    return parser.parse_args()


def commit() -> str:
    """Which code this is, if git knows."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> int:
    """Run; the exit code is 1 when any seed failed."""
    arguments = parsed()
    options: dict[str, Any] = {
        "hosts": arguments.hosts, "seconds": arguments.seconds, "every_s": arguments.every, "reads": arguments.reads,
        "kinds": tuple(arguments.kinds.split(",")) if arguments.kinds else (), "later": arguments.later,
        "newer": arguments.newer, "witnesses": arguments.witnesses,
        "append_entries_max": arguments.entries, "trace": told if arguments.trace else None,
    }  # fmt: skip
    failed: dict[int, str] = {}
    node_seconds, judged, began = 0.0, 0, time.perf_counter()
    for number, ran in enumerate(run_all(arguments.seed, arguments.count, arguments.jobs, options), 1):
        if ran.report is None:
            failed[ran.seed] = ran.failure
            print(f"seed {ran.seed}: FAILED {ran.failure}\n    {repeat(ran.seed, arguments)} --trace", flush=True)
        else:
            node_seconds += ran.report.node_seconds
            judged += ran.report.judged
            if not arguments.quiet:
                print(describe(ran.report), flush=True)
        if arguments.quiet and number % TOLD_EVERY == 0:
            print(f"{number} seeds, {len(failed)} failed, {time.perf_counter() - began:.0f} s", flush=True)
    took_s = time.perf_counter() - began
    print(
        f"{arguments.count} seeds from {arguments.seed} on commit {commit()} in {took_s:.1f} s ({arguments.jobs} processes): "
        f"{node_seconds / 3600:.1f} node-hours, {node_seconds / took_s:.0f} node-seconds per second, "
        f"{judged} reads and writes in order, {len(failed)} failed"
    )
    for seed, failure in failed.items():
        print(f"  {repeat(seed, arguments)}  # {failure.splitlines()[0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
