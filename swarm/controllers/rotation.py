"""A rotation of the secret goes on by itself: send with the new one once everybody who is there accepts it, then retire others.

Everything it decides by is in the log (records, `sending`, the members' answers), so a new leader goes on where the last one
stopped. Who is waited for: every member, except

- one whose host is silent or confirmed dead, and one that has not spoken to this leader for `silent_s` (a daemon that is
  restarted is waited for): it comes back by its pinned key;
- one that is there but has not answered for `patience_s` (a disk that takes nothing): it too comes back by its pinned key.

Whoever is waited for or not: nothing advances before this leader and a majority of the voters have answered, so no step ever cuts
the cluster from its own log.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.model.command import AdvanceSecret
from swarm.model.ids import NodeId
from swarm.model.node import VerdictKind
from swarm.model.view import ClusterView

_HOST_DEAD = frozenset({VerdictKind.HOST_SILENT, VerdictKind.CONFIRMED})


@dataclass(frozen=True, slots=True)
class RotationConfig:
    """Seconds. Shorter waits end a rotation sooner and send more nodes through the rejoin handshake."""

    silent_s: float = 5.0
    """A learner hears the leader each second; a loaded host is late by up to 1.6 s, a daemon's restart takes about 2 s."""
    patience_s: float = 60.0


class RotationController:
    """One leadership's memory: since when it waits for the answers of the present phase."""

    def __init__(self, config: RotationConfig | None = None) -> None:
        self._config = config or RotationConfig()
        self._waits: tuple[int, int] = (-1, -1)
        self._since = 0.0

    def reconcile(self, view: ClusterView) -> AdvanceSecret | None:
        """The step to take now, or None."""
        secrets = view.secrets
        if not secrets.rotating:
            return None
        if self._waits != (secrets.newest, secrets.sending):
            self._waits, self._since = (secrets.newest, secrets.sending), view.now
        unanswered = secrets.unanswered(view.nodes)
        if not _core_answered(view, unanswered) or any(self._is_waited_for(view, node_id) for node_id in unanswered):
            return None
        return AdvanceSecret(secrets.newest, retire=secrets.sending == secrets.newest)

    def _is_waited_for(self, view: ClusterView, node_id: NodeId) -> bool:
        if view.nodes[node_id].verdict.kind in _HOST_DEAD or view.now - self._since >= self._config.patience_s:
            return False
        follower = view.followers.get(node_id)
        contact = max(follower.last_contact if follower is not None else 0.0, view.leader_since)
        return view.now - contact < self._config.silent_s


def _core_answered(view: ClusterView, unanswered: tuple[NodeId, ...]) -> bool:
    """This leader and a majority of every voter set in force."""
    if view.self_id in unanswered:
        return False
    for voters in (view.configuration.voters, view.configuration.outgoing):
        answered = [voter for voter in voters if voter.node_id in view.nodes and voter.node_id not in unanswered]
        if voters and len(answered) * 2 <= len(voters):
            return False
    return True
