"""What a command's content must be before it may change anything: names, amounts, ports, constraints.

The API refuses the same things earlier and with more advice; here they are refused because any member may propose, and a
replica must never meet a record that it cannot add up or encode.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math
import re

from swarm.errors import UsageError
from swarm.model.constraint import parse_constraint, parse_preference
from swarm.model.ids import is_name
from swarm.model.outcome import Rejected
from swarm.model.resources import Resources
from swarm.model.task import Port, Restart, TaskSpec

AMOUNT_MAX = 2**53
"""Above any host, and small enough that sums of a million tasks stay exact everywhere."""
TEXT_MAX = 1_000
_ID = re.compile(r"[a-z0-9-]{1,64}")
_LABELS_MAX = 256
_SECONDS_MAX = 30 * 86_400.0


def invalid(message: str, cause: str = "", hint: str = "") -> Rejected:
    """The request itself is wrong."""
    return Rejected("invalid", message, cause, hint)


def conflict(message: str, cause: str = "", hint: str = "") -> Rejected:
    """The request contradicts what is there."""
    return Rejected("conflict", message, cause, hint)


def not_found(message: str) -> Rejected:
    """The thing named does not exist."""
    return Rejected("not_found", message)


def clipped(text: str) -> str:
    """`text` with a bounded length, for records that live on."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def finite(value: float) -> float:
    """`value`, or 0.0 when it is no number that people could read."""
    return value if math.isfinite(value) else 0.0


def is_plain_id(text: str) -> bool:
    """Whether `text` can be an id: up to 64 of a-z 0-9 and dash."""
    return _ID.fullmatch(text) is not None


def resources_fault(amount: Resources) -> str | None:
    """What is wrong with an amount, or None."""
    for name, value in (("cpu", amount.cpu_millicores), ("memory", amount.memory_bytes), ("tasks", amount.tasks)):
        if not 0 <= value <= AMOUNT_MAX:
            return f"{name} of {value} is out of range"
    names = [name for name, _ in amount.generic]
    if names != sorted(set(names)) or "" in names or len(names) > _LABELS_MAX:
        return "generic resources must be sorted by name, each named once"
    for name, value in amount.generic:
        if not 0 <= value <= AMOUNT_MAX:
            return f"{name} of {value} is out of range"
    return None


def labels_fault(labels: tuple[tuple[str, str | None], ...]) -> str | None:
    """What is wrong with labels, or None."""
    if len(labels) > _LABELS_MAX:
        return f"{len(labels)} labels, at most {_LABELS_MAX} are kept"
    keys = [key for key, _ in labels]
    if "" in keys or len(set(keys)) != len(keys):
        return "each label needs a key, named once"
    if any(len(key) > TEXT_MAX or len(value or "") > TEXT_MAX for key, value in labels):
        return f"a label of over {TEXT_MAX} characters"
    return None


def spec_fault(spec: TaskSpec) -> str | None:
    """What is wrong with a task's spec, or None."""
    if not is_name(spec.name):
        return f"{spec.name[:80]!r} cannot name a task (1 to 63 of a-z 0-9 . _ -, a letter or digit at both ends)"
    if not spec.image:
        return "no image is named"
    return (
        resources_fault(spec.resources)
        or labels_fault(spec.labels)
        or _ports_fault(spec.ports)
        or _restart_fault(spec.restart)
        or _wishes_fault(spec)
    )


def _ports_fault(ports: tuple[Port, ...]) -> str | None:
    seen: set[tuple[str, int, str]] = set()
    for port in ports:
        if not (1 <= port.host_port <= 65_535 and 1 <= port.container_port <= 65_535):
            return f"port {port.host_port}:{port.container_port} is out of range (1 to 65535)"
        if port.protocol not in ("tcp", "udp", "sctp"):
            return f"protocol {port.protocol[:40]!r} is not tcp, udp or sctp"
        key = (port.protocol, port.host_port, port.host_ip)
        if key in seen:
            return f"host port {port.host_port}/{port.protocol} is published twice"
        seen.add(key)
    return None


def _restart_fault(restart: Restart) -> str | None:
    times = (restart.delay_s, restart.delay_max_s, restart.reset_after_s)
    if not all(0.0 <= value <= _SECONDS_MAX for value in times):
        return "a restart delay is out of range (0 s to 30 days)"
    return None if 0 <= restart.attempts_max <= AMOUNT_MAX else "the number of restarts is out of range"


def _wishes_fault(spec: TaskSpec) -> str | None:
    if not 0.0 <= spec.stop_grace_s <= _SECONDS_MAX:
        return "the stop grace is out of range (0 s to 30 days)"
    if not 0 <= spec.pids_limit <= AMOUNT_MAX:
        return "the pids limit is out of range"
    try:
        for text in spec.constraints:
            parse_constraint(text)
        for text in spec.preferences:
            parse_preference(text)
    except UsageError as error:
        return f"{error.message}: {error.cause}; {error.hint}"
    return None
