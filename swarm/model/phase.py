"""What a container was seen to be: the phases of an assignment and the moves between them that are legal.

Forward only, but for running and restarting, which alternate. The four ends are final.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Reported by the runner of the assignment's node; `LOST` is set only by the entry that replaces an unreachable one."""

    ASSIGNED = "assigned"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


ENDS = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED, Phase.LOST})

_A, _P, _S, _R, _B, _T = (
    Phase.ASSIGNED,
    Phase.PREPARING,
    Phase.STARTING,
    Phase.RUNNING,
    Phase.RESTARTING,
    Phase.STOPPING,
)
_ENDS = (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED, Phase.LOST)

LEGAL_MOVES: dict[Phase, tuple[Phase, ...]] = {
    _A: (_P, _S, _R, _B, _T, *_ENDS),
    _P: (_S, _R, _B, _T, *_ENDS),
    _S: (_R, _B, _T, *_ENDS),
    _R: (_B, _T, *_ENDS),
    _B: (_S, _R, _T, *_ENDS),
    _T: _ENDS,
    Phase.SUCCEEDED: (),
    Phase.FAILED: (),
    Phase.STOPPED: (),
    Phase.LOST: (),
}
"""Reports are coalesced, so a report may skip phases; it never goes back."""


def may_move(old: Phase, new: Phase) -> bool:
    """Whether an assignment in `old` may be reported as `new`. The same phase again is not a move."""
    return new in LEGAL_MOVES[old]


class Desired(StrEnum):
    """What the leader wants of a task or assignment; written through the log only."""

    RUNNING = "running"
    STOPPED = "stopped"
