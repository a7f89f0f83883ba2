"""One cgroup per emulated host, in every hierarchy of the machine: its whole weight, and its freezer.

A host's PID 1 enters `swarm-testnet-0/hN` and then a cgroup namespace, so that inside the host this folder is
the root: its engine and its daemon make cgroups of any name without meeting those of other hosts. Processes
of the host itself live in `system` below it, since version 2 allows processes only in leaves.

Works with version 1, version 2 and both mounted together. Freezing uses the freezer of either version.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from testnet.layout import Layout, TestnetError
from testnet.processes import wait_until

SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup tree: its path, its version, and the mount options that would mount it again."""

    path: Path
    version: int
    options: str


def hierarchies() -> list[Hierarchy]:
    """Every cgroup tree that is mounted here, as /proc/self/mountinfo tells."""
    found: dict[Path, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, superblock = right.split(" ", 2)
        path = Path(left.split()[4])
        if kind == "cgroup2":
            found[path] = Hierarchy(path=path, version=2, options="")
        elif kind == "cgroup":
            options = [option for option in superblock.split(",") if option not in ("rw", "ro")]
            kept = [option for option in options if not option.startswith("release_agent=")]
            if any(option.startswith("name=") for option in kept):
                kept.insert(0, "none")
            found[path] = Hierarchy(path=path, version=1, options=",".join(kept))
    return list(found.values())


def create(layout: Layout, host: int) -> list[Path]:
    """Make the host's cgroup and its `system` leaf in every hierarchy; returns the host's folders."""
    made = []
    for tree in hierarchies():
        top = tree.path / layout.cgroup
        folder = top / f"h{host}"
        for parent, child in ((tree.path, top), (top, folder)):
            child.mkdir(exist_ok=True)
            prepare_child(tree, parent, child)
        (folder / SYSTEM).mkdir(exist_ok=True)
        if tree.version == 1:
            prepare_child(tree, folder, folder / SYSTEM)
        made.append(folder)
    return made


def prepare_child(tree: Hierarchy, parent: Path, child: Path) -> None:
    """Give a new cgroup what it needs to take processes: cpuset values in version 1, controllers in 2."""
    if tree.version == 2:
        controllers = (parent / "cgroup.controllers").read_text().split()
        for controller in controllers:
            try:
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                continue  # a controller that this parent may not pass on: the host does without it
    elif (child / "cpuset.cpus").exists():
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (child / name).read_text().strip():
                (child / name).write_text((parent / name).read_text())


def host_folders(layout: Layout, host: int) -> list[Path]:
    return [tree.path / layout.cgroup / f"h{host}" for tree in hierarchies()]


def join_command(layout: Layout, host: int, leaf: str = "") -> str:
    """Shell that moves the shell itself into the host's cgroup, for use before entering its namespaces."""
    files = [folder / leaf / "cgroup.procs" for folder in host_folders(layout, host)]
    return " ".join(f"echo $$ > {file};" for file in files)


def move(layout: Layout, host: int, leaf: str, pids: list[int]) -> None:
    """Put processes into another leaf of the host, made if it is not there; what they start from then on follows."""
    for tree in hierarchies():
        folder = tree.path / layout.cgroup / f"h{host}"
        (folder / leaf).mkdir(exist_ok=True)
        prepare_child(tree, folder, folder / leaf)
        for pid in pids:
            try:
                (folder / leaf / "cgroup.procs").write_text(str(pid))
            except ProcessLookupError:
                continue  # it ended in between


def remove(layout: Layout, host: int) -> None:
    """Remove the host's cgroups, once its processes are gone."""
    for folder in host_folders(layout, host):
        remove_tree(folder)


def remove_all(layout: Layout) -> None:
    for tree in hierarchies():
        remove_tree(tree.path / layout.cgroup)


def remove_tree(folder: Path) -> None:
    """Remove a cgroup and all below it; waits up to 5 s for dying processes to leave."""
    for path, _, _ in os.walk(folder, topdown=False):
        give_up = time.clock_gettime(time.CLOCK_BOOTTIME) + 5.0
        while True:
            try:
                os.rmdir(path)
            except FileNotFoundError:
                break
            except OSError as problem:
                if time.clock_gettime(time.CLOCK_BOOTTIME) > give_up:
                    raise TestnetError(f"cannot remove the cgroup {path}: {problem}") from problem
                time.sleep(0.01)
            else:
                break


def container_folders(layout: Layout, host: int) -> list[Path]:
    """The cgroups of one hierarchy below the host that hold a container (64 hexadecimal digits)."""
    for folder in host_folders(layout, host):
        if folder.parts[-3] in ("pids", "cgroup", "unified") and folder.exists():
            return [Path(path) for path, _, _ in os.walk(folder) if len(Path(path).name) == 64]
    return []


def freeze(layout: Layout, host: int) -> bool:
    """Freeze all processes of the host at once; False where no freezer is mounted."""
    return set_frozen(layout, host, frozen=True)


def thaw(layout: Layout, host: int) -> bool:
    return set_frozen(layout, host, frozen=False)


def set_frozen(layout: Layout, host: int, *, frozen: bool) -> bool:
    for folder in host_folders(layout, host):
        if (folder / "freezer.state").exists():
            wanted = "FROZEN" if frozen else "THAWED"
            (folder / "freezer.state").write_text(wanted)
            wait_for_text(folder / "freezer.state", wanted)
            return True
        if (folder / "cgroup.freeze").exists() and (folder / SYSTEM / "cgroup.procs").read_text().strip():
            (folder / "cgroup.freeze").write_text("1" if frozen else "0")
            wait_for_text(folder / "cgroup.events", f"frozen {int(frozen)}")
            return True
    return False


def wait_for_text(path: Path, wanted: str) -> None:
    """A freeze is asked for, and done a moment later."""
    wait_until(lambda: wanted in path.read_text(), timeout_s=5.0, what=f"{path} to say {wanted}")
