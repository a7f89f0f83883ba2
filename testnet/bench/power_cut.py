"""A host's power is cut: how long until every other daemon, and every agent of Serf, believes it dead.

Daemons and agents run side by side on the same hosts, so one cut is the same event for both. The clock starts right before the
host's link goes down and its PID 1 is killed; an end is a line in an observer's own log. Between cuts the host boots again and
both clusters come to rest. Hosts are cut in turn, in an order drawn from a seed, so each is cut about as often.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from testnet.bench.api import voters_of
from testnet.bench.beliefs import Absence, Belief, Logs, counted, mistaken, worded
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_net import membership_net, settle
from testnet.bench.serf_agents import SerfAgents
from testnet.bench.submit import FAILED
from testnet.cluster import Testnet

MEDIAN_S_MAX = {3: 1.5, 10: 1.5, 30: 2.0}
SPREAD_S_MAX = 0.5
DEAD_S_MAX = 60.0
SERF_S_MAX = 120.0


@dataclass(slots=True)
class _Side:
    """One detector's figures."""

    first: Figures
    last: Figures
    spread: Figures

    @classmethod
    def named(cls, name: str) -> _Side:
        made = (f"{name}: cut to dead for the first other", f"{name}: cut to dead for all others", f"{name}: first to last")
        return cls(*(Figures(each, "s") for each in made))

    def add(self, cut_utc: float, seen_utc: dict[int, float]) -> None:
        self.first.add(min(seen_utc.values()) - cut_utc)
        self.last.add(max(seen_utc.values()) - cut_utc)
        self.spread.add(max(seen_utc.values()) - min(seen_utc.values()))

    @property
    def figures(self) -> list[Figures]:
        return [self.first, self.last, self.spread]


@dataclass(slots=True)
class Cuts:
    """All cuts of one size of cluster."""

    net: Testnet
    agents: SerfAgents
    ours: _Side = field(default_factory=lambda: _Side.named("swarm"))
    serf: _Side = field(default_factory=lambda: _Side.named("serf"))
    handled: Figures = field(default_factory=lambda: Figures("serf: cut to the event handlers of all others", "s"))
    leaders: Figures = field(default_factory=lambda: Figures("swarm: the same, cuts of the leader's host alone", "s"))
    back: Figures = field(default_factory=lambda: Figures("boot to both clusters whole again", "s"))
    absences: list[Absence] = field(default_factory=list)

    def run(self, victim: int, *, leads: bool) -> None:
        """One cut, and the return."""
        others = [number for number in self.net.hosts if number != victim]
        logs = Logs(self.net)
        cut_utc = self.net.kill(victim)
        self.absences.append(Absence(victim, cut_utc))
        try:
            dead = logs.wait_dead(victim, others, since_utc=cut_utc, timeout_s=DEAD_S_MAX)
            failed = self.agents.wait_failed(victim, others, since_utc=cut_utc, timeout_s=SERF_S_MAX)
            handled = [self.agents.handled_utc(number, victim, since_utc=cut_utc) for number in others]
            self.ours.add(cut_utc, dead)
            self.serf.add(cut_utc, failed)
            self.handled.add(max(utc for utc in handled if utc is not None) - cut_utc)
            if leads:
                self.leaders.add(self.ours.last.samples[-1])
        finally:
            self.return_of(victim, cut_utc)

    def return_of(self, victim: int, cut_utc: float) -> None:
        """The host boots; both clusters come to rest."""
        booted = time.monotonic()
        self.net.revive(victim)
        self.agents.start(victim)
        settle(self.net)
        self.agents.wait_whole()
        self.back.add(time.monotonic() - booted)
        self.absences[-1] = Absence(victim, cut_utc, time.time())


def measured(hosts: int) -> Callable[[int], Section]:
    """The measurement for clusters of that size."""

    def measure(runs: int) -> Section:
        with membership_net(hosts) as (net, founded_s), SerfAgents(net) as agents:
            agents.wait_whole()
            whole = Logs(net)
            cuts, order = Cuts(net, agents), random.Random(hosts)
            waiting: list[int] = []
            for turn in range(runs):
                if not waiting:
                    waiting = order.sample(net.hosts, len(net.hosts))
                victim, leader = waiting.pop(), settle(net)
                try:
                    cuts.run(victim, leads=victim == leader)
                except FAILED as problem:
                    cuts.ours.last.discard(f"{type(problem).__name__}: {problem}"[:120])
                    agents.wait_whole()
                print(f"cut {turn + 1} of {runs}: h{victim}, {cuts.ours.last.row()}", flush=True)
            return _section(cuts, whole, agents.version(), hosts=hosts, founded_s=founded_s)

    return measure


def _section(cuts: Cuts, logs: Logs, version: str, *, hosts: int, founded_s: float) -> Section:
    beliefs = logs.beliefs()
    wrong = mistaken(beliefs, cuts.absences)
    ours, bound = cuts.ours, MEDIAN_S_MAX.get(hosts, max(MEDIAN_S_MAX.values()))
    return Section(
        title=f"Power cut to dead at all others, {hosts} hosts",
        how=(
            f"Real: {hosts} emulated hosts, each with an engine, a daemon and an agent of Serf {version} (LAN profile). "
            "A cut ends everything on a host and takes its link down, so it is the same event for both; the clock starts right "
            "before. The end is in each observer's own log: our daemons' lines carry milliseconds; Serf's `EventMemberFailed` is "
            "stamped as it is read, every 10 ms; its event handlers, which wait a second to gather events, have a line of their "
            "own. Hosts are cut in turn, the leader's too."
        ),
        figures=[*ours.figures, cuts.leaders, *cuts.serf.figures, cuts.handled, cuts.back],
        aims=[
            Aim("cut to dead for all others, median", ours.last.median, bound, "s"),
            Aim("first to last of the observers, the widest cut", ours.spread.percentile(1), SPREAD_S_MAX, "s"),
            Aim("others called dead that were not", sum(belief.status == "dead" for belief in wrong), 0, "deaths"),
        ],
        notes=_notes(beliefs, wrong, cuts, logs, hosts=hosts, founded_s=founded_s),
    )


def _notes(beliefs: list[Belief], wrong: list[Belief], cuts: Cuts, logs: Logs, *, hosts: int, founded_s: float) -> list[str]:
    right = [belief for belief in beliefs if belief.status == "dead" and belief not in wrong]
    serf_wrong = [
        each for each in cuts.agents.failed
        if not any(gone.host == each.subject and gone.since_utc <= each.at_utc <= gone.until_utc for gone in cuts.absences)
    ]  # fmt: skip
    notes = [
        f"Founded by the same line on all {hosts} hosts at once: {founded_s:.1f} s from the first daemon's start to a cluster at "
        f"rest with {voters_of(hosts)} voters, the start of {hosts} Python processes on this machine's cores included.",
        f"Deaths by what they were put down to: {counted(right)}. Of hosts that were there: swarm {counted(wrong) or 'none'}, "
        f"serf {len(serf_wrong)} failed. {logs.elections()} elections.",
    ]
    notes += [f"Wrongly: {worded(belief)}." for belief in wrong if belief.status == "dead"][:10]
    if suspected := [belief for belief in wrong if belief.status == "suspect"]:
        returned = sum(any(gone.covers(belief) for gone in cuts.absences) for belief in suspected)
        notes.append(f"Of the suspicions {returned} were of a host that had just come back. The first: {worded(suspected[0])}.")
    return notes + [f"Logged: {line[:200]}" for line in logs.troubles()[:10]]
