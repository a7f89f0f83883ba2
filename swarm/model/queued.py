"""A submit that a node keeps while there is no leader. It is not in the log: only the node that has it knows of it."""

from __future__ import annotations

import msgspec

from swarm.model.ids import ClusterId, RequestId, TaskId
from swarm.model.task import TaskSpec

REPEATED_WITHIN_S = 12 * 3600.0
"""A request id is to be repeated for no longer than this after its first use; docs/cli.md says so to people."""
KEPT_S = 11 * 3600.0
"""A queued submit that found no leader for so long is given up. With the time above it stays within the 24 h for which the log
remembers request ids, with an hour to spare for clocks that disagree."""


class QueuedSubmit(msgspec.Struct, frozen=True, array_like=True):
    """One task, and the request that asked for it. Credentials are sealed, as in the log."""

    cluster_id: ClusterId
    request_id: RequestId
    task_id: TaskId
    spec: TaskSpec
    queued_utc: float
    maybe_done: bool = False
    """An attempt has ended without an answer: the task may be in the log."""
    ended: str = ""
    """Why it will not be submitted (refused, or too old); empty while it waits. Kept until somebody has seen and removed it."""

    @property
    def expires_utc(self) -> float:
        return self.queued_utc + KEPT_S
