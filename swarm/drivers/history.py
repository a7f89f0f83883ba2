"""What this node's gossip has changed its mind about: the last 1,000 changes of a status, each with its evidence, and counts.

Every node has its own history, since every node sees for itself. Changes are numbered from 1 at each start of the daemon, for
readers that go on from where they were; they have no place in the log, so they carry no index. Who is admitted or removed is
the log's to tell and is no change of a status.

Promise: suspicions opened = refuted + ended in death + ended in leaving + removed + those that are open.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

from swarm.membership import MemberChanged
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, StatusChange

CHANGES_KEPT = 1_000


class StatusHistory:
    """A subscriber of gossip. `utc` gives the wall time, for people."""

    def __init__(self, observer: NodeId, utc: Callable[[], float]) -> None:
        self.counters: Counter[str] = Counter()
        self._observer = observer
        self._utc = utc
        self._changes: deque[StatusChange] = deque(maxlen=CHANGES_KEPT)
        self._number = 0
        self._of: dict[NodeId, Counter[str]] = {}

    def on_change(self, change: MemberChanged) -> None:
        """Note it, if it is one of a status."""
        old, new = change.old, change.new
        if change.removed:
            if new.status is MemberStatus.SUSPECT and new.generation > 0:
                self._count(new.node_id, "suspicions_removed")
            self._of.pop(new.node_id, None)
            return
        if old is None or old.status is new.status:
            return
        if new.node_id != self._observer:
            for what in _outcomes(change):
                self._count(new.node_id, what)
        self._number += 1
        self._changes.append(
            StatusChange(
                number=self._number,
                time_utc=self._utc(),
                observer=self._observer,
                subject=new.node_id,
                name=new.name,
                old_status=old.status,
                status=new.status,
                death_kind=new.death_kind,
                evidence=change.evidence,
            )
        )

    def note(self, name: str, text: str, *, about: str) -> None:
        """Something to be told about a part of this node itself, whose status is what it was."""
        self._number += 1
        self._changes.append(
            StatusChange(
                number=self._number, time_utc=self._utc(), observer=self._observer, subject=self._observer, name=name,
                old_status=MemberStatus.ALIVE, status=MemberStatus.ALIVE, death_kind=None, evidence=text, about=about,
            )
        )  # fmt: skip

    def after(self, number: int) -> Sequence[StatusChange]:
        """Changes with a higher number, oldest first. O(changes returned)."""
        newer = list(takewhile(lambda change: change.number > number, reversed(self._changes)))
        return newer[::-1]

    def of(self, node_id: NodeId) -> Mapping[str, int]:
        """What was counted about one member since this daemon's start."""
        return dict(self._of.get(node_id, {}))

    def _count(self, node_id: NodeId, what: str) -> None:
        self.counters[what] += 1
        self._of.setdefault(node_id, Counter())[what] += 1


def _outcomes(change: MemberChanged) -> list[str]:
    """What to count. A member that was never heard of is suspect without anybody's suspicion."""
    old, new = change.old, change.new
    assert old is not None
    found = []
    suspected = old.status is MemberStatus.SUSPECT and old.generation > 0
    if new.status is MemberStatus.SUSPECT:
        found.append("suspicions_opened")
    elif suspected and new.status is MemberStatus.ALIVE:
        found.append("suspicions_refuted")
    elif suspected and new.status is MemberStatus.LEFT:
        found.append("suspicions_left")
    elif suspected and new.status is MemberStatus.DEAD:
        found.append(f"suspicions_dead_{new.death_kind}")
    if new.status is MemberStatus.DEAD:
        found.append(f"deaths_{new.death_kind}")
    if old.status is MemberStatus.DEAD and new.status is MemberStatus.ALIVE:
        found.append("deaths_taken_back")
    return found
