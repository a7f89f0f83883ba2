"""What /proc says, the containers' cgroup, the memory file, and the engine's words translated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from swarm.adapters import cgroup
from swarm.adapters.engine_plan import container_config, error_of, utc_of
from swarm.adapters.host import ProcHost
from swarm.adapters.images import registry_of, split_image
from swarm.adapters.memory_file import MemoryFile
from swarm.model.container import ContainerPlan, EngineTrouble
from swarm.model.ids import ClusterId
from swarm.model.resources import Resources
from swarm.model.task import TaskSpec
from swarm.runner.copies import Holdings
from swarm.wire.codec import encode


def proc(folder: Path, *, busy: int, idle: int) -> Path:
    (folder / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (folder / "1").mkdir(exist_ok=True)
    (folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1\n")
    (folder / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n")
    (folder / "loadavg").write_text("0.50 0.1 0.1 1/1 1\n")
    (folder / "sys/kernel/random/boot_id").write_text("abc\n")
    (folder / "1/stat").write_text("1 (in it) S 0 1 " + " ".join(str(n) for n in range(5, 40)))
    return folder


def test_load_is_what_was_used_since_the_last_look(tmp_path: Path) -> None:
    host = ProcHost(tmp_path, proc=proc(tmp_path, busy=100, idle=100))
    proc(tmp_path, busy=130, idle=170)
    load = host.load()
    assert (load.cpu_used_permille, load.memory_used_permille) == (300, 750)
    assert 0 <= load.disk_used_permille <= 1000 and load.load_permille > 0
    assert host.load().cpu_used_permille == 0


@pytest.mark.parametrize(
    ("said", "permille"),
    [
        ("some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n", 123),
        ("some avg10=100.00 avg60=0.00 avg300=0.00 total=1\n", 1000),
        ("none of this is known\n", None),
        (None, None),
    ],
)
def test_pressure_is_read_where_the_kernel_tells_it(tmp_path: Path, said: str | None, permille: int | None) -> None:
    host = ProcHost(tmp_path, proc=proc(tmp_path, busy=1, idle=1))
    if said is not None:
        (tmp_path / "pressure").mkdir()
        (tmp_path / "pressure/cpu").write_text(said)
    assert host.load().cpu_pressure_permille == permille


def test_the_boot_id_changes_with_the_kernel_and_with_the_first_process(tmp_path: Path) -> None:
    first = ProcHost(tmp_path, proc=proc(tmp_path, busy=1, idle=1)).boot_id()
    assert ProcHost(tmp_path, proc=tmp_path).boot_id() == first
    (tmp_path / "1/stat").write_text("1 (in it) S 0 1 " + " ".join(str(n) for n in range(105, 140)))
    second = ProcHost(tmp_path, proc=tmp_path).boot_id()
    (tmp_path / "sys/kernel/random/boot_id").write_text("def\n")
    assert len({first, second, ProcHost(tmp_path, proc=tmp_path).boot_id()}) == 3


def test_this_host_can_be_read(tmp_path: Path) -> None:
    host = ProcHost(tmp_path)
    assert host.capacity()[0] >= 1000 and host.capacity()[1] > 1 << 20
    assert host.load().memory_used_permille > 0 and "." in host.boot_id()


def test_priority_never_fails_and_children_get_no_real_time() -> None:
    script = (
        "import os, subprocess; from swarm.adapters.host import raise_priority; refused = raise_priority();"
        "child = subprocess.run(['cat', '/proc/self/stat'], capture_output=True, text=True).stdout.rpartition(')')[2].split();"
        "assert int(child[38]) == 0, child; assert all(isinstance(text, str) for text in refused)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


@pytest.mark.parametrize("unified", [True, False])
def test_containers_get_a_parent_of_lower_weight(tmp_path: Path, unified: bool) -> None:
    if unified:
        (tmp_path / "cgroup.controllers").write_text("cpu memory")
        (tmp_path / "cgroup.subtree_control").write_text("memory")
    else:
        (tmp_path / "cpu").mkdir()
    assert cgroup.prepare_parent("cgroupfs", root=tmp_path) == ("/swarm-containers", "")
    path = "swarm-containers/cpu.weight" if unified else "cpu/swarm-containers/cpu.shares"
    assert int((tmp_path / path).read_text()) == (50 if unified else 512)


def test_a_parent_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    parent, refused = cgroup.prepare_parent("cgroupfs", root=tmp_path / "missing")
    assert parent == "" and "default parent" in refused
    assert cgroup.prepare_parent("systemd", root=tmp_path)[0].endswith(".slice")
    assert "strange" in cgroup.prepare_parent("strange", root=tmp_path)[1]


async def test_what_was_held_is_remembered_and_damage_forgets_it(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "held")
    assert file.load() is None
    held = Holdings(ClusterId("c" * 32), 7, ())
    await file.save(encode(held))
    assert MemoryFile(tmp_path / "held").load() == held
    (tmp_path / "held").write_bytes(b"\xff\x00")
    assert file.load() is None


@pytest.mark.parametrize(
    ("image", "parts", "registry"),
    [
        ("redis", ("redis", "latest"), "docker.io"),
        ("testnet/redis:1", ("testnet/redis", "1"), "docker.io"),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest"), "localhost:5000"),
        ("r.example/a:2", ("r.example/a", "2"), "r.example"),
        ("a@sha256:12", ("a", "sha256:12"), "docker.io"),
    ],
)
def test_an_image_names_its_repository_and_registry(image: str, parts: tuple[str, str], registry: str) -> None:
    assert split_image(image) == parts and registry_of(image) == registry


@pytest.mark.parametrize(
    ("status", "text", "trouble"),
    [
        (404, "No such image: x:1", EngineTrouble.NO_IMAGE),
        (404, "No such container: x", EngineTrouble.NOT_FOUND),
        (500, "write /var/x: no space left on device", EngineTrouble.NO_SPACE),
        (500, "driver failed programming external connectivity: port is already allocated", EngineTrouble.PORT_TAKEN),
        (400, 'exec: "x": executable file not found in $PATH', EngineTrouble.BAD_COMMAND),
        (409, "Conflict. The container name is already in use", EngineTrouble.CONFLICT),
        (500, "dial unix /run/containerd.sock: connection refused", EngineTrouble.UNREACHABLE),
        (500, "something else", EngineTrouble.OTHER),
    ],
)
def test_errors_are_told_apart_by_what_to_do(status: int, text: str, trouble: EngineTrouble) -> None:
    error = error_of(status, text, "start 'web'")
    assert error.trouble is trouble and text in error.message and "start 'web'" in error.message


def test_engine_times_become_utc_seconds() -> None:
    assert utc_of("1970-01-01T00:00:10.5Z") == 10.5
    assert utc_of("1970-01-01T02:00:10.123456789+02:00") == pytest.approx(10.123456789)
    assert utc_of("1970-01-01T00:00:10-01:00") == 3610.0 and utc_of("odd") == 0.0
    assert utc_of("0001-01-01T00:00:00Z") == 0.0 == utc_of("")


def test_what_a_node_holds_is_for_its_owner_only(tmp_path: Path) -> None:
    trio.run(MemoryFile(tmp_path / "held").save, b"environment of containers")
    assert (tmp_path / "held").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("reserved", "limit"), [(1, 10_000_000), (10, 10_000_000), (11, 11_000_000), (1500, 1_500_000_000)])
def test_a_tiny_share_of_a_processor_is_a_limit_that_the_kernel_takes(reserved: int, limit: int) -> None:
    spec = TaskSpec(name="t", image="i", resources=Resources(reserved, 0, 1))
    assert container_config(ContainerPlan("t", {}, spec, ()))["HostConfig"]["NanoCpus"] == limit
