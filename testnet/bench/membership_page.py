"""The page of membership's figures (docs/benchmarks/membership.md), put together by `results.py`."""

from __future__ import annotations

from testnet.bench.results import ResultsPage
from testnet.layout import REPOSITORY

ORDER = (
    "convergence",
    "bytes",
    "scale",
    "false-deaths-1",
    "false-deaths-2",
    "false-deaths-4",
    "false-deaths-8",
    "power-cut-3",
    "power-cut-10",
    "power-cut-30",
    "daemon-kill",
    "load",
    "pauses",
    "split",
    "idle-30",
    "mutated-packets",
)
"""Sections stand in this order; others follow by name."""

INTRODUCTION = """# Membership, measured

Each section was written by the command it names, which measures it again; the page is put together from the results beside it
(`docs/benchmarks/membership/*.json`, all samples kept). What is called simulated ran real membership cores on virtual time, so
its times do not depend on the machine and a run is the same for the same seed; what is called real ran daemons on emulated
hosts ([testnet](../testnet.md)), which share one machine's cores: compare figures within one section only.

`discarded` counts the runs that failed or were disturbed, with the reason; percentiles are by nearest rank, so with few runs p95
is the maximum."""

MEMBERSHIP = ResultsPage(
    REPOSITORY / "docs" / "benchmarks" / "membership.md", REPOSITORY / "docs" / "benchmarks" / "membership", INTRODUCTION, ORDER
)
