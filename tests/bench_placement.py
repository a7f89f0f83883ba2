"""Placements a second at 1,000 and 5,000 nodes: `python -m tests.bench_placement`. CPU time of one process, with
what is there before frozen out of the collector's reach, as the daemon does."""

from __future__ import annotations

import gc
import time

from swarm.model.command import Submit
from swarm.model.ids import TaskId
from swarm.model.resources import Resources
from swarm.scheduler import Planner, Policy
from tests.catalog_kit import GIB, World, make_node, make_spec

TASKS = 4_000


def main() -> None:
    for count in (1_000, 5_000):
        for policy in Policy:
            world = World(*(make_node(f"n{number}", cpu=32_000, memory=128 * GIB) for number in range(1, count + 1)))
            for number in range(TASKS):
                spec = make_spec(f"t{number}", resources=Resources(100 + number % 7 * 250, (1 + number % 5) * GIB // 2))
                entry = world.log.entry(Submit(TaskId(f"t{number}"), spec))
                world.log.entries.append(entry)
                world.catalog.apply(entry)
            gc.collect()
            gc.freeze()
            planner, view = Planner(policy), world.view()
            start = time.process_time()
            planner.plan(view, limit=0)
            built = time.process_time()
            placed, longest = 0, 0.0
            while placed < TASKS:
                began = time.process_time()
                placed += len(planner.plan(view, limit=64).commands)
                longest = max(longest, time.process_time() - began)
            took = time.process_time() - built
            print(
                f"{count} nodes, {policy.value:12}: {TASKS / took:9,.0f} placements/s; "
                f"index built in {(built - start) * 1e3:.0f} ms; longest step of 64: {longest * 1e3:.1f} ms"
            )


if __name__ == "__main__":
    main()
