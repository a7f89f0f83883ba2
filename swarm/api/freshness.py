"""Why an answer is not the newest state, in words for people."""

from __future__ import annotations

from swarm.api.face import NodeFace
from swarm.api.quorum import UNHEARD_S


def why_stale(face: NodeFace, *, asked: bool) -> str:
    """`asked`: the caller wanted what this node knows; then it is only said when that is known to lack something."""
    if face.removed():
        return "this node was removed from the cluster, and shows what it knew then"
    consensus = face.consensus()
    heard = consensus.leader_contact_age_s <= UNHEARD_S
    behind = consensus.told_commit > consensus.applied_index
    if not heard:
        return "" if asked else "no leader in reach"
    if not behind:
        return "" if asked else "no leader confirmed it in time"
    applied = f"this node is behind: it has applied entry {consensus.applied_index} of {consensus.told_commit}"
    if consensus.stopped_at:
        return f"{applied} (applying stopped)"
    if face.node_id in consensus.full:
        return f"{applied} (its disk is full)"
    return f"{applied} (its disk hangs)" if face.node_id in consensus.stalled else applied
