"""The task document: what a task file, `swarm task submit` and `POST /v1/tasks` all say, checked and made a `TaskSpec`.

One table, `FIELDS`, names every field and how its value is read. The three callers differ only in where the document came from.

Promises: an unknown field is an error that names it and its nearest neighbours; every error names field and value; a spec
that comes out is complete (nothing is left for the engine to default that would differ between hosts). Pure.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from swarm.errors import OperatorError, UsageError
from swarm.model.constraint import parse_constraint, parse_preference
from swarm.model.ids import is_name
from swarm.model.resources import Resources
from swarm.model.task import NodeLossKind, Restart, RestartKind, TaskSpec
from swarm.schema.publish import PORTS_MAX, parse_mount, parse_ports, parse_volume
from swarm.schema.quantities import bad_value, parse_count, parse_cpus, parse_duration, parse_memory, shown

POLICIES = ("spread", "binpack", "least-loaded", "round-robin", "e-pvm")
NETWORKS = ("bridge", "host", "none")
ITEMS_MAX = 1_000
"""Of environment variables, labels, mounts or constraints each."""
STOP_GRACE_S_MAX = 3600.0
ENV_OURS = ("SWARM_TASK", "SWARM_ATTEMPT", "SWARM_NODE", "SWARM_NODE_ADDRESS", "SWARM_TERM")

_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[a-z0-9+.]+:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_SIGNAL = re.compile(
    r"(?:SIG)?(?:HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE|ALRM|TERM|STKFLT|CHLD|CONT|STOP|TSTP|TTIN|TTOU|URG|"
    r"XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS|RTMIN(?:\+[0-9]{1,2})?|RTMAX(?:-[0-9]{1,2})?)|[1-9]|[1-5][0-9]|6[0-4]"
)
_RESTART = re.compile(r"(no|always|on-failure)(?::(\d{1,6}))?", re.ASCII)


def build_spec(document: object, *, name_default: str) -> TaskSpec:
    """Read a whole document. Raises `UsageError` at the first thing that is wrong. Cost is linear in its size."""
    if not isinstance(document, Mapping):
        raise UsageError(
            "cannot read the task", cause=f"a map of fields is expected, found {shown(document)}", hint="see docs/cli.md"
        )
    found: dict[str, Any] = {}
    for key, value in document.items():
        field = canonical_field(key)
        if field in found:
            raise UsageError(f"'{field}' is given twice", hint="keep one of them")
        if value is not None:
            found[field] = FIELDS[field](value)
    if "image" not in found:
        raise UsageError("cannot read the task: no image is named", hint="add a field like image: redis:7")
    mounts = (*found.pop("volumes", ()), *found.pop("mounts", ()))
    resources = Resources(found.pop("cpus", 0), found.pop("memory", 0), 1, found.pop("generic", ()))
    found.setdefault("name", name_default)
    spec = TaskSpec(mounts=mounts, resources=resources, **found)
    check_together(spec)
    return spec


def canonical_field(key: object) -> str:
    """The field that `key` means; `UsageError` with near matches when there is none."""
    name = key.replace("-", "_").lower() if isinstance(key, str) else ""
    name = _SHORT.get(name, name)
    if name in FIELDS:
        return name
    near = difflib.get_close_matches(name, [*FIELDS, *_SHORT], n=3, cutoff=0.6)
    raise UsageError(
        f"unknown field {shown(key)}",
        cause="a task has no such field",
        hint=f"did you mean {' or '.join(near)}?" if near else f"the fields are: {', '.join(sorted(_WRITTEN))}",
    )


def check_together(spec: TaskSpec) -> None:
    """What no field can see alone."""
    if len(spec.ports) > PORTS_MAX:
        raise UsageError(f"{len(spec.ports)} ports are published", cause=f"at most {PORTS_MAX} may be", hint="use network host")
    if spec.ports and spec.network == "none":
        raise UsageError("ports cannot be published with network none", hint="use network bridge or host")
    for port in spec.ports:
        if spec.network == "host" and port.host_port != port.container_port:
            raise UsageError(
                f"port {port.host_port}:{port.container_port} cannot be mapped with network host",
                cause="the container uses the host's own ports", hint=f"write {port.container_port}:{port.container_port}",
            )  # fmt: skip
    seen = {(port.host_ip, port.host_port, port.protocol) for port in spec.ports}
    if len(seen) != len(spec.ports):
        raise UsageError("a host port is published twice", hint="give each container port a host port of its own")
    targets = [mount.target for mount in spec.mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two mounts have the target {target}", hint="mount each at a path of its own")


def _text(field: str, *, pattern: re.Pattern[str] | None = None, hint: str = "") -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or "\0" in value or len(value) > 4096:
            raise bad_value(field, value, cause="text is expected", hint=hint)
        if pattern is not None and not pattern.fullmatch(value):
            raise bad_value(field, value, cause="it does not have the right form", hint=hint)
        return value

    return read


def _read_name(value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise bad_value(
            "name", value, cause="it cannot name a task",
            hint="use 1 to 63 of a-z 0-9 . _ - and start and end with a letter or digit",
        )  # fmt: skip
    return value


def _read_image(value: object) -> str:
    if not isinstance(value, str) or len(value) > 300 or not (_IMAGE.fullmatch(value) or _IMAGE_ID.fullmatch(value)):
        raise bad_value(
            "image", value, cause="it is not an image reference",
            hint="write it like redis:7 or registry.example:5000/team/app:1.2",
        )  # fmt: skip
    return value


def _one_of(field: str, choices: tuple[str, ...]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(choices)}"
            raise bad_value(field, value, cause=f"it is none of {', '.join(choices)}", hint=hint)
        return value

    return read


def _words(field: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        hint = 'write a list like ["sh", "-c", "echo hello"], or one line as in a shell'
        if isinstance(value, str):
            try:
                value = shlex.split(value)
            except ValueError as error:
                raise bad_value(field, value, cause=str(error), hint=hint) from None
        text = _text(field, hint=hint)
        return tuple(_command_word(text, item) for item in _listed(field, value, hint))

    return read


def _command_word(text: Callable[[object], str], item: object) -> str:
    """Programs are often handed whole scripts as one word, so a word may be longer than other text."""
    if isinstance(item, str) and len(item) > 4096 and "\0" not in item:
        return item
    return text(item)


def _listed(field: str, value: object, hint: str = "") -> list[Any]:
    if not isinstance(value, list | tuple):
        raise bad_value(field, value, cause="a list is expected", hint=hint)
    if len(value) > ITEMS_MAX:
        raise UsageError(f"'{field}' has {len(value)} items", cause=f"at most {ITEMS_MAX} are accepted")
    return list(value)


def _pairs(field: str, value: object, hint: str) -> dict[str, str]:
    """`NAME=value` texts or a map, as a map. Later ones win, as on a command line."""
    items: dict[str, str] = {}
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = []
        for item in _listed(field, value, hint):
            name, separator, content = item.partition("=") if isinstance(item, str) else ("", "", "")
            if not separator:
                raise bad_value(field, item, cause="it has no '='", hint=hint)
            pairs.append((name, content))
    if len(pairs) > ITEMS_MAX:
        raise UsageError(f"'{field}' has {len(pairs)} items", cause=f"at most {ITEMS_MAX} are accepted")
    for name, content in pairs:
        if isinstance(content, bool):
            content = "true" if content else "false"
        elif content is None:
            content = ""
        elif isinstance(content, int | float):
            content = str(content)
        if name == "":
            raise bad_value(field, f"={content}", cause="the name is empty", hint=hint)
        named = isinstance(name, str) and "=" not in name and "\0" not in name
        if not named or not isinstance(content, str) or "\0" in content:
            raise bad_value(field, {name: content}, cause="names and values are text", hint=hint)
        items[name] = content
    return items


def _read_env(value: object) -> tuple[str, ...]:
    items = _pairs("env", value, "write it like NAME=value")
    for name in items:
        if name in ENV_OURS:
            raise bad_value("env", name, cause="swarm sets this variable itself", hint="use another name")
    return tuple(f"{name}={content}" for name, content in items.items())


def _read_labels(value: object) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(_pairs("labels", value, "write it like team=web").items()))


def _read_constraints(field: str, parse: Callable[[str], object], example: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [value]
        found = []
        for item in _listed(field, value):
            if not isinstance(item, str):
                raise bad_value(field, item, cause="text is expected", hint=f"write it like {example}")
            parse(item)
            found.append(item)
        return tuple(found)

    return read


def _read_restart(value: object) -> Restart:
    match = _RESTART.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[2] is not None and match[1] != "on-failure"):
        hint = "use no, always, on-failure or on-failure:5"
        if value == "unless-stopped":
            hint = "use always: a task that was stopped stays stopped"
        raise bad_value("restart", value, cause="it is no restart policy", hint=hint)
    return Restart(RestartKind(match[1]), attempts_max=int(match[2] or 0))


def _read_generic(value: object) -> tuple[tuple[str, int], ...]:
    items = _pairs("generic", value, "write it like gpu=1")
    return tuple(sorted((name, parse_count(amount, field="generic", count_max=10**9)) for name, amount in items.items()))


def _read_flag(field: str) -> Callable[[object], bool]:
    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise bad_value(field, value, cause="true or false is expected", hint="")
        return value

    return read


def _each(field: str, read: Callable[..., Any], *, flat: bool = False) -> Callable[[object], tuple[Any, ...]]:
    def read_all(value: object) -> tuple[Any, ...]:
        items = [read(item, field=field) for item in _listed(field, [value] if isinstance(value, str) else value)]
        return tuple(one for item in items for one in item) if flat else tuple(items)

    return read_all


FIELDS: dict[str, Callable[[object], Any]] = {
    "name": _read_name,
    "image": _read_image,
    "command": _words("command"),
    "entrypoint": _words("entrypoint"),
    "env": _read_env,
    "user": _text("user", pattern=re.compile(r"[^\s\0]{0,200}"), hint="write it like 1000, www-data or 1000:1000"),
    "workdir": _text("workdir", pattern=re.compile(r"(/[^\0]*)?"), hint="write an absolute path"),
    "network": _one_of("network", NETWORKS),
    "ports": _each("ports", parse_ports, flat=True),
    "volumes": _each("volumes", parse_volume),
    "mounts": _each("mounts", parse_mount),
    "labels": _read_labels,
    "constraints": _read_constraints("constraints", parse_constraint, "node.labels.disk==ssd"),
    "preferences": _read_constraints("preferences", parse_preference, "spread=node.labels.zone"),
    "policy": _one_of("policy", POLICIES),
    "cpus": lambda value: parse_cpus(value, field="cpus"),
    "memory": lambda value: parse_memory(value, field="memory"),
    "generic": _read_generic,
    "pids_limit": lambda value: parse_count(value, field="pids_limit", count_max=4_194_304),
    "restart": _read_restart,
    "on_node_loss": lambda value: NodeLossKind(_one_of("on_node_loss", tuple(NodeLossKind))(value)),
    "volume_elsewhere": _read_flag("volume_elsewhere"),
    "stop_signal": _text("stop_signal", pattern=_SIGNAL, hint="write it like SIGTERM, INT or 9"),
    "stop_grace_s": lambda value: parse_duration(value, field="stop_grace", seconds_max=STOP_GRACE_S_MAX),
    "init": _read_flag("init"),
}
"""Every field of a task document, and how its value is read."""

_SHORT = {
    "port": "ports", "publish": "ports", "volume": "volumes", "mount": "mounts", "label": "labels",
    "constraint": "constraints", "preference": "preferences", "prefer": "preferences", "stop_grace": "stop_grace_s",
    "pids": "pids_limit", "environment": "env", "cpu": "cpus",
}  # fmt: skip
_WRITTEN = [*(field for field in FIELDS if field != "stop_grace_s"), "stop_grace", "env_file"]
"""As people write them; `env_file` is read by the CLI, beside the file."""
"""Other spellings that are accepted: mostly the command line's singular."""


def explain_at(error: OperatorError, place: str) -> UsageError:
    """The same error, saying where in a file it stands."""
    return UsageError(f"{place}: {error.message}", cause=error.cause, hint=error.hint)
