"""What follows from what was seen: results of operations, events, starts and exits, turned into the state of a copy.

An operation can fail because of the engine (down, hung, full: wait and try again, the assignment keeps its phase), or because of
what was asked (no such image, a taken port, a missing folder): that counts as a failed start, and the restart policy decides.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swarm.model.container import ContainerSeen, ContainerStatus, EngineEvent, EngineTrouble
from swarm.model.phase import Phase
from swarm.ports import EngineError
from swarm.runner import labels
from swarm.runner.copies import Copy
from swarm.runner.effects import Inspect, Operation, Remove, Run, Start, Stop
from swarm.runner.restart import exit_reason, judge_exit

if TYPE_CHECKING:
    from swarm.runner.core import Runner

_OF_THE_CONTAINER = frozenset({EngineTrouble.CONFLICT, EngineTrouble.OTHER})
"""Nothing that was asked for is wrong: an engine that crashed in the middle of a start can start that container never again."""
_PATIENT = frozenset({EngineTrouble.UNREACHABLE, EngineTrouble.NO_SPACE})
_JITTER = 1.25


def run_of(runner: Runner, copy: Copy) -> Run:
    """The operation that makes and starts this copy's container."""
    assert copy.record is not None and copy.spec is not None
    return Run(
        labels.plan_of(
            cluster_id=runner.cluster_id,
            node_id=runner.node_id,
            node_name=runner.node_name,
            node_address=runner.node_address,
            assignment=copy.record,
            spec=copy.spec,
            cgroup_parent=runner.config.cgroup_parent,
        )
    )


def note_begin(copy: Copy, operation: Operation, now: float) -> None:
    """An operation begins: the phase says so where people wait for it."""
    match operation:
        case Run():
            copy.move(Phase.PREPARING, now, reason=copy.reason)
        case Stop() if not (copy.ended or copy.gone):
            copy.move(Phase.STOPPING, now, reason=_stop_reason(copy))
        case Inspect():
            copy.recheck = False
        case _:
            pass


def note_result(runner: Runner, copy: Copy, operation: Operation, result: ContainerSeen | EngineError | None) -> None:
    """An operation of `copy` ended."""
    if isinstance(result, EngineError):
        _note_trouble(runner, copy, operation, result)
        return
    copy.troubles, copy.hold_until, copy.wedged = 0, 0.0, 0
    if isinstance(operation, Remove):
        copy.container = None
    else:
        copy.container = result


def note_event(runner: Runner, copy: Copy | None, assignment_id: str, event: EngineEvent) -> None:
    """A create or start event. A start is believed unless something newer is known or another operation is under way."""
    running = event.action == "start"
    seen = ContainerSeen(
        container_id=event.container_id,
        name="",
        labels=event.labels,
        status=ContainerStatus.RUNNING if running else ContainerStatus.CREATED,
        started_utc=event.time_utc if running else 0.0,
    )
    if copy is None:
        runner.note_stray(assignment_id, seen)
        return
    known = copy.container
    if known is None:
        copy.container = seen
    elif copy.operation is not None and not isinstance(copy.operation, (Run, Start)):
        copy.recheck = True
    elif running and event.time_utc > max(known.started_utc, known.finished_utc):
        copy.container = msgspec.structs.replace(
            known, status=seen.status, started_utc=seen.started_utc, exit_code=None, oom_killed=False, error=""
        )
    copy.touched_at = runner.now
    if not running and copy.phase is Phase.PREPARING:
        copy.move(Phase.STARTING, runner.now, reason=copy.reason)


def mark_running(copy: Copy, now: float) -> None:
    """Its container runs."""
    assert copy.container is not None
    copy.move(Phase.RUNNING, now)
    copy.exit_code = None
    copy.started_utc = copy.container.started_utc
    copy.ran, copy.waiting = True, False
    copy.running_since = now


def mark_stopped(copy: Copy, now: float) -> None:
    """Nothing of it runs, as wanted. What ended before it could be stopped is stopped all the same."""
    copy.exit_code = copy.container.exit_code if copy.container is not None and copy.ran else copy.exit_code
    copy.waiting = False
    reason = _stop_reason(copy) if copy.phase is not Phase.STOPPING else copy.reason
    copy.move(Phase.STOPPED, now, reason=reason or ("" if copy.ran else "stopped before it started"))


def _stop_reason(copy: Copy) -> str:
    """Why the leader wants it stopped; the record may still show what was reported before."""
    told = copy.record.reason if copy.record is not None else ""
    reported = copy.report.content.reason if copy.report.content is not None else ""
    return "" if told in (reported, copy.reason) else told


def judge(runner: Runner, copy: Copy) -> None:
    """Its container ended, or is gone: restart after a while, or an end."""
    seen, now = copy.container, runner.now
    assert copy.spec is not None
    if seen is None:
        copy.exit_code = None
        _fail(runner, copy, "its container is gone: somebody removed it")
        return
    copy.ran = True
    copy.started_utc = seen.started_utc or copy.started_utc
    copy.exit_code = seen.exit_code
    lasted_s = seen.finished_utc - seen.started_utc if seen.finished_utc > seen.started_utc > 0 else now - copy.running_since
    if lasted_s >= copy.spec.restart.reset_after_s:
        copy.streak = 0
    failed = bool(seen.exit_code) or seen.oom_killed or bool(seen.error)
    reason = exit_reason(seen, copy.spec)
    if failed and runner.restarted_host:
        reason = f"the host was restarted ({reason})"
    _follow(runner, copy, reason, failed=failed)


def _fail(runner: Runner, copy: Copy, reason: str) -> None:
    _follow(runner, copy, reason, failed=True)


def _follow(runner: Runner, copy: Copy, reason: str, *, failed: bool) -> None:
    assert copy.spec is not None
    verdict = judge_exit(
        spec=copy.spec, exit_code=copy.exit_code or 0, reason=reason, failed=failed, streak=copy.streak, rng=runner.rng
    )
    copy.waiting = verdict.phase is Phase.RESTARTING
    if copy.waiting:
        copy.restarts += 1
        copy.streak += 1
        copy.try_at = runner.now + verdict.delay_s
    copy.move(verdict.phase, runner.now, reason=verdict.reason)


def _note_trouble(runner: Runner, copy: Copy, operation: Operation, error: EngineError) -> None:
    starting = isinstance(operation, (Run, Start))
    if starting and copy.alive:
        copy.recheck = True  # the reply was lost, not the work
        return
    if error.trouble is EngineTrouble.NOT_FOUND and not isinstance(operation, Run):
        copy.container = None
        return
    if starting and error.trouble not in _PATIENT and copy.wanted:
        copy.wedged += error.trouble in _OF_THE_CONTAINER
        _fail(runner, copy, error.message)
        return
    if error.trouble is not EngineTrouble.UNREACHABLE:
        runner.notice("operation", copy.assignment_id, f"{type(operation).__name__.lower()}: {error.message}")
        if copy.wanted:
            copy.move(copy.phase, runner.now, reason=error.message)
    config = runner.config
    plain = min(config.trouble_delay_s * 2.0 ** min(copy.troubles, 10), config.trouble_delay_max_s)
    copy.troubles += 1
    copy.hold_until = runner.now + plain * runner.rng.uniform(1.0, _JITTER)
