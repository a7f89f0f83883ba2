"""The cgroup under which all our containers run: a lower CPU weight than the daemon's.

A host full of busy containers must not starve the daemon that watches them. Niceness works only among the processes of one
cgroup, so containers get a parent of their own, whose weight is a fraction of what the daemon's cgroup has by default. The engine
makes the folders of its containers below it. Versions 1 and 2, and both drivers of the engine.

Promise: never fails a start. Where the weight cannot be set (no rights, a foreign layout), it says so and the containers run
under the engine's default parent.
"""

from __future__ import annotations

from pathlib import Path

NAME = "swarm-containers"
SYSTEMD_SLICE = "swarmcontainers.slice"
"""No dash: systemd reads one as nesting."""
WEIGHT = 50
SHARES = 512
"""Half of the defaults (100, and 1024 in version 1)."""
ROOT = Path("/sys/fs/cgroup")


def prepare_parent(cgroup_driver: str, *, root: Path = ROOT) -> tuple[str, str]:
    """(the value for CgroupParent, what could not be done). An empty value means the engine's default parent. Blocking, short."""
    if cgroup_driver == "systemd":
        return SYSTEMD_SLICE, ""  # systemd makes the slice; its weight is the unit's matter (docs/systemd)
    if cgroup_driver != "cgroupfs":
        return "", f"the engine's cgroup driver {cgroup_driver!r} is unknown: containers run under its default parent"
    try:
        if (root / "cgroup.controllers").exists():
            _prepare_unified(root)
        else:
            _prepare_cpu_hierarchy(root)
    except OSError as error:
        return "", f"cannot give the containers a lower CPU weight ({error}): they run under the engine's default parent"
    return f"/{NAME}", ""


def _prepare_unified(root: Path) -> None:
    if "cpu" not in (root / "cgroup.subtree_control").read_text().split():
        (root / "cgroup.subtree_control").write_text("+cpu")
    folder = root / NAME
    folder.mkdir(exist_ok=True)
    (folder / "cpu.weight").write_text(str(WEIGHT))


def _prepare_cpu_hierarchy(root: Path) -> None:
    found = next((path for path in (root / "cpu,cpuacct", root / "cpu") if path.is_dir()), None)
    if found is None:
        raise FileNotFoundError(f"no cpu hierarchy below {root}")
    folder = found / NAME
    folder.mkdir(exist_ok=True)
    (folder / "cpu.shares").write_text(str(SHARES))
