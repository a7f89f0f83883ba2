"""What a soak found, for people and for the page of consensus' figures (docs/benchmarks/consensus.md)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.machine import commit
from testnet.soak.history import History, Outcome


@dataclass(slots=True)
class Report:
    """What a soak found. `asked` counts the clients' requests, `faults` what was done to the cluster, `disks` what became of the
    full disks among that."""

    seed: int
    hosts: int
    minutes: float
    asked: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    disks: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    longest_without_write_s: float = 0.0
    """Of the whole cluster: between two accepted writes, whichever client's."""
    longest_of_a_client_s: float = 0.0
    healed_in_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The last one says it all."""
        return [
            *(f"WRONG: {each}" for each in self.wrong),
            f"full disks: {_counted(self.disks)}",
            f"longest time of one client without an accepted write: {self.longest_of_a_client_s:.1f} s; well again "
            f"{self.healed_in_s:.1f} s after everything was mended",
            self.summary(),
        ]

    def summary(self) -> str:
        """One line: counts of every kind of fault and of every answer, the seed and the commit."""
        verdict = "nothing is wrong" if not self.wrong else f"{len(self.wrong)} things are WRONG"
        return (
            f"soak of {self.hosts} hosts for {self.minutes:g} min, seed {self.seed}, commit {commit()}: "
            f"{self.faults.total()} faults ({_counted(self.faults)}); {_counted(self.asked)}; "
            f"longest time without an accepted write {self.longest_without_write_s:.1f} s; {verdict}"
        )

    def section(self) -> Section:
        """The same as a section of the page."""
        how = (
            f"{self.hosts} emulated hosts for {self.minutes:g} minutes, seed {self.seed}. Faults are drawn one after another and "
            "mended after a while; at most a minority of the hosts is in trouble at a time, but for blackouts, which kill all. "
            "Clients submit, remove and list through any node meanwhile. Then everything is mended, and what they were told is "
            "judged: nothing acknowledged may be lost, no list may contradict another, each wanted container runs exactly once, "
            "every ballast is there again, every node is of one mind and takes new work, and no daemon ended that nobody killed."
        )
        counts = [*_figures("fault: ", self.faults), *_figures("", self.asked), *_figures("full disk: ", self.disks)]
        times = [
            Figures("longest time without an accepted write, all clients", "s", [self.longest_without_write_s]),
            Figures("longest time without an accepted write, one client", "s", [self.longest_of_a_client_s]),
            Figures("mended to well again", "s", [self.healed_in_s]),
        ]
        aims = [Aim("things that are wrong", len(self.wrong), 0, "things")]
        notes = [f"Wrong: {each}." for each in self.wrong]
        return Section("Random trouble, and a history that holds", how, [*counts, *times], aims, notes=notes)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


def _figures(prefix: str, counts: Counter[str]) -> list[Figures]:
    return [Figures(prefix + what, "", [count]) for what, count in sorted(counts.items())]


def longest_without_write_s(history: History) -> float:
    """The longest time between two answers that accepted a write."""
    writes = [*history.submits.values(), *history.removals.values()]
    at = sorted(write.answered for write in writes if write.outcome is Outcome.DONE)
    return max((later - earlier for earlier, later in pairwise(at)), default=0.0)
