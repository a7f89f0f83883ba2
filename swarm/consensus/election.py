"""Elections: pre-votes, votes, and campaigns on a leader's word (Raft, section 5.2; thesis, sections 3.10 and 9.6).

Pure: no I/O, no clock, no randomness of its own. When the election timeout passes, a voter first asks whether it could win
(pre-vote, which changes nothing anywhere); only then does it enter a new term, vote for itself, and ask in earnest once that
is on disk. Questions are asked again every heartbeat until answered, since they may be lost or meet a promise that has a few
milliseconds to run.

Promises kept here: nobody is voted for, and nobody campaigns, against a running promise; one vote in a term, on disk before it
is told; no vote without entry 1, nor for a log that is behind (section 5.4.1); only the (id, store generation) counts.
"""

from __future__ import annotations

from collections.abc import Callable

from swarm.consensus.effects import Role
from swarm.consensus.messages import PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply
from swarm.consensus.quorum import has_quorum, voters_of
from swarm.consensus.state import State
from swarm.machine import NEVER
from swarm.model.entry import Voter
from swarm.model.ids import NodeId


class Election:
    """Gives votes, and asks for them. `won` is called when a majority has voted for this node."""

    def __init__(self, state: State, won: Callable[[], None]) -> None:
        self._state = state
        self._won = won
        self._granted: dict[NodeId, int] = {}
        """Who granted, under which store generation, in the campaign that is on."""
        self._asking = False
        """A pre-vote is on. The vote itself is on when the role is CANDIDATE."""
        self._ask_again_at = NEVER
        self._released: tuple[NodeId, int] = (NodeId(""), 0)
        """The leader and term whose TimeoutNow this campaign goes back to."""

    # ---- asking

    @property
    def next_deadline(self) -> float:
        """When `tick` has something to do; NEVER for a node that may not campaign."""
        if not self._may_campaign():
            return NEVER
        due = max(self._state.election_deadline, self._state.promise.until)
        return min(due, self._ask_again_at) if self._is_on() else due

    def _is_on(self) -> bool:
        return self._asking or self._state.role is Role.CANDIDATE

    def _may_campaign(self) -> bool:
        state = self._state
        return state.may_be_needed and state.knows_cluster and not state.is_disk_stalled and not state.abstains

    def tick(self) -> None:
        """Start a campaign that is due, or ask again."""
        state = self._state
        if not self._may_campaign():
            self.give_up()
            return
        if state.now >= state.election_deadline and not state.promise.holds(state.now):
            self.start_pre_vote()
        elif self._is_on() and state.now >= self._ask_again_at:
            self._ask()

    def give_up(self) -> None:
        """Ask no more: a leader was heard, or this node may not campaign."""
        self._asking = False
        self._granted = {}
        self._ask_again_at = NEVER

    def start_pre_vote(self) -> None:
        """Ask whether an election could be won, in no new term yet."""
        state = self._state
        if state.role is not Role.FOLLOWER:
            state.become(Role.FOLLOWER, NodeId(""))
        self._granted = {state.node_id: state.me.store_generation}
        self._asking = True
        self._released = (NodeId(""), 0)
        state.reset_election()
        if self._is_granted():
            self._campaign()
        else:
            self._ask()

    def on_timeout_now(self, source: NodeId, message: TimeoutNow) -> None:
        """The leader handed over: campaign at once, past the promise that was made to it."""
        state = self._state
        if message.term != state.term or source != state.leader_id or not self._may_campaign():
            return
        if state.promise.holds(state.now) and not state.promise.is_waived_by(source, message.term, state.now):
            return
        self._released = (source, message.term)
        self._campaign()

    def _campaign(self) -> None:
        """Enter the next term as a candidate. Asks, and counts its own vote, only when that is on disk."""
        state = self._state
        self.give_up()
        state.adopt_term(state.term + 1, state.node_id)
        state.become(Role.CANDIDATE, NodeId(""))
        state.reset_election()
        self._ask()

    def _ask(self) -> None:
        state = self._state
        self._ask_again_at = state.now + state.config.heartbeat_s
        for voter in voters_of(state.log.configuration):
            to = NodeId(voter.node_id)
            if to == state.node_id or self._granted.get(to) == voter.store_generation:
                continue
            _, recovery, generation = state.header()
            last = (state.log.last_index, state.log.last_term)
            if self._asking:
                state.send(to, PreVote(state.term + 1, recovery, generation, *last))
            else:
                state.release(to, Vote(state.term, recovery, generation, *last, *self._released))

    def on_persisted(self) -> None:
        """The vote for itself counts from now on, if that is what became durable."""
        state = self._state
        if state.role is Role.CANDIDATE and state.writes.is_durable(state.hard_state):
            self._grant(state.node_id, state.me.store_generation)

    def on_pre_vote_reply(self, source: NodeId, message: PreVoteReply) -> None:
        if not self._asking or not message.granted or message.term != self._state.term + 1:
            return
        self._granted[source] = message.generation
        if self._is_granted() and not self._state.promise.holds(self._state.now):
            self._campaign()

    def on_vote_reply(self, source: NodeId, message: VoteReply) -> None:
        if self._state.role is Role.CANDIDATE and message.granted and message.term == self._state.term:
            self._grant(source, message.generation)

    def _grant(self, node_id: NodeId, generation: int) -> None:
        self._granted[node_id] = generation
        state = self._state
        if self._is_granted() and self._granted.get(state.node_id) == state.me.store_generation:
            self.give_up()
            self._won()

    def _is_granted(self) -> bool:
        def agrees(voter: Voter) -> bool:
            return self._granted.get(NodeId(voter.node_id)) == voter.store_generation

        return has_quorum(self._state.log.configuration, agrees)

    # ---- being asked

    def on_pre_vote(self, source: NodeId, message: PreVote) -> None:
        """Would this node vote for the asker? Says no only to one whose term is behind, so that it catches up. A disk that takes
        nothing could not take the vote: a yes would send the asker into one new term after the other in vain."""
        state = self._state
        if not state.knows_cluster or state.promise.holds(state.now) or state.is_disk_stalled:
            return
        if message.term <= state.term:
            state.send(source, PreVoteReply(*state.header(), False))
        elif self._is_up_to_date(message):
            _, recovery, generation = state.header()
            state.send(source, PreVoteReply(message.term, recovery, generation, True))

    def ignore_vote(self, message: Vote) -> bool:
        """Every reason to drop a vote request unread, its later term included."""
        state = self._state
        if not state.knows_cluster:
            return True
        waived = state.promise.is_waived_by(message.released_by, message.released_term, state.now)
        return state.promise.holds(state.now) and not waived

    def on_vote(self, source: NodeId, message: Vote) -> None:
        """RequestVote; the caller has entered the message's term if that was later."""
        state = self._state
        free = state.voted_for in ("", source) and state.role is Role.FOLLOWER
        if message.term < state.term or not free or not self._is_up_to_date(message):
            state.send(source, VoteReply(*state.header(), False))
            return
        if state.voted_for != source:
            state.adopt_term(state.term, source)
        self.give_up()
        state.reset_election()
        state.release(source, VoteReply(*state.header(), True))

    def _is_up_to_date(self, message: PreVote | Vote) -> bool:
        log = self._state.log
        return (message.last_term, message.last_index) >= (log.last_term, log.last_index)
