"""The node's counters sorted for people: packets, bytes, drops by reason, suspicions and investigations by outcome, loop lag.

The flat counters are what the parts of a node count, by name; a name that no group claims is kept under `other`, so nothing
counted is hidden. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.schema.shapes import Shape

_GROUPS = ("suspicions", "deaths", "cases")
_DROP_PREFIXES = ("dropped_", "udp_receive_", "udp_send_")
_DROPS = (
    "absurd_claim", "ack_unasked", "bad_address", "claim_about_stranger", "errand_refused", "from_own_id", "not_admitted",
    "old_generation", "ping_for_another",
)  # fmt: skip
"""Drops of the membership core, whose names have no prefix."""
_ALWAYS = {
    "drops": (),
    "suspicions": ("opened", "refuted", "dead_host_silent", "dead_daemon_gone", "dead_daemon_stalled", "left", "removed"),
    "deaths": ("host_silent", "daemon_gone", "daemon_stalled", "taken_back"),
    "cases": ("opened", "answered", "reached_by_others"),
}
"""What each group shows even while it is 0."""


def grouped(flat: Mapping[str, int]) -> Shape:
    """From names to groups; every flat counter is in exactly one of them."""
    left = dict(flat)
    lag_ms = {"last": left.pop("loop_lag_ms", 0), "max_1m": left.pop("loop_lag_max_1m_ms", 0)}
    packets = {word: left.pop(f"packets_{word}", 0) for word in ("sent", "received")}
    size = {word: left.pop(f"bytes_{word}", 0) for word in ("sent", "received")}
    groups: dict[str, dict[str, int]] = {group: dict.fromkeys(words, 0) for group, words in _ALWAYS.items()}
    for name in sorted(left):
        group, word = _place(name)
        groups.setdefault(group, {})[word] = left[name]
    return {"packets": packets, "bytes": size, **groups, "loop_lag_ms": lag_ms}


def _place(name: str) -> tuple[str, str]:
    if name in _DROPS:
        return "drops", name
    if name == "refuted":
        return "suspicions", "of_itself_refuted"
    for prefix in _DROP_PREFIXES:
        if name.startswith(prefix):
            return "drops", name.removeprefix("dropped_")
    group, _, word = name.partition("_")
    return (group, word) if group in _GROUPS and word else ("other", name)
