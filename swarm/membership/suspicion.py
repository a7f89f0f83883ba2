"""How long a suspicion lasts before it may become death (Lifeguard, section IV.B), with one change.

Lifeguard starts long and shrinks as others independently suspect the same member. But when a target stalls, all its peers miss
its answers together: their agreement on silence says nothing new. So only evidence of another kind confirms here: a kernel that
refuses, or a kernel that does not answer connects. Those who merely miss answers too do not shorten anything.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math

from swarm.model.node import VerdictKind

CONFIRMING = frozenset((VerdictKind.HOST_SILENT, VerdictKind.DAEMON_GONE))
"""Findings about the kernel. `DAEMON_STALLED` is agreement on silence."""


def suspicion_s(*, confirmations: int, needed: int, minimum_s: float, maximum_s: float) -> float:
    """max(min, max - (max - min) * ln(C + 1) / ln(K + 1)); the minimum when nobody could confirm (K = 0)."""
    if needed <= 0:
        return minimum_s
    share = math.log(confirmations + 1) / math.log(needed + 1)
    return max(minimum_s, maximum_s - (maximum_s - minimum_s) * share)
