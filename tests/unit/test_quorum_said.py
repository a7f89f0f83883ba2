"""What a node says of quorum, of the leader and of what can be done, as far as it can know: a follower, a survivor, a leader."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swarm.api.quorum import leader_in_reach, quorum_of, with_what_is_missing
from swarm.errors import DiskFull, Unavailable
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from tests.fakes.node_face import MemoryFace

N1, N2, N3 = (NodeId(f"id-n{number}") for number in (1, 2, 3))


@pytest.fixture
def face() -> Iterator[MemoryFace]:
    """Node n1, a follower of n3; all three vote."""
    made = MemoryFace()
    made.status = {"role": "follower", "leader_id": N3, "voters": (N1, N2, N3), "leader_contact_age_s": 0.1}
    yield made


def lose_the_leader(face: MemoryFace, *dead: NodeId) -> None:
    face.status |= {"leader_contact_age_s": 8.0, "unheard": (N1,)}
    face.statuses |= dict.fromkeys(dead, MemberStatus.DEAD)


def test_a_voter_that_only_the_leader_does_not_hear_counts_as_missing(face: MemoryFace) -> None:
    lose_the_leader(face)
    found = quorum_of(face)
    assert (found.cut_off, found.may.may_not_fail) == (("n1",), ("n2", "n3"))
    assert leader_in_reach(face) == N3, "gossip reaches it: the others may follow it"


def test_without_a_leader_the_node_asked_counts_itself_and_is_cut_off_from_nobody(face: MemoryFace) -> None:
    lose_the_leader(face, N2, N3)
    found = quorum_of(face)
    assert (found.cut_off, found.may.text) == ((), "1 of 3 voters answer, 2 are needed (missing: n2, n3)")
    assert leader_in_reach(face) is None


def test_where_the_others_are_no_majority_without_it_a_node_is_not_cut_off_from_a_leader(face: MemoryFace) -> None:
    lose_the_leader(face, N3)
    assert quorum_of(face).cut_off == ()


def test_a_leader_counts_a_voter_whose_disk_is_full_or_hangs_as_one_that_acknowledges_nothing(face: MemoryFace) -> None:
    for matter in ("full", "stalled"):
        face.status = {"role": "leader", "leader_id": N1, "voters": (N1, N2, N3), matter: (N2,)}
        assert (quorum_of(face).may.may_fail, quorum_of(face).may.may_not_fail) == (("n2",), ("n1", "n3"))


def test_a_node_that_does_not_lead_knows_of_full_disks_by_gossip(face: MemoryFace) -> None:
    face.full_by_gossip = {N2}
    assert quorum_of(face).may.text.startswith("one more may fail: n2 (its disk is full, it acknowledges nothing); not n1 or n3")


def test_a_submit_that_no_majority_can_store_is_refused_with_the_cause_and_every_way_out(face: MemoryFace) -> None:
    lose_the_leader(face, N3)
    face.full_by_gossip = {N2}
    refused = with_what_is_missing(face, Unavailable("cannot carry the request on: no leader is known here either"))
    assert isinstance(refused, DiskFull)
    assert "2 are needed: n3 does not answer and the disk of n2 is full" in refused.cause
    assert refused.hint.startswith("free space on n2, or bring n3 back")


def test_a_refusal_that_has_nothing_to_do_with_the_quorum_stays_as_it_is(face: MemoryFace) -> None:
    error = Unavailable("leadership is being handed over")
    assert with_what_is_missing(face, error) is error
