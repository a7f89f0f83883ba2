"""A testnet: hosts brought up, found again by a later command, broken, mended and removed without a trace.

    with Testnet.up(hosts=3) as net:
        net.swarm(1, "task", "submit", "testnet/redis:1")
        net.kill(2)

`up` refuses while one is up; `Testnet.attach()` finds that one. Faults that are more than a start or a kill
are in faults.py. `down` works from the prefix of names alone, so it also clears what a crash left behind.

Promises: a method returns when what it names is true (an engine answers, a dead host's processes are gone).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import docker

from testnet import cgroups, faults, golden, images, network, shared, small_disk, state
from testnet.host import SWARM, Host, SharedHost, stop_gently
from testnet.layout import HOSTS_MAX, Layout, TestnetError, default_layout
from testnet.processes import Process, all_stats, processes_in_network, wait_until, with_descendants
from testnet.state import DAEMON, ENGINE, HostRecord, Record

INIT = "init"
AT_ONCE = 8  # hosts started at the same time: two cores gain nothing from more


class Testnet:
    """One testnet. Hosts are numbered from 1."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @classmethod
    def up(
        cls,
        hosts: int = 3,
        *,
        instance: int | None = None,
        engine: str = "own",
        daemons: bool = True,
        together: bool = False,
        with_images: tuple[str, ...] = images.NAMES,
        one_engine: bool = False,
        disk_mib: int = 0,
    ) -> Self:
        """Bring hosts up; on failure nothing is left. `together` founds by one equal line on every host. With
        `one_engine` all hosts use that of the first: for many daemons that are to run no container. With `disk_mib` the data
        folder of each daemon is on a file system of its own, of that size."""
        if not 1 <= hosts <= HOSTS_MAX:
            raise TestnetError(f"cannot bring up {hosts} hosts: choose 1 to {HOSTS_MAX}")
        layout = default_layout(instance)
        net = cls(layout)
        if layout.record.exists():
            raise TestnetError(f"a testnet is up in {layout.state}: `./testnet/run down` removes it")
        net.down()  # what a crash left
        layout.state.mkdir(parents=True, exist_ok=True)
        try:
            if engine == "shared":
                shared.prepare(layout, hosts, with_images)
            else:
                net.prepare_hosts(hosts, with_images, one_engine=one_engine, disk_mib=disk_mib)
            if daemons:
                net.start_cluster(together=together)
        except BaseException:
            net.down()
            raise
        return net

    @classmethod
    def attach(cls, *, instance: int | None = None) -> Self:
        """The testnet that is up."""
        net = cls(default_layout(instance))
        state.load(net.layout)
        return net

    @classmethod
    def found(cls, *, instance: int | None = None) -> Self:
        """The testnet of this instance, up or in pieces: for `down`."""
        return cls(default_layout(instance))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    # What is there

    @property
    def record(self) -> Record:
        return state.load(self.layout)

    @property
    def hosts(self) -> list[int]:
        return sorted(self.record.hosts)

    @property
    def living_hosts(self) -> list[int]:
        return [number for number in self.hosts if self.alive(number)]

    def host(self, number: int) -> Host:
        record = self.record
        if number not in record.hosts:
            raise TestnetError(f"there is no host {number}: this testnet has {', '.join(map(str, sorted(record.hosts)))}")
        if record.engine == "shared":
            return SharedHost(self.layout, number, record.engine_url)
        return Host(self.layout, number)

    def process(self, number: int, name: str) -> Process | None:
        """What was started last as init, engine or daemon of a host; it may be dead."""
        return self.record.hosts[number].processes.get(name)

    def init(self, number: int) -> Process:
        """The host's PID 1."""
        found = self.process(number, INIT)
        return found if found is not None else Process(pid=0, start_ticks=0)

    def alive(self, number: int) -> bool:
        self.host(number)
        found = self.process(number, INIT if self.record.engine == "own" else DAEMON)
        return found is not None and found.alive()

    def address(self, number: int) -> str:
        return self.host(number).address

    def engine(self, number: int) -> str:
        """The URL of the host's engine, usable from outside the host."""
        return self.host(number).engine_url

    def docker(self, number: int, *, timeout_s: int = 30) -> docker.DockerClient:
        """A client of the host's engine; close it."""
        return docker.DockerClient(base_url=self.engine(number), timeout=timeout_s)

    def daemon_socket(self, number: int) -> str:
        """The daemon's Unix socket, usable from outside the host while this boot lasts."""
        return self.host(number).socket_path(self.init(number))

    def data_folder(self, number: int) -> Path:
        """The daemon's, as seen from outside the host."""
        return self.host(number).folder / "swarm"

    def run(
        self, number: int, *command: str, text: str | None = None, timeout_s: float = 60.0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run any command inside a host."""
        host = self.host(number)
        return host.run(self.init(number), list(command), text=text, timeout_s=timeout_s, environment=environment)

    def swarm(
        self, number: int, *arguments: str, text: str | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `swarm ARGUMENTS` on a host, against the daemon there."""
        return self.run(number, str(SWARM), *arguments, text=text, timeout_s=timeout_s)

    def swarm_json(self, number: int, *arguments: str, timeout_s: float = 60.0) -> object:
        """The parsed output of `swarm ARGUMENTS -o json`; TestnetError quotes what a failing command said."""
        done = self.swarm(number, *arguments, "-o", "json", timeout_s=timeout_s)
        if done.returncode:
            raise TestnetError(f"`swarm {' '.join(arguments)}` on host {number} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    # Starting

    def prepare_hosts(
        self, count: int, with_images: tuple[str, ...], *, one_engine: bool = False, disk_mib: int = 0
    ) -> None:
        """Make the network, boot every host and start every engine, with the images in it."""
        network.require_tools()
        store = golden.golden_store(with_images) if with_images else None
        state.save(self.layout, Record(engine="own", hosts={n: HostRecord(number=n) for n in range(1, count + 1)}))
        network.create_bridge(self.layout)
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            list(pool.map(lambda number: self.prepare_host(number, count, disk_mib), range(1, count + 1)))
            own = range(1, 2 if one_engine else count + 1)
            list(pool.map(lambda number: self.first_boot(number, store, with_images), own))
            list(pool.map(self.first_boot_on_the_first, range(own.stop, count + 1)))

    def prepare_host(self, number: int, count: int, disk_mib: int) -> None:
        self.host(number).prepare(count)
        if disk_mib:
            small_disk.mount(self.data_folder(number), disk_mib)

    def first_boot(self, number: int, store: Path | None, with_images: tuple[str, ...]) -> None:
        host = self.host(number)
        if store is not None:
            golden.seed(store, host.folder / "root")
        self.boot(number)
        images.load_missing(host.engine_url, with_images)

    def first_boot_on_the_first(self, number: int) -> None:
        """A host whose engine is the first host's."""
        host = self.host(number)
        (host.folder / "docker.sock").symlink_to(self.engine(1).removeprefix("unix://"))
        self.note(number, INIT, host.start_init())

    def boot(self, number: int) -> None:
        """Start PID 1 and the engine."""
        host = self.host(number)
        init = host.start_init()
        self.note(number, INIT, init)
        self.restart_engine(number)

    def note(self, number: int, name: str, process: Process) -> None:
        with state.editing(self.layout) as record:
            record.hosts[number].processes[name] = process

    def start_cluster(self, *, together: bool) -> None:
        """Start a daemon on every host as one cluster, and wait until every node sees all alive."""
        self.new_token()
        for number in self.hosts:
            self.start_daemon(number, self.daemon_arguments(number, together=together), wait=False)
            if number == 1 and not together:
                self.wait_for_daemon(1)
        for number in self.hosts:
            self.wait_for_daemon(number)
        self.wait_for_nodes(self.hosts)

    def new_token(self) -> None:
        done = subprocess.run([str(SWARM), "token", "new"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestnetError(f"`swarm token new` failed: {done.stderr.strip()}")
        self.layout.token.touch(mode=0o600)
        self.layout.token.write_text(done.stdout.strip() + "\n")

    def daemon_arguments(self, number: int, *, together: bool = False) -> list[str]:
        """Founding, joining, restarting: what follows addresses and folders on the line of `swarm up`."""
        token = ["--token-file", str(self.layout.token)]
        if together:
            return [*token, "--peers", ",".join(self.address(other) for other in self.hosts)]
        if number == 1:
            return [*token, "--found"]
        return [*token, "--peers", self.address(1)]

    def start_daemon(self, number: int, arguments: list[str], *, wait: bool = True, program: str = str(SWARM)) -> None:
        """`program` is the `swarm` to run: that of this repository, or another version of it."""
        daemon = self.host(number).start_daemon(self.init(number), arguments, program)
        with state.editing(self.layout) as record:
            record.hosts[number].processes[DAEMON] = daemon
            record.hosts[number].daemon_arguments = arguments
        if wait:
            self.wait_for_daemon(number)

    def wait_for_daemon(self, number: int) -> None:
        daemon = self.process(number, DAEMON)
        if daemon is not None:
            self.host(number).wait_for_daemon(self.init(number), daemon)

    def wait_for_nodes(self, numbers: list[int], *, seen_by: int | None = None, timeout_s: float = 60.0) -> None:
        """Wait until the nodes of these hosts are alive in the eyes of one of them, and there is a leader."""
        observer = numbers[0] if seen_by is None else seen_by
        wanted = {f"h{number}" for number in numbers}

        def all_seen() -> bool:
            done = self.swarm(observer, "node", "ls", "-o", "json")
            nodes = json.loads(done.stdout) if done.returncode == 0 else []
            alive = {node["name"] for node in nodes if node["status"] == "alive"}
            return wanted <= alive and any(node["leader"] for node in nodes)

        wait_until(all_seen, timeout_s=timeout_s, what=f"the cluster of {len(numbers)} nodes", interval_s=0.1)

    def leader(self, *, seen_by: int | None = None) -> int | None:
        """The number of the host whose node leads, or None."""
        observer = self.living_hosts[0] if seen_by is None else seen_by
        nodes = self.swarm_json(observer, "node", "ls")
        assert isinstance(nodes, list)
        return next((int(node["name"][1:]) for node in nodes if node["leader"]), None)

    # Breaking and mending

    def kill(self, number: int) -> float:
        """A power cut: everything on the host is gone at once, and nothing answers for it. When it began, in seconds UTC."""
        return faults.kill(self, number)

    def revive(self, number: int, *, wait: bool = True) -> None:
        """Boot a dead host on the data it had; its daemon starts again if it had one."""
        faults.revive(self, number, wait=wait)

    def crash_daemon(self, number: int) -> None:
        """SIGKILL the daemon alone; containers and engine live on."""
        self.required(number, DAEMON).kill()

    def stop_daemon(self, number: int, *, timeout_s: float = 30.0) -> None:
        """SIGTERM the daemon: a pause that it announces."""
        stop_gently(self.required(number, DAEMON), timeout_s=timeout_s)

    def restart_daemon(self, number: int, *, wait: bool = True) -> None:
        """Start the daemon again on its data, if it does not run."""
        record = self.record.hosts[number]
        running = record.processes.get(DAEMON)
        if running is not None and running.alive():
            return
        arguments = record.daemon_arguments or self.daemon_arguments(number)
        self.start_daemon(number, arguments, wait=wait)

    def crash_engine(self, number: int) -> None:
        """SIGKILL dockerd alone; its containers live on."""
        faults.require_own_engine(self, "crash-engine")
        self.required(number, ENGINE).kill()

    def restart_engine(self, number: int) -> None:
        """Start the host's engine again, if it does not run, and wait until it answers."""
        faults.require_own_engine(self, "restart-engine")
        running = self.process(number, ENGINE)
        host = self.host(number)
        if running is None or not running.alive():
            running = host.start_engine(self.init(number))
            self.note(number, ENGINE, running)
        host.wait_for_engine(running)

    def required(self, number: int, name: str) -> Process:
        self.host(number)
        found = self.process(number, name)
        if found is None or not found.alive():
            raise TestnetError(f"host {number} has no running {name}")
        return found

    def cut(self, first: int, second: int, *, one_way: bool = False) -> None:
        """Drop what `first` sends to `second`, and unless `one_way` the other direction too."""
        faults.cut(self, first, second, one_way=one_way)

    def isolate(self, number: int) -> None:
        """Cut a host off from all others."""
        for other in self.hosts:
            if other != number:
                self.cut(number, other)

    def heal(self) -> None:
        """Undo every cut, loss and rate limit between hosts."""
        faults.heal(self)

    def freeze(self, number: int, *, daemon: bool = False, silent: bool = False) -> None:
        """Stop a host's processes, or its daemon's alone; `silent` takes the link down too."""
        faults.freeze(self, number, daemon=daemon, silent=silent)

    def thaw(self, number: int) -> None:
        faults.thaw(self, number)

    # Removing

    def down(self) -> None:
        """Remove everything this testnet made, whether or not its record is whole."""
        if not self.layout.state.exists() and not network.present(self.layout):
            return
        recorded = self.surviving_record()
        if network.present(self.layout):
            self.end_hosts(recorded)
        else:
            shared.remove(self.layout, recorded)
        small_disk.unmount_below(self.layout.state)
        if self.layout.state.exists():
            shutil.rmtree(self.layout.state)

    def surviving_record(self) -> Record | None:
        try:
            return state.load(self.layout)
        except (TestnetError, ValueError, KeyError, TypeError):
            return None

    def end_hosts(self, recorded: Record | None) -> None:
        """Kill by record, then by network namespace until none is left, then remove names."""
        for folder in network.host_numbers(self.layout):
            cgroups.thaw(self.layout, folder)
        processes = [process for host in (recorded.hosts.values() if recorded else ()) for process in host.processes.values()]
        for process in processes:
            process.send(9)
        for name in network.namespace_names(self.layout):
            inode = network.namespace_inode(name)

            def emptied(inode: int = inode) -> bool:
                left = processes_in_network(inode)
                for process in left:
                    for each in with_descendants([process.pid], all_stats()):
                        each.send(9)
                return not left

            wait_until(emptied, timeout_s=20.0, what=f"the processes in {name} to end")
        network.remove_all(self.layout)
        cgroups.remove_all(self.layout)
