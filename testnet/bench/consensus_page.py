"""The page of consensus' figures (docs/benchmarks/consensus.md), put together by `results.py`."""

from __future__ import annotations

from testnet.bench.results import ResultsPage
from testnet.layout import REPOSITORY

ORDER = (
    "leader-cut",
    "leader-cut-busy",
    "leader-stop",
    "submits",
    "batch",
    "snapshots",
    "joins",
    "followers-2",
    "followers-10",
    "followers-50",
    "soak",
)

INTRODUCTION = """# Consensus, measured

Each section was written by the command it names, which measures it again; the page is put together from the results beside it
(`docs/benchmarks/consensus/*.json`, all samples kept). Daemons run on emulated hosts ([testnet](../testnet.md)) that share one
machine's cores: compare figures within one section only. etcd, where it stands beside us, was measured in the same run, on the
same hosts and disk; it is Debian's package with its default timings and without TLS.

`discarded` counts the runs that failed or were disturbed, with the reason; percentiles are by nearest rank, so with few runs p95
is the maximum."""

CONSENSUS = ResultsPage(
    REPOSITORY / "docs" / "benchmarks" / "consensus.md", REPOSITORY / "docs" / "benchmarks" / "consensus", INTRODUCTION, ORDER
)
