"""The host's clock, as the daemon reads it."""

from __future__ import annotations

import time

import pytest

from swarm.adapters.clock import SystemClock


def test_time_for_deadlines_runs_on_while_the_host_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    of_kind = {time.CLOCK_BOOTTIME: 7_200.0, time.CLOCK_MONOTONIC: 3_600.0}  # after an hour's sleep
    monkeypatch.setattr(time, "clock_gettime", of_kind.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: of_kind[time.CLOCK_MONOTONIC])
    assert SystemClock().now() == 7_200.0
