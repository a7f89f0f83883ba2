"""Our plans in the engine's words and the engine's answers in ours: no call is made here.

The whole container configuration is written out, as the Engine API's JSON has it, so that nothing depends on what a client
library of one version or another would add. Errors are told apart by status and by what the engine says, since the API has one
status for many causes; the engine's own sentence always stays in the message.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from swarm.model.container import ContainerPlan, ContainerSeen, ContainerStatus, EngineEvent, EngineTrouble
from swarm.model.task import Mount, MountKind, TaskSpec
from swarm.ports import EngineError

NANO_PER_MILLICORE = 1_000_000
CPU_MILLICORES_MIN = 10
"""The kernel takes no quota under 1 ms in 100 ms: who reserves less is limited to this."""
_TIME = re.compile(r"(?P<whole>[-\dT:]{19})(?:\.(?P<fraction>\d+))?(?P<zone>Z|[-+]\d\d:\d\d|)")
_STATUS = {status.value: status for status in ContainerStatus} | {
    "restarting": ContainerStatus.RUNNING,
    "stopping": ContainerStatus.RUNNING,
}
_TROUBLES: tuple[tuple[str, EngineTrouble], ...] = (
    (r"containerd.*(connection refused|unavailable)|transport is closing|deadline exceeded", EngineTrouble.UNREACHABLE),
    (r"no space left on device|disk quota exceeded", EngineTrouble.NO_SPACE),
    (r"no such image|manifest .*(unknown|not found)|pull access denied|repository .* not found", EngineTrouble.NO_IMAGE),
    (r"bind source path does not exist|invalid mount config for type", EngineTrouble.NO_MOUNT_SOURCE),
    (r"port is already allocated|address already in use|bind for .* failed", EngineTrouble.PORT_TAKEN),
    (r"executable file not found|exec format error|starting container process|unable to find user", EngineTrouble.BAD_COMMAND),
)


def container_config(plan: ContainerPlan) -> dict[str, Any]:
    """The body of POST /containers/create."""
    spec = plan.spec
    config: dict[str, Any] = {
        "Image": spec.image,
        "Env": [*spec.env, *plan.env_added],
        "Labels": dict(plan.labels),
        "HostConfig": _host_config(plan),
    }
    if spec.command:
        config["Cmd"] = list(spec.command)
    if spec.entrypoint is not None:
        config["Entrypoint"] = list(spec.entrypoint)
    if spec.user:
        config["User"] = spec.user
    if spec.workdir:
        config["WorkingDir"] = spec.workdir
    if spec.stop_signal:
        config["StopSignal"] = spec.stop_signal
    if spec.ports and spec.network == "bridge":
        config["ExposedPorts"] = {f"{port.container_port}/{port.protocol}": {} for port in spec.ports}
    return config


def _host_config(plan: ContainerPlan) -> dict[str, Any]:
    spec = plan.spec
    config: dict[str, Any] = {
        "NetworkMode": spec.network,
        "RestartPolicy": {"Name": "no"},  # restarts are the runner's
        "Mounts": [_mount(mount) for mount in spec.mounts],
    }
    if spec.resources.cpu_millicores:
        config["NanoCpus"] = max(spec.resources.cpu_millicores, CPU_MILLICORES_MIN) * NANO_PER_MILLICORE
    if spec.resources.memory_bytes:
        config["Memory"] = spec.resources.memory_bytes
        config["MemorySwap"] = spec.resources.memory_bytes  # equal: no swap beyond the limit
    if spec.pids_limit:
        config["PidsLimit"] = spec.pids_limit
    if spec.init:
        config["Init"] = True
    if plan.cgroup_parent:
        config["CgroupParent"] = plan.cgroup_parent
    if spec.ports and spec.network == "bridge":
        config["PortBindings"] = _port_bindings(spec)
    return config


def _port_bindings(spec: TaskSpec) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in spec.ports:
        key = f"{port.container_port}/{port.protocol}"
        bindings.setdefault(key, []).append({"HostIp": port.host_ip, "HostPort": str(port.host_port)})
    return bindings


def _mount(mount: Mount) -> dict[str, Any]:
    """Always the Mounts form: with it a missing source is an error, where `Binds` would make a folder of root's."""
    made: dict[str, Any] = {"Type": mount.kind.value, "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.kind is not MountKind.TMPFS and mount.source:
        made["Source"] = mount.source
    return made


def seen_of(details: dict[str, Any]) -> ContainerSeen:
    """From GET /containers/{id}/json."""
    state = details["State"]
    status = _STATUS.get(state.get("Status", ""), ContainerStatus.DEAD)
    running = status is ContainerStatus.RUNNING
    return ContainerSeen(
        container_id=details["Id"],
        name=details["Name"].lstrip("/"),
        labels=details["Config"].get("Labels") or {},
        status=status,
        exit_code=None if running or status is ContainerStatus.CREATED else int(state.get("ExitCode", 0)),
        oom_killed=bool(state.get("OOMKilled")),
        error="" if running else state.get("Error", ""),
        started_utc=utc_of(state.get("StartedAt", "")),
        finished_utc=0.0 if running else utc_of(state.get("FinishedAt", "")),
    )


def event_of(event: dict[str, Any]) -> EngineEvent:
    """From one line of GET /events, containers only."""
    attributes = event["Actor"]["Attributes"]
    code = attributes.get("exitCode", "")
    return EngineEvent(
        action=event["Action"].partition(":")[0],
        container_id=event["Actor"]["ID"],
        labels=attributes,
        time_utc=event.get("timeNano", 0) / 1e9 or float(event.get("time", 0)),
        exit_code=int(code) if code.isdigit() else None,
    )


def utc_of(text: str) -> float:
    """`2024-05-01T10:00:00.123456789Z` as seconds since the epoch; 0 for the engine's year 1, which means never."""
    if not text or text.startswith("0001-"):
        return 0.0
    match = _TIME.fullmatch(text)
    if match is None:
        return 0.0
    zone = "+00:00" if match["zone"] in ("Z", "") else match["zone"]
    return datetime.fromisoformat(match["whole"] + zone).timestamp() + float(f"0.{match['fraction'] or 0}")


def error_of(status: int, text: str, doing: str) -> EngineError:
    """An answer other than success, sorted by what the runner must do about it."""
    lowered = text.lower()
    for pattern, trouble in _TROUBLES:
        if re.search(pattern, lowered):
            return EngineError(trouble, f"cannot {doing}: {text}")
    trouble = {404: EngineTrouble.NOT_FOUND, 409: EngineTrouble.CONFLICT}.get(status, EngineTrouble.OTHER)
    return EngineError(trouble, f"cannot {doing}: {text}")
