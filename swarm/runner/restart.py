"""What an exit means: the end of the assignment, or another start after a while.

The engine's own restart policy is always `no`: restarts are ours, so that they are counted, reported and stopped by the same
hand that started. The wait doubles from `delay_s` to `delay_max_s`, with up to a quarter of jitter so that ten containers that
die together do not start together; running for `reset_after_s` forgets earlier failures.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from swarm.model.container import ContainerSeen
from swarm.model.phase import Phase
from swarm.model.task import Restart, RestartKind, TaskSpec

_MIB = 1024 * 1024
_SIGNALLED = 128
_SIGNALS_MAX = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """`phase` is RESTARTING (start again after `delay_s`) or an end."""

    phase: Phase
    reason: str
    delay_s: float = 0.0


def backoff_s(restart: Restart, streak: int, rng: random.Random) -> float:
    """The wait before the start that follows failure number `streak` (0 for the first) in a row. Seconds."""
    plain = min(restart.delay_s * 2.0 ** min(streak, 30), restart.delay_max_s)
    return plain * rng.uniform(1.0, 1.25)


def judge_exit(*, spec: TaskSpec, exit_code: int, reason: str, failed: bool, streak: int, rng: random.Random) -> Verdict:
    """What follows an exit by policy. `streak` counts the failures in a row before this one; a clean exit ends a job well."""
    restart = spec.restart
    match restart.kind:
        case RestartKind.NO:
            again = False
        case RestartKind.ON_FAILURE:
            again = failed
        case RestartKind.ALWAYS:
            again = True
    if not again:
        return Verdict(Phase.FAILED if failed else Phase.SUCCEEDED, reason if failed else "")
    if restart.attempts_max and streak >= restart.attempts_max:
        return Verdict(Phase.FAILED, f"gave up after {streak} restarts in a row: {reason}")
    return Verdict(Phase.RESTARTING, reason, backoff_s(restart, streak, rng))


def exit_reason(seen: ContainerSeen, spec: TaskSpec) -> str:
    """Why a container ended, in words."""
    code = seen.exit_code or 0
    if seen.oom_killed:
        limit = spec.resources.memory_bytes
        return f"out of memory (limit {_mebibytes(limit)})" if limit else "out of memory (the host had none left)"
    if seen.error:
        return seen.error
    if _SIGNALLED < code <= _SIGNALLED + _SIGNALS_MAX:
        return f"exited with code {code} (killed by signal {code - _SIGNALLED})"
    return f"exited with code {code}"


def _mebibytes(amount: int) -> str:
    return f"{amount / _MIB:g} MiB"
