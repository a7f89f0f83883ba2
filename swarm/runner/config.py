"""The runner's numbers, each with its unit, its reason and what gets worse in either direction. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Defaults are for daemons; the simulation uses the same."""

    stale_after_s: float = 5.0
    """When what is applied was last all that leaders had named so long ago, the fence goes down. Lower: needless barriers on a
    loaded host. Higher: a node that was cut off, or takes no entries, may start what was placed elsewhere meanwhile; it must stay
    below the time to replace a silent host's work plus the age of what a node in a minority can still apply."""
    barrier_retry_s: float = 0.5
    """How often an unanswered barrier is asked again."""
    reboot_wait_s: float = 30.0
    """After a reboot with no leader in reach, how long before the assignments last held are started."""
    stray_grace_s: float = 60.0
    """How long a container of ours without an assignment is left alone. Lower: less time for people to see the notice."""
    report_interval_s: float = 1.0
    """One report per assignment and this time, once the burst is used up."""
    report_burst: int = 3
    """So many changes of one assignment go out at once: preparing to running must not wait for the next second."""
    transient_delay_s: float = 0.25
    """Preparing and starting are reported only when they last this long: a container with its image at hand runs before, and
    its log entry is spared."""
    resend_s: float = 2.0
    """A report that the log does not show is sent again after this, then after twice as long, up to `resend_max_s`."""
    resend_max_s: float = 30.0
    trouble_delay_s: float = 0.5
    """An operation that the engine could not do is tried again after this, then after twice as long, up to the next."""
    trouble_delay_max_s: float = 10.0
    abandon_after_s: float = 3.0
    """A task to be stopped whose container is still being made (a long pull) is given up after this."""
    stray_stop_grace_s: float = 10.0
    """The stop grace of a container whose specification is not known any more."""
    cgroup_parent: str = ""
    """Where containers run: one parent of lower CPU weight than the daemon's. Empty: the engine's default."""
