"""Daemons that stop for 3, 10 and 60 s and go on (SIGSTOP, as swap or a paused machine does): what the others believe.

Their hosts' kernels go on answering connects, so such a daemon is *stalled* at most, never its host *silent*; and when it goes on
it must not blame the others for what it did not hear meanwhile. A stalled daemon's containers are replaced after 30 s.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from testnet.bench.beliefs import Belief, Logs, counted, worded
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_net import membership_net, settle
from testnet.bench.raw import IMAGE
from testnet.bench.submit import FAILED
from testnet.bench.work import Work, watch_s
from testnet.cluster import Testnet
from testnet.observer import Observer, boottime_s

HOSTS = 5
TASKS_EACH = 2
PAUSES_S = (3, 10, 60)
AFTER_S = 5.0


@dataclass(slots=True)
class Pauses:
    """All pauses."""

    net: Testnet
    observer: Observer
    work: Work
    dead: dict[int, Figures] = field(default_factory=dict)
    back: dict[int, Figures] = field(default_factory=dict)
    wrong: dict[int, list[Belief]] = field(default_factory=dict)
    of_the_stopped: dict[int, list[Belief]] = field(default_factory=dict)
    touched: dict[int, list[str]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for pause_s in PAUSES_S:
            self.dead[pause_s] = Figures(f"stopped for {pause_s} s: until the first other called it dead", "s")
            self.back[pause_s] = Figures(f"stopped for {pause_s} s: from its going on to the cluster whole", "s")
            self.wrong[pause_s], self.of_the_stopped[pause_s], self.touched[pause_s] = [], [], []

    def run(self, victim: int, pause_s: int) -> None:
        """One pause of one daemon."""
        logs, began_s, began_utc = Logs(self.net), boottime_s(), time.time()
        self.net.freeze(victim, daemon=True)
        try:
            watch_s(pause_s)
        finally:
            self.net.thaw(victim)
        resumed = time.monotonic()
        settle(self.net)
        self.back[pause_s].add(time.monotonic() - resumed)
        watch_s(AFTER_S)
        beliefs = logs.beliefs()
        about = [belief for belief in beliefs if belief.subject == victim]
        self.of_the_stopped[pause_s] += about
        self.wrong[pause_s] += [
            belief for belief in beliefs
            if belief.kind == "dead: host silent" or (belief.accuses and belief.subject != victim)
        ]  # fmt: skip
        deaths = [belief.at_utc for belief in about if belief.status == "dead"]
        if deaths:
            self.dead[pause_s].add(min(deaths) - began_utc)
        self.touched[pause_s] += self.work.touched_since(began_s).told()
        self.troubles += logs.troubles()


def measure(runs: int) -> Section:
    """Each pause `runs` times, the daemons in turn, the leader's always among them."""
    with membership_net(HOSTS, images=(IMAGE,)) as (net, _), Observer(net) as observer:
        pauses = Pauses(net, observer, Work(net, observer, each=TASKS_EACH))
        for pause_s in PAUSES_S:
            for turn in range(runs):
                leader = settle(net)
                others = [number for number in net.hosts if number != leader]
                victim = leader if turn % 2 else others[turn // 2 % len(others)]
                try:
                    pauses.run(victim, pause_s)
                except FAILED as problem:
                    pauses.back[pause_s].discard(f"{type(problem).__name__}: {problem}"[:120])
                said = "the leader" if victim == leader else "another"
                print(f"{pause_s} s, {turn + 1} of {runs}: h{victim}, {said}; {pauses.back[pause_s].row()}", flush=True)
        return _section(pauses, runs)


def _section(pauses: Pauses, runs: int) -> Section:
    wrong = [belief for beliefs in pauses.wrong.values() for belief in beliefs]
    notes = [
        f"Stopped for {pause_s} s, {runs} times: of the stopped {counted(pauses.of_the_stopped[pause_s]) or 'nothing'}; wrongly "
        f"{counted(pauses.wrong[pause_s]) or 'nothing'}; containers started or ended: {len(pauses.touched[pause_s])}."
        for pause_s in PAUSES_S
    ]
    notes += [f"Wrongly: {worded(belief)}." for belief in wrong if belief.status == "dead"][:15]
    notes += [f"Touched, {pause_s} s: {text}." for pause_s in PAUSES_S for text in pauses.touched[pause_s][:5]]
    notes += [f"Logged: {line[:200]}" for line in pauses.troubles[:10]]
    return Section(
        title="Daemons stopped for 3, 10 and 60 s",
        how=(
            f"Real: {HOSTS} hosts with {TASKS_EACH} containers each. SIGSTOP of a daemon, the leader's in every second run; then "
            f"SIGCONT, and watched for {AFTER_S:.0f} s more. Without a death the first line has no runs."
        ),
        figures=[*pauses.dead.values(), *pauses.back.values()],
        aims=[
            Aim("hosts called silent that were not", sum(belief.kind == "dead: host silent" for belief in wrong), 0, "beliefs"),
            Aim("others than the stopped called dead", sum(belief.status == "dead" for belief in wrong), 0, "beliefs"),
            *(Aim(f"containers touched, {pause_s} s", len(pauses.touched[pause_s]), 0, "containers") for pause_s in PAUSES_S),
        ],
        notes=notes,
    )
