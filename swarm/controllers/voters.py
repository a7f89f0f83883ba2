"""The voter set keeps itself: how many vote, who takes a dead voter's place, and when a lost one is given up.

One voter for one or two nodes, three for three to six, five from seven on; never an even number. A voter is replaced when gossip
says DEAD *and* its stream has been silent for 15 s. A learner is fit to vote when it has been in contact for 10 s and is within
250 entries of the log's end. With no fit learner left a dead voter stays a voter (its return heals the cluster) until it is
removed, or given up after 600 s; then three become one, the leader, in one change. At most one change per 10 s, and never to a
set without a majority in contact. A learner with a full disk could vote and not acknowledge: it takes a lost voter's place where
no other is fit, and makes no set larger. Who votes when there is a choice is `spread`'s to say; a whole set that is badly spread
is mended by one exchange a minute, and only when that makes it strictly better. A voter that is about to leave for good
(`leaving`) is replaced like a dead one, at once, and its node counts no more.

The rules are DESIGN's, after dqlite's roles and etcd's strict reconfiguration check.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.controllers.spread import choose, exchange
from swarm.model.entry import Voter
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.model.node import Availability
from swarm.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class VotersConfig:
    """Bounds of the voter rules, seconds and entries. Shorter ones repair sooner and churn more when the network flaps."""

    change_interval_s: float = 10.0
    spread_interval_s: float = 60.0
    """Between two changes that only better the spread, and after any other: nothing is wrong meanwhile."""
    fit_contact_s: float = 10.0
    fit_lag_entries: int = 250
    silent_s: float = 15.0
    give_up_s: float = 600.0
    contact_s: float = 3.0
    """A follower that answered within this time is in contact: three heartbeats to a learner."""
    heir_contact_s: float = 0.5
    """Who is to have the only vote has answered within five heartbeats: below three voters learners get every one."""
    disk_stall_s: float = 3.0
    """A learner whose disk completed nothing for this long is not fit: it could neither vote nor acknowledge."""


def voters_wanted(nodes: int) -> int:
    """How many of `nodes` should vote."""
    if nodes < 3:
        return 1
    return 3 if nodes < 7 else 5


class VoterController:
    """One leadership's memory: since when each follower is in contact or silent, and when the set changed last."""

    def __init__(self, config: VotersConfig | None = None) -> None:
        self._config = config or VotersConfig()
        self._in_contact_since: dict[NodeId, float] = {}
        self._silent_since: dict[NodeId, float] = {}
        self._changed_at = float("-inf")

    def reconcile(self, view: ClusterView) -> tuple[Voter, ...] | None:
        """The voter set to change to, sorted by id, or None when the present one should stay."""
        self._remember(view)
        configuration = view.configuration
        if configuration.outgoing or not view.configuration_committed or not configuration.voters:
            return None
        if view.now - max(self._changed_at, view.leader_since) < self._config.change_interval_s:
            return None
        wanted = self._wanted(view)
        if wanted == configuration.voters or not self._majority_in_contact(view, wanted):
            return None
        self._changed_at = view.now
        return wanted

    def _remember(self, view: ClusterView) -> None:
        for node_id in sorted(view.nodes):
            follower = view.followers.get(node_id)
            contact = follower.last_contact if follower is not None else 0.0
            if view.now - contact <= self._config.contact_s:
                self._in_contact_since.setdefault(node_id, view.now)
                self._silent_since.pop(node_id, None)
            else:
                self._in_contact_since.pop(node_id, None)
                self._silent_since.setdefault(node_id, max(contact, view.leader_since))
        for memory in (self._in_contact_since, self._silent_since):
            for node_id in [node_id for node_id in memory if node_id not in view.nodes]:
                del memory[node_id]

    def _wanted(self, view: ClusterView) -> tuple[Voter, ...]:
        """Leader first, then living voters, fit learners, and dead voters that are not given up; as many as should vote."""
        present = view.configuration.voters
        leader = [voter for voter in present if voter.node_id == view.self_id and not _is_leaving(view, voter)]
        living = [voter for voter in present if voter.node_id != view.self_id and self._may_stay(view, voter)]
        fit = [voter for voter in self._fit(view) if voter not in living and voter not in leader]
        roomy = [voter for voter in fit if not view.followers[NodeId(voter.node_id)].disk_full]
        lost = max(0, len(present) - len(leader) - len(living) - len(roomy))
        full = choose(view, [], [voter for voter in fit if voter not in roomy], lost)
        held = [voter for voter in present if voter not in fit and self._is_held(view, voter)]
        size = min(voters_wanted(self._counted(view)), len(leader) + len(living) + len(roomy) + len(full) + len(held))
        if size < 1:
            return present
        size -= 1 - size % 2
        chosen = leader
        for candidates in (living, roomy, full, held):
            chosen = choose(view, chosen, candidates, size)
        if set(chosen) == set(present) and len(leader) + len(living) == size:
            chosen = self._better_spread(view, chosen, roomy)
        return tuple(sorted(chosen, key=lambda voter: voter.node_id))

    def _may_stay(self, view: ClusterView, voter: Voter) -> bool:
        return not self._is_dead(view, voter) and not _is_leaving(view, voter)

    def _better_spread(self, view: ClusterView, voters: list[Voter], fit: list[Voter]) -> list[Voter]:
        """The same set, or with one voter exchanged when the last change is long enough ago."""
        if view.now - max(self._changed_at, view.leader_since) < self._config.spread_interval_s:
            return voters
        return exchange(view, voters, fit, fixed=view.self_id) or voters

    def _counted(self, view: ClusterView) -> int:
        """Nodes that the size of the set is reckoned by: members, but for those given up and those about to leave."""
        return sum(
            1
            for node_id, node in view.nodes.items()
            if node.availability is not Availability.LEFT and node_id not in view.leaving and not self._is_given_up(view, node_id)
        )

    def _is_stranger(self, view: ClusterView, voter: Voter) -> bool:
        """Removed or left, or back under another store generation: it will never vote as this voter again."""
        node = view.nodes.get(NodeId(voter.node_id))
        return node is None or node.availability is Availability.LEFT or node.store_generation != voter.store_generation

    def _is_dead(self, view: ClusterView, voter: Voter) -> bool:
        if self._is_stranger(view, voter):
            return True
        node_id = NodeId(voter.node_id)
        return _gossip_says_dead(view, node_id) and self._silent_s(view, node_id) >= self._config.silent_s

    def _is_held(self, view: ClusterView, voter: Voter) -> bool:
        return (
            self._is_dead(view, voter)
            and not self._is_stranger(view, voter)
            and not _is_leaving(view, voter)
            and not self._is_given_up(view, NodeId(voter.node_id))
        )

    def _is_given_up(self, view: ClusterView, node_id: NodeId) -> bool:
        return _gossip_says_dead(view, node_id) and self._silent_s(view, node_id) >= self._config.give_up_s

    def _silent_s(self, view: ClusterView, node_id: NodeId) -> float:
        return view.now - self._silent_since.get(node_id, view.now)

    def _fit(self, view: ClusterView) -> list[Voter]:
        """Learners that could vote at once, by id."""
        fit = []
        for node_id in sorted(view.nodes):
            node, member, follower = view.nodes[node_id], view.members.get(node_id), view.followers.get(node_id)
            since = self._in_contact_since.get(node_id)
            if member is None or follower is None or since is None or node.availability is not Availability.ACTIVE:
                continue
            if node_id in view.leaving or follower.disk_age_s > self._config.disk_stall_s:
                continue
            if member.status is not MemberStatus.ALIVE or view.now - since < self._config.fit_contact_s:
                continue
            if view.last_index - follower.match_index <= self._config.fit_lag_entries:
                fit.append(Voter(node_id, node.store_generation))
        return fit

    def _majority_in_contact(self, view: ClusterView, voters: tuple[Voter, ...]) -> bool:
        """After the change a majority must be there to commit with. Where all hangs on one other node it answered just now: were
        its disk lost with the only vote on it, nobody could go on."""
        if len(voters) == 1 and voters[0].node_id != view.self_id:
            only = view.followers.get(NodeId(voters[0].node_id))
            return only is not None and view.now - only.last_contact <= self._config.heir_contact_s
        there = sum(1 for v in voters if v.node_id == view.self_id or NodeId(v.node_id) in self._in_contact_since)
        return there * 2 > len(voters)


def _is_leaving(view: ClusterView, voter: Voter) -> bool:
    return voter.node_id in view.leaving


def _gossip_says_dead(view: ClusterView, node_id: NodeId) -> bool:
    member = view.members.get(node_id)
    return member is not None and member.status is MemberStatus.DEAD
