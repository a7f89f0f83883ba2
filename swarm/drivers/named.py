"""Whom applied entries want to act: the nodes whose assignments began, or are to end.

A leader has these know at once from itself, even while they take entries from a peer.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.model.entry import Entry
from swarm.model.ids import NodeId
from swarm.model.outcome import Applied

_KINDS = frozenset(("task.assign", "task.stop", "task.remove", "assignment.stop"))


def named_nodes(entries: Sequence[Entry], applied: Sequence[Applied]) -> tuple[NodeId, ...]:
    """By id, each once. `applied` are the results of `entries`, in order."""
    pairs = zip(entries, applied, strict=True)
    named = {node for entry, result in pairs if entry.kind in _KINDS for node in result.touched_nodes}
    return tuple(NodeId(node) for node in sorted(named))
