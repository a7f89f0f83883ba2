"""The measurements in order, on one testnet of three hosts of their own that is gone afterwards.

A whole run writes docs/benchmarks/main-job.md; a part of it (`--only`) is printed only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from testnet.bench import batch, deaths, idle, page, submit
from testnet.bench.api import wait_settled
from testnet.bench.figures import Section
from testnet.cluster import Testnet
from testnet.engine import reserved_instance

HOSTS = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement and how often it is repeated unless `--runs` says otherwise."""

    measure: Callable[..., Section]
    runs: int


MEASUREMENTS = {
    "submit": Measurement(submit.measure, 25),
    "batch": Measurement(batch.measure, 3),
    "worker": Measurement(deaths.measure_worker, 5),
    "leader": Measurement(deaths.measure_leader, 7),
    "idle": Measurement(idle.measure, 1),
}


def run(*, only: str | None = None, runs: int | None = None) -> int:
    """Measure, print, and write the page if all of it was measured. A TestnetError says what could not be measured."""
    sections: list[Section] = []
    began = time.monotonic()
    with reserved_instance() as instance, Testnet.up(hosts=HOSTS, instance=instance, together=True) as net:
        about = page.facts(net)
        print(f"{about}\n", flush=True)
        wait_settled(net)
        for name, measurement in MEASUREMENTS.items():
            if only in (None, name):
                print(f"----- {name}, after {time.monotonic() - began:.0f} s", flush=True)
                waited_s, started = page.cpu_waited_s(), time.monotonic()
                sections.append(measurement.measure(net, runs=runs or measurement.runs))
                share = (page.cpu_waited_s() - waited_s) / (time.monotonic() - started)
                if not math.isnan(share):
                    sections[-1].notes.append(f"In {share:.0%} of this time something on the machine waited for a processor.")
                print(f"{sections[-1].markdown()}\n", flush=True)
    if only is None:
        command = "./testnet/run bench" + (f" --runs {runs}" if runs else "")
        whole = f"{about}\n\nTo repeat it: `{command}` ({time.monotonic() - began:.0f} s)."
        print(f"written: {page.write(whole, sections)}")
    return 0
