"""A daemon is killed on a host that lives on: how soon the others know, and that its containers are left in peace.

The kernel of a living host refuses the port, so the daemon is *gone*, not the host *silent*: its containers are presumed to run
and are replaced only after 30 s. In most runs the daemon is started again before that, and its containers must be the same ones,
not started again; in some it stays away, to see when the first replacement starts.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from testnet.bench.beliefs import Absence, Logs, counted, mistaken, worded
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_net import membership_net, settle
from testnet.bench.raw import IMAGE
from testnet.bench.submit import FAILED
from testnet.bench.work import Work, watch_s
from testnet.cluster import Testnet
from testnet.observer import Observer, boottime_s
from testnet.state import DAEMON

HOSTS = 5
TASKS_EACH = 2
DEAD_S_MAX = 1.0
GRACE_S = 30.0
AWAY_S = 20.0
"""The daemon is back well before the grace ends."""
WATCHED_S = 40.0
"""From the kill on: past the grace, so that a replacement that was started all the same would be seen."""
REPLACED_S_MAX = 60.0
GIVEN_UP_S = 30.0
AWAY_SHARE = 4
"""One run in so many, and at least one: the daemon stays away."""


@dataclass(slots=True)
class Kills:
    """All runs."""

    net: Testnet
    observer: Observer
    work: Work
    dead: Figures = field(default_factory=lambda: Figures("killed to dead for all others", "s"))
    spread: Figures = field(default_factory=lambda: Figures("first to last of the observers", "s"))
    back: Figures = field(default_factory=lambda: Figures("started again to alive for all others", "s"))
    replaced: Figures = field(default_factory=lambda: Figures("daemon away: killed to the first replacement", "s"))
    absences: list[Absence] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    """Starts and ends of containers within the grace of a kill, or at all in runs where the daemon came back."""

    def run(self, victim: int, *, returns: bool) -> None:
        """One kill, on a host that has tasks."""
        logs, killed_s, killed_utc = Logs(self.net), boottime_s(), time.time()
        self.net.required(victim, DAEMON).send(9)
        self.absences.append(Absence(victim, killed_utc))
        try:
            others = [number for number in self.net.hosts if number != victim]
            seen = logs.wait_dead(victim, others, since_utc=killed_utc, timeout_s=GIVEN_UP_S)
            self.dead.add(max(seen.values()) - killed_utc)
            self.spread.add(max(seen.values()) - min(seen.values()))
            if returns:
                self._return(victim, killed_s)
            else:
                self._stay_away(killed_s)
        finally:
            self.net.restart_daemon(victim)
            settle(self.net)
            self.absences[-1] = Absence(victim, killed_utc, time.time())

    def _return(self, victim: int, killed_s: float) -> None:
        watch_s(killed_s + AWAY_S - boottime_s())
        started = time.monotonic()
        self.net.restart_daemon(victim)
        settle(self.net)
        self.back.add(time.monotonic() - started)
        watch_s(killed_s + WATCHED_S - boottime_s())
        self.early += self.work.touched_since(killed_s).told()

    def _stay_away(self, killed_s: float) -> None:
        self.observer.wait_for(
            lambda seen: any(each.start_s > killed_s for each in seen.intervals()),
            timeout_s=REPLACED_S_MAX, what="a replacement to start",
        )  # fmt: skip
        first_s = min(at_s for at_s, _ in self.work.touched_since(killed_s).started)
        self.replaced.add(first_s)
        if first_s < GRACE_S:
            self.early.append(f"a replacement started after {first_s:.1f} s")


def measure(runs: int) -> Section:
    """`runs` kills; in one of four the daemon stays away."""
    with membership_net(HOSTS, images=(IMAGE,)) as (net, _), Observer(net) as observer:
        whole, order = Logs(net), random.Random(1)
        kills = Kills(net, observer, Work(net, observer, each=TASKS_EACH))
        for turn in range(runs):
            settle(net)
            victim = order.choice([number for number in net.hosts if kills.work.on(number)])
            try:
                kills.run(victim, returns=turn % AWAY_SHARE != AWAY_SHARE - 1 and not (runs < AWAY_SHARE and turn == runs - 1))
            except FAILED as problem:
                kills.dead.discard(f"{type(problem).__name__}: {problem}"[:120])
            print(f"kill {turn + 1} of {runs}: h{victim}, {kills.dead.row()} {kills.early}", flush=True)
        return _section(kills, whole)


def _section(kills: Kills, logs: Logs) -> Section:
    beliefs = logs.beliefs()
    wrong = mistaken(beliefs, kills.absences)
    right = [belief for belief in beliefs if belief.status == "dead" and belief not in wrong]
    notes = [
        f"Deaths by what they were put down to: {counted(right)}. Of daemons that were there: {counted(wrong) or 'none'}. "
        f"{logs.elections()} elections.",
    ]
    notes += [f"Wrongly: {worded(belief)}." for belief in wrong if belief.status == "dead"][:10]
    notes += [f"Touched: {text}." for text in kills.early[:10]]
    notes += [f"Logged: {line[:200]}" for line in logs.troubles()[:10]]
    return Section(
        title="A daemon is killed on a host that lives on",
        how=(
            f"Real: {HOSTS} hosts with {TASKS_EACH} containers each, bound to them by nothing. SIGKILL of one daemon, leaders "
            f"too; it is started again after {AWAY_S:.0f} s, and the containers are watched by the engines' own events until "
            f"{WATCHED_S:.0f} s after the kill. In one run of {AWAY_SHARE} it stays away until the first replacement starts."
        ),
        figures=[kills.dead, kills.spread, kills.back, kills.replaced],
        aims=[
            Aim("killed to dead for all others, the slowest run", kills.dead.percentile(1), DEAD_S_MAX, "s"),
            Aim(f"containers touched within {GRACE_S:.0f} s, or at all if it came back", len(kills.early), 0, "containers"),
        ],
        notes=notes,
    )
