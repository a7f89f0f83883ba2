"""How a simulated daemon stops when asked to, and how it gives its vote away, as `drivers.departure` and `drivers.leaving` do.

A pause is announced in gossip and the lead is handed over before the process ends; what the disk has not written by then is
lost or not, as at a crash. Who gives its vote away tells the leader so until the voters in force are others, then ends as for a
pause, and comes back all the same: nothing is held against a node that changed its mind.

Promise: nothing here decides anything the drivers do not.
"""

from __future__ import annotations

from swarm.consensus.effects import Role
from swarm.consensus.quorum import voters_of
from swarm.controllers import heir_of
from swarm.errors import OperatorError
from swarm.model.ids import NodeId
from swarm.simulation.gossip import Gossip
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Replica
from swarm.simulation.streams import Reply

CALL = "voters.leaving"
RETURN_BY_S = 60.0
HAND_OVER_S = 2.0
LOOK_S = 0.01
GIVE_AWAY_S = 45.0
SAY_EVERY_S = 0.5
REMEMBERED_S = 5.0
CALL_S = 2.0


class Departures:
    """Of one daemon: its own way out, and who told it, as the leader, that it is on its own."""

    def __init__(self, daemon: Daemon, replica: Replica, gossip: Gossip) -> None:
        self._daemon = daemon
        self._replica = replica
        self._gossip = gossip
        self._said_at: dict[NodeId, float] = {}
        self._is_going = False
        daemon.handlers[CALL] = self._on_call

    def leaving(self) -> frozenset[NodeId]:
        """Nodes that are about to leave."""
        now = self._daemon.now()
        return frozenset(node_id for node_id, at in self._said_at.items() if now - at <= REMEMBERED_S)

    def _on_call(self, source: NodeId, question: None, reply: Reply) -> None:
        self._said_at[source] = self._daemon.now()
        reply(True)

    # ---- this daemon's own way out

    def pause(self) -> None:
        """Announce the return, hand the lead over, end."""
        if not self._is_going:
            self._is_going = True
            self._daemon.feed(self._gossip, self._pause)

    def give_vote_away(self) -> None:
        """Vote no more, if anybody can take the vote; then end."""
        if not self._is_going:
            self._is_going = True
            self._daemon.feed(None, self._say, self._daemon.now() + GIVE_AWAY_S)

    def hurry(self) -> None:
        """Who is on its way ends now, wherever it stands: what it announced is not taken back."""
        self._end()

    def _say(self, until: float) -> None:
        core, me = self._replica.core, self._daemon.node_id
        is_needed = any(voter.node_id == me for voter in voters_of(core.configuration))
        if not is_needed or self._daemon.now() >= until:
            self._gossip.dirty = True
            self._pause()
            return
        if core.leader_id == me:
            self._said_at[me] = self._daemon.now()
        elif core.leader_id:
            self._daemon.scene.streams.call(self._daemon, core.leader_id, CALL, None, timeout_s=CALL_S, done=lambda answer: None)
        self._daemon.later(SAY_EVERY_S, None, self._say, until)

    def _pause(self) -> None:
        now = self._daemon.now()
        self._gossip.core.pause(now + RETURN_BY_S, now)
        if self._hands_over(now):
            self._wait(now + HAND_OVER_S)
        else:
            self._linger()

    def _hands_over(self, now: float) -> bool:
        core = self._replica.core
        if core.role is not Role.LEADER:
            return False
        heir = heir_of(core.configuration, core.followers(), self._replica.catalog.nodes, now)
        if heir is None:
            return False
        self._replica.dirty = True
        try:
            core.transfer_leadership(heir, now)
        except OperatorError:
            return False
        self._daemon.world.trace(self._daemon.host.name, f"stops: hands over to {self._daemon.scene.name_of(heir)}")
        return True

    def _wait(self, until: float) -> None:
        core = self._replica.core
        if self._daemon.now() < until and (core.role is Role.LEADER or not core.leader_id):
            self._daemon.later(LOOK_S, None, self._wait, until)
        else:
            self._linger()

    def _linger(self) -> None:
        """Two rounds of rumours, then the end."""
        self._daemon.later(2 * self._gossip.core.config.gossip_interval_s, None, self._end)

    def _end(self) -> None:
        if not self._is_going:
            return
        self._daemon.world.trace(self._daemon.host.name, "STOPPED as asked")
        self._daemon.host.crash_daemon()


