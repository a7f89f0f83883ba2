"""One emulated host: PID 1, an engine and a swarm daemon, each of which can be killed and started alone.

The host is a set of namespaces (network, PID, mount, UTS, IPC, cgroup) held by PID 1; see host_init.sh.
Killing PID 1 is a power cut: the kernel kills everything in its PID namespace. The data folder outlives it,
so the host comes back with its images, containers and the daemon's store.

Promises: what is started here carries its pid and start time into the record; nothing runs with the caller's
proxy settings; a container's engine and the swarm daemon never share a process with the caller.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

from testnet import cgroups, network
from testnet.layout import REPOSITORY, Layout, TestnetError
from testnet.processes import Process, all_stats, identify, outside_pid, wait_until

SOCKET = "/run/swarm/swarm.sock"
SWARM = REPOSITORY / ".venv/bin/swarm"
INSIDE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SWARM_SOCKET": SOCKET,
    "DOCKER_HOST": "unix:///run/docker.sock",
}


class Host:
    """A host of its own namespaces. Methods start and find things; faults.py breaks them."""

    def __init__(self, layout: Layout, number: int) -> None:
        self.layout = layout
        self.number = number
        self.name = f"h{number}"
        self.address = layout.address(number)
        self.folder = layout.folder(number)
        self.engine_url = f"unix://{self.folder}/docker.sock"
        self.daemon_log = self.folder / "swarm.log"
        self.engine_log = self.folder / "dockerd.log"

    def prepare(self, host_count: int) -> None:
        """Make the network namespace and the files that the host sees as its own."""
        for name in ("root", "etc-docker", "swarm"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        names = [f"{self.layout.address(number)} h{number}" for number in range(1, host_count + 1)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        network.create_host(self.layout, self.number)

    def start_init(self) -> Process:
        """Boot: enter the namespaces and wait until PID 1 has arranged them."""
        cgroups.create(self.layout, self.number)
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        triples = [part for tree in cgroups.hierarchies() for part in (str(tree.path), str(tree.version), tree.options)]
        command = [
            "unshare", "-m", "-u", "-i", "-p", "-C", "-f", "--mount-proc", "--propagation", "private",
            str(REPOSITORY / "testnet/host_init.sh"), self.name, str(self.folder), *triples,
        ]  # fmt: skip
        namespace = f"--net=/run/netns/{self.layout.namespace(self.number)}"
        script = f"{cgroups.join_command(self.layout, self.number)} exec nsenter {namespace} {shlex.join(command)}"
        log = self.folder / "init.log"
        with log.open("ab") as output:
            launcher = subprocess.Popen(
                ["/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env=INSIDE_ENVIRONMENT, cwd="/",
            )  # fmt: skip
        wait_until(
            lambda: ready.exists() or launcher.poll() is not None,
            timeout_s=20.0,
            what=f"{self.name} to boot (see {log})",
        )
        if launcher.poll() is not None:
            raise TestnetError(f"{self.name} did not boot: {log.read_text()[-500:].strip()}")
        launcher.returncode = 0  # it lives as long as the host and is nobody's to wait for
        return identify(next(stat.pid for stat in all_stats() if stat.parent == launcher.pid))

    def enter(self, init: Process, *, folder: str = "") -> list[str]:
        """The command that enters all namespaces of the host; what follows it runs in `folder`, or in the root."""
        if not init.alive():
            raise TestnetError(f"host {self.number} is dead: `./testnet/run revive {self.number}` brings it back")
        where = [f"--wdns={folder}"] if folder else []
        return ["nsenter", "-t", str(init.pid), "-m", "-u", "-i", "-n", "-p", "-C", *where, "--"]

    def spawn(self, init: Process, command: list[str], log: Path) -> Process:
        """Start a long-lived process as a child of the host's PID 1, its output appended to `log`."""
        inner = f'setsid "$@" >>{shlex.quote(str(log))} 2>&1 </dev/null & echo $!'
        enter = shlex.join([*self.enter(init), "/bin/sh", "-c", inner, "sh", *command])
        join = cgroups.join_command(self.layout, self.number, cgroups.SYSTEM)
        done = subprocess.run(
            ["/bin/sh", "-c", f"{join} exec {enter}"],
            capture_output=True, text=True, check=False, env=INSIDE_ENVIRONMENT, cwd="/",
        )  # fmt: skip
        if done.returncode:
            raise TestnetError(f"cannot start {command[0]} on {self.name}: {done.stderr.strip()}")
        try:
            return outside_pid(inner_pid=int(done.stdout), init=init)
        except TestnetError:
            raise TestnetError(f"{command[0]} ended at once on {self.name}: {tail(log)}") from None

    def start_engine(self, init: Process) -> Process:
        """Start dockerd on the host's own data; returns at once, `wait_for_engine` waits."""
        folder = self.folder
        command = [
            "dockerd",
            "--data-root", f"{folder}/root", "--exec-root", "/run/docker", "-p", "/run/docker.pid",
            "-H", f"unix://{folder}/docker.sock", "-H", "unix:///run/docker.sock",
            "--bip", f"172.{30 + self.number}.0.1/16",
            "--default-address-pool", f"base=10.{100 + self.number}.0.0/16,size=24",
            "--exec-opt", "native.cgroupdriver=cgroupfs",
            "--userland-proxy=false", "--live-restore", "--dns", "127.0.0.1", "--log-level", "warn",
        ]  # fmt: skip
        return self.spawn(init, command, self.engine_log)

    def wait_for_engine(self, engine: Process, *, timeout_s: float = 60.0) -> None:
        path = self.engine_url.removeprefix("unix://")
        wait_until(
            lambda: answers(path, "/_ping") or not engine.alive(),
            timeout_s=timeout_s,
            what=f"the engine of {self.name} (see {self.engine_log})",
            interval_s=0.02,
        )
        if not engine.alive():
            raise TestnetError(f"the engine of {self.name} ended: {tail(self.engine_log)}")

    def start_daemon(self, init: Process, arguments: list[str], program: str = str(SWARM)) -> Process:
        """Start `swarm up` (of another version, when `program` says so) with the host's addresses and folders and the arguments
        given."""
        command = [
            program, "up",
            "--name", self.name, "--listen", "0.0.0.0", "--advertise", self.address,
            "--data", f"{self.folder}/swarm", "--socket", SOCKET, "--engine", self.engine_url,
            *arguments,
        ]  # fmt: skip
        return self.spawn(init, command, self.daemon_log)

    def wait_for_daemon(self, init: Process, daemon: Process, *, timeout_s: float = 30.0) -> None:
        path = f"/proc/{init.pid}/root{SOCKET}"
        wait_until(
            lambda: accepts(path) or not daemon.alive(),
            timeout_s=timeout_s,
            what=f"the swarm daemon of {self.name} (see {self.daemon_log})",
            interval_s=0.02,
        )
        if not daemon.alive():
            raise TestnetError(f"the swarm daemon of {self.name} ended: {tail(self.daemon_log)}")

    def run(
        self,
        init: Process,
        command: list[str],
        *,
        text: str | None,
        timeout_s: float,
        environment: dict[str, str],
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host and wait for it; TimeoutExpired when it takes longer."""
        whole = {**INSIDE_ENVIRONMENT, **environment}
        return run_in_group([*self.enter(init), *command], text=text, timeout_s=timeout_s, environment=whole)

    def socket_path(self, init: Process) -> str:
        """The daemon's socket as seen from outside the host."""
        return f"/proc/{init.pid}/root{SOCKET}"


class SharedHost(Host):
    """A daemon beside others on one machine and one engine: a loopback address and folders of its own.

    Its PID 1 is the daemon itself, so that killing the host is killing the daemon.
    """

    def __init__(self, layout: Layout, number: int, engine_url: str) -> None:
        super().__init__(layout, number)
        self.address = layout.loopback(number)
        self.engine_url = engine_url

    def prepare(self, host_count: int) -> None:
        (self.folder / "swarm").mkdir(parents=True, exist_ok=True)

    def spawn(self, init: Process, command: list[str], log: Path) -> Process:
        with log.open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env=self.environment(), cwd="/",
            )  # fmt: skip
        found = identify(child.pid)
        child.returncode = 0  # recorded by pid and start time instead
        return found

    def start_daemon(self, init: Process, arguments: list[str], program: str = str(SWARM)) -> Process:
        command = [
            program, "up",
            "--name", self.name, "--listen", self.address, "--advertise", self.address,
            "--data", f"{self.folder}/swarm", "--socket", self.socket_path(init), "--engine", self.engine_url,
            *arguments,
        ]  # fmt: skip
        return self.spawn(init, command, self.daemon_log)

    def wait_for_daemon(self, init: Process, daemon: Process, *, timeout_s: float = 30.0) -> None:
        path = self.socket_path(init)
        wait_until(
            lambda: accepts(path) or not daemon.alive(),
            timeout_s=timeout_s,
            what=f"the swarm daemon of {self.name} (see {self.daemon_log})",
        )
        if not daemon.alive():
            raise TestnetError(f"the swarm daemon of {self.name} ended: {tail(self.daemon_log)}")

    def run(
        self,
        init: Process,
        command: list[str],
        *,
        text: str | None,
        timeout_s: float,
        environment: dict[str, str],
    ) -> subprocess.CompletedProcess[str]:
        whole = {**self.environment(), **environment}
        return run_in_group(command, text=text, timeout_s=timeout_s, environment=whole)

    def socket_path(self, init: Process) -> str:
        return str(self.folder / "swarm.sock")

    def environment(self) -> dict[str, str]:
        own = {"SWARM_SOCKET": str(self.folder / "swarm.sock"), "DOCKER_HOST": self.engine_url}
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return {**kept, **own}


def run_in_group(
    command: list[str], *, text: str | None, timeout_s: float, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """subprocess.run, but a time-out ends the whole process group: the child of `nsenter` too."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
        cwd="/",
    ) as child:
        try:
            output, errors = child.communicate(text, timeout=timeout_s)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise
    return subprocess.CompletedProcess(command, child.returncode, output, errors)


def answers(path: str, page: str) -> bool:
    """Whether an HTTP server on a Unix socket answers 200."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(path)
            connection.sendall(f"GET {page} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def accepts(path: str) -> bool:
    """Whether somebody listens on a Unix socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(path)
            return True
    except OSError:
        return False


def tail(path: Path, characters: int = 800) -> str:
    try:
        return path.read_text(errors="replace")[-characters:].strip() or "(its log is empty)"
    except FileNotFoundError:
        return "(it left no log)"


def stop_gently(process: Process, *, timeout_s: float) -> None:
    """SIGTERM, and SIGKILL if that was not enough in time."""
    process.send(signal.SIGTERM)
    try:
        wait_until(lambda: not process.alive(), timeout_s=timeout_s, what="")
    except TestnetError:
        process.kill()
