"""When a copy is reported, and under which number.

The log should show what this node sees, at the price of few entries. So the first changes go at once and later ones are
coalesced to one per assignment and second; a state that is expected to pass within a moment (preparing, starting) waits that
moment. A report is sent until the record shows it: sending twice is harmless, since the catalog drops numbers it has seen.

A daemon that restarted goes on from the record's number. A report of its former self may still be on the way under the number it
takes next; then the record shows another content under that number, and the report is sent again under a higher one.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math

from swarm.model.command import Report
from swarm.model.phase import ENDS, Phase
from swarm.runner.config import RunnerConfig
from swarm.runner.copies import Content, Copy

LOST_SENDS_MAX = 3
_TRANSIENT = frozenset({Phase.ASSIGNED, Phase.PREPARING, Phase.STARTING})


def due_at(copy: Copy, config: RunnerConfig) -> float:
    """When the next report of `copy` should go; `math.inf` when the record shows everything."""
    record = copy.record
    if record is None or copy.gone or copy.phase is Phase.ASSIGNED:
        return math.inf
    if record.phase in ENDS and (record.phase is not Phase.LOST or copy.report.resends >= LOST_SENDS_MAX):
        return math.inf
    content = copy.content()
    if copy.report.content == content:
        if _shown(copy, content):
            return math.inf
        wait_s = min(config.resend_s * 2.0 ** min(copy.report.resends, 10), config.resend_max_s)
        return copy.report.sent_at + wait_s
    if _record_content(copy) == content:
        return math.inf
    patient = copy.phase in _TRANSIENT and not copy.reason
    earliest = copy.changed_at + (config.transient_delay_s if patient else 0.0)
    return max(earliest, _budget_at(copy, config))


def make_report(copy: Copy, config: RunnerConfig, now: float) -> Report:
    """The report to send now; remembers that it was sent."""
    assert copy.record is not None
    state, content = copy.report, copy.content()
    again = state.content == content
    if not again or copy.record.report_sequence >= state.sequence:
        state.sequence = max(state.sequence, copy.record.report_sequence) + 1
    _take_token(copy, config, now)
    state.content, state.sent_at = content, now
    state.resends = state.resends + 1 if again else 0
    return Report(
        assignment_id=copy.assignment_id,
        sequence=state.sequence,
        phase=content.phase,
        container_id=content.container_id,
        exit_code=content.exit_code,
        reason=content.reason,
        restarts=content.restarts,
        started_utc=content.started_utc,
    )


def hurry(copy: Copy) -> None:
    """The leader is back: what it has not seen goes now, not when the back-off ends."""
    copy.report.sent_at = -math.inf
    copy.report.resends = 0


def _record_content(copy: Copy) -> Content:
    record = copy.record
    assert record is not None
    return Content(
        record.phase, record.container_id, record.exit_code, record.reason, record.restarts, record.started_utc
    )


def _shown(copy: Copy, content: Content) -> bool:
    """The record took what was sent. Its reason may be the leader's, so it is not compared."""
    record = copy.record
    assert record is not None
    if record.report_sequence < copy.report.sequence:
        return False
    if record.phase is Phase.LOST:
        return True
    return (record.phase, record.container_id, record.exit_code, record.restarts) == (
        content.phase,
        content.container_id,
        content.exit_code,
        content.restarts,
    )


def _budget_at(copy: Copy, config: RunnerConfig) -> float:
    """When the copy's budget allows another change."""
    state = copy.report
    if state.content is None:
        return -math.inf
    return state.tokens_at + max(0.0, 1.0 - state.tokens) * config.report_interval_s


def _take_token(copy: Copy, config: RunnerConfig, now: float) -> None:
    state, most = copy.report, float(config.report_burst)
    if state.content is None:
        tokens = most
    else:
        tokens = min(most, state.tokens + (now - state.tokens_at) / config.report_interval_s)
    state.tokens, state.tokens_at = max(0.0, tokens - 1.0), now
