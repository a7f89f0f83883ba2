"""What every daemon believed of every other and when, from the daemons' own logs.

A daemon logs a change of belief in the step of its loop that makes it, with the wall time to the millisecond, and all hosts share
this machine's clock. So a line is the most exact source there is, costs the daemon no more than it always does, and asks nothing
of it while it is being measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from testnet.cluster import Testnet
from testnet.processes import wait_until

_STAMP = r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) "
_BELIEF = re.compile(_STAMP + r"INFO swarm\.node: h(\d+) is (alive|suspect|dead|left): (.*)$", re.MULTILINE)
_LEADS = re.compile(_STAMP + r"INFO swarm\.node: term \d+: leader,", re.MULTILINE)
_TROUBLE = re.compile(r"^\S+ \S+ (?:ERROR|CRITICAL) .*$|^Traceback.*$", re.MULTILINE)
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Belief:
    """One host's daemon changed its mind about another host's. `at_utc` is its own stamp, exact to a millisecond."""

    at_utc: float
    observer: int
    subject: int
    status: str
    evidence: str

    @property
    def accuses(self) -> bool:
        """Suspect or dead."""
        return self.status in ("suspect", "dead")

    @property
    def kind(self) -> str:
        """What a death was put down to, weighed as `swarm/membership/evidence.py` does; the status alone otherwise."""
        if self.status != "dead":
            return self.status
        said = self.evidence
        if "accepts" in said or "stalled" in said:
            return "dead: daemon stalled"
        if "refuses" in said:
            return "dead: daemon gone"
        return "dead: host silent" if "SYN-ACK" in said or "no route" in said or "silent" in said else "dead: daemon stalled"


class Logs:
    """The daemons' logs from now on."""

    def __init__(self, net: Testnet) -> None:
        self.net = net
        self.starts = {number: self._size(number) for number in net.hosts}

    def _size(self, number: int) -> int:
        path = self.net.host(number).daemon_log
        return path.stat().st_size if path.exists() else 0

    def text(self, number: int) -> str:
        """What a host's daemon said since."""
        with self.net.host(number).daemon_log.open("rb") as opened:
            opened.seek(self.starts[number])
            return opened.read().decode(errors="replace")

    def beliefs(self) -> list[Belief]:
        """Every change of belief since, in order of time."""
        found = [
            Belief(_utc(second, thousandths), number, int(subject), status, evidence)
            for number in self.net.hosts
            for second, thousandths, subject, status, evidence in _BELIEF.findall(self.text(number))
        ]
        return sorted((belief for belief in found if belief.observer != belief.subject), key=lambda belief: belief.at_utc)

    def elections(self) -> int:
        """How often a daemon became the leader since."""
        return sum(len(_LEADS.findall(self.text(number))) for number in self.net.hosts)

    def troubles(self) -> list[str]:
        """Every line since that tells of an error."""
        return [f"h{number}: {line}" for number in self.net.hosts for line in _TROUBLE.findall(self.text(number))]

    def wait_dead(self, subject: int, observers: list[int], *, since_utc: float, timeout_s: float) -> dict[int, float]:
        """Observer -> when it called the subject dead, once all of them did. TestnetError when one does not in time."""
        found: dict[int, float] = {}

        def all_did() -> bool:
            for belief in self.beliefs():
                if belief.subject == subject and belief.status == "dead" and belief.at_utc >= since_utc:
                    found.setdefault(belief.observer, belief.at_utc)
            return set(observers) <= set(found)

        what = f"h{subject} to be dead for all of {len(observers)} others"
        wait_until(all_did, timeout_s=timeout_s, what=what, interval_s=POLL_S)
        return {observer: found[observer] for observer in observers}


def _utc(second: str, thousandths: str) -> float:
    return datetime.strptime(second, "%Y-%m-%d %H:%M:%S").timestamp() + int(thousandths) / 1000


@dataclass(frozen=True, slots=True)
class Absence:
    """A host was really not there from one moment on, and was back and settled by another."""

    host: int
    since_utc: float
    until_utc: float = float("inf")

    def covers(self, belief: Belief) -> bool:
        """Whether the belief is about this host, between its going and its being settled again."""
        return self.host == belief.subject and self.since_utc <= belief.at_utc <= self.until_utc


def mistaken(beliefs: list[Belief], absences: list[Absence]) -> list[Belief]:
    """Suspicions and deaths of hosts that were there. `beliefs` are in order of time.

    An absence explains what is said of its host until the observer has seen it back, and that a daemon which has just started
    suspects the members it has not met yet.
    """
    seen_back: set[tuple[Absence, int]] = set()
    wrong = []
    for belief in beliefs:
        around = [gone for gone in absences if gone.since_utc <= belief.at_utc <= gone.until_utc]
        for gone in around:
            if gone.host == belief.subject and belief.status == "alive":
                seen_back.add((gone, belief.observer))
        explained = any(
            (gone, belief.observer) not in seen_back if gone.host == belief.subject
            else gone.host == belief.observer and belief.status == "suspect"
            for gone in around
        )  # fmt: skip
        if belief.accuses and not explained:
            wrong.append(belief)
    return wrong


def counted(beliefs: list[Belief], key: Callable[[Belief], str] = lambda belief: belief.kind) -> dict[str, int]:
    """How many of each kind, by name."""
    return dict(sorted(Counter(key(belief) for belief in beliefs).items()))


def worded(belief: Belief) -> str:
    """For people: who said what of whom, on what evidence."""
    return f"h{belief.observer} called h{belief.subject} {belief.status} ({belief.evidence[:160]})"
