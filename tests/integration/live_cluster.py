"""A cluster on emulated hosts and an observer outside its daemons that counts real containers.

Waits are polls with a deadline (`eventually`); that nothing happens is shown by watching the observer for a time.
`Kept` keeps clusters from test to test and mends them: faults undone, hosts and daemons up, tasks removed, drains
taken back. A cluster that cannot be mended is thrown away and the next test gets a fresh one, so that one failure
does not become many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from subprocess import CompletedProcess
from typing import Any

from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.host import tail
from testnet.layout import TestnetError
from testnet.observer import Interval, Observer, boottime_s
from testnet.processes import wait_until
from testnet.state import DAEMON

LABEL_CLUSTER = "swarm.cluster"
BUSYBOX = "testnet/busybox:1"
# Works until it is told to stop, and then stops at once: as PID 1 a bare `sleep` ignores SIGTERM.
WORK = (BUSYBOX, "sh", "-c", "trap 'exit 0' TERM; echo working; while :; do sleep 1 & wait $!; done")
Run = tuple[int, str, float]  # host, container, start


def eventually(condition: Callable[[], object], what: str, *, timeout_s: float = 20.0, interval_s: float = 0.1) -> None:
    """Poll until the condition holds. A command that fails for a moment (no leader yet) is one more 'not yet'."""
    last: list[str] = []

    def holds() -> object:
        try:
            return condition()
        except (TestnetError, KeyError) as problem:
            last[:] = [repr(problem)]
            return False

    try:
        wait_until(holds, timeout_s=timeout_s, what=what, interval_s=interval_s)
    except TestnetError as problem:
        raise AssertionError(f"{problem}; last trouble: {''.join(last) or 'none'}") from None


class Cluster:
    """A testnet with daemons, and the observer of the present test."""

    def __init__(self, net: Testnet, observer: Observer) -> None:
        self.net = net
        self.observer = observer
        self.identity = self.json(1, "status")["cluster_id"]

    # Commands

    def swarm(self, number: int, *arguments: str, timeout_s: float = 40.0) -> CompletedProcess[str]:
        return self.net.swarm(number, *arguments, timeout_s=timeout_s)

    def ok(self, number: int, *arguments: str, timeout_s: float = 40.0) -> str:
        """What a command that must succeed prints."""
        done = self.swarm(number, *arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"`swarm {' '.join(arguments)}` on h{number}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, number: int, *arguments: str, timeout_s: float = 40.0) -> CompletedProcess[str]:
        """A command that must fail as an operator's mistake does: a code, one clear error, no traceback."""
        done = self.swarm(number, *arguments, timeout_s=timeout_s)
        assert_clear_error(done)
        return done

    def submit(self, name: str, *options: str, node: int = 1, work: tuple[str, ...] = WORK) -> None:
        """Submit a task and wait until it runs."""
        self.ok(node, "task", "submit", "--stay-up", "0", "--name", name, *options, *work)

    def json(self, number: int, *arguments: str) -> Any:
        return self.net.swarm_json(number, *arguments, timeout_s=40.0)

    def tasks(self, number: int = 1) -> dict[str, dict[str, Any]]:
        """The tasks by name, as `task ls` on a host gives them."""
        return {task["name"]: task for task in self.json(number, "task", "ls")}

    def nodes(self, number: int = 1) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in self.json(number, "node", "ls")}

    def leader(self, *, seen_by: int | None = None) -> int:
        """The leader's host, waited for."""
        found: list[int] = []

        def known() -> bool:
            number = self.net.leader(seen_by=seen_by)
            found[:] = [] if number is None else [number]
            return bool(found)

        eventually(known, "a leader", timeout_s=15.0)
        return found[0]

    def others(self, *numbers: int) -> list[int]:
        return [number for number in self.net.hosts if number not in numbers]

    def daemon_alive(self, number: int) -> bool:
        found = self.net.process(number, DAEMON)
        return found is not None and found.alive()

    # What really runs

    def runs(self, name: str | None = None) -> set[Run]:
        """The containers of tasks that run now, as host, container and start."""
        return {run_of(each) for each in self.observer.running(name) if each.labels.get(LABEL_CLUSTER) == self.identity}

    def host_of(self, name: str) -> int:
        """The one host that a task runs on, told by the engines."""
        found = self.runs(name)
        assert len(found) == 1, f"{name} runs {len(found)} times: {found}"
        return next(iter(found))[0]

    def runs_on(self, host: int) -> set[Run]:
        return {run for run in self.runs() if run[0] == host}

    def wait_runs(self, name: str, *, on: list[int] | None = None, timeout_s: float = 20.0) -> None:
        """Wait until exactly one copy runs, and that on one of these hosts."""

        def settled() -> bool:
            found = self.runs(name)
            return len(found) == 1 and (on is None or next(iter(found))[0] in on)

        eventually(settled, f"one copy of {name} on {on or 'any host'}", timeout_s=timeout_s, interval_s=0.02)

    def watch_nothing_changes(self, expected: set[Run], *, seconds: float) -> None:
        """Look at what runs all this time; fails at the first difference."""
        until = boottime_s() + seconds
        wait_until(lambda: boottime_s() >= until or self.runs() != expected, timeout_s=seconds + 5, what="a change")
        now = self.runs()
        assert now == expected, f"ended: {expected - now}; started: {now - expected}"

    def end_container(self, name: str) -> None:
        """Kill a task's container behind its daemon's back."""
        (interval,) = self.observer.running(name)
        client = self.net.docker(interval.host)
        try:
            client.containers.get(interval.container).kill()
        finally:
            client.close()

    def three_workers(self, *options: str) -> dict[int, str]:
        """A task on each host, which may move; by host."""
        for name in ("a", "b", "c"):
            self.submit(name, *options)
        return {self.host_of(name): name for name in ("a", "b", "c")}

    # Faults and mending

    def kill(self, *numbers: int) -> None:
        """Power cuts at the same moment."""
        at_once(self.net.kill, *numbers)

    def revive(self, *numbers: int) -> None:
        at_once(self.net.revive, *numbers)

    def wait_all_alive(self, *, timeout_s: float = 30.0) -> None:
        """Wait until every node sees every node alive with its engine, and a leader."""
        for number in self.net.hosts:
            self.net.wait_for_nodes(self.net.hosts, seen_by=number, timeout_s=timeout_s)
            eventually(lambda number=number: self.engines_up(number), f"all engines to be up in the eyes of h{number}")

    def wait_writable(self, number: int) -> None:
        """Wait until a node says that there is a quorum and a leader."""
        eventually(lambda: self.swarm(number, "status").returncode == 0, f"a quorum in the eyes of h{number}")

    def wait_voters(self, count: int) -> None:
        def voters() -> int:
            return sum(node["role"] == "voter" for node in self.nodes().values())

        eventually(lambda: voters() == count, f"{count} voters", timeout_s=30.0)

    def engines_up(self, number: int) -> bool:
        return all(node["engine"] == "up" for node in self.nodes(number).values() if node["status"] != "left")

    def mend(self) -> None:
        """Back to the state after founding, but for the log."""
        self.net.heal()
        for number in self.net.hosts:
            self.net.thaw(number)
        at_once(self.revive_all_of, *self.net.hosts)
        try:
            self.wait_all_alive(timeout_s=60.0)
        except TestnetError as problem:
            raise TestnetError(f"{problem}\n{self.diagnosis()}") from None
        for name, node in self.nodes().items():
            if node.get("availability", "active") != "active":
                self.ok(1, "node", "activate", name)
        self.remove_tasks()

    def revive_all_of(self, number: int) -> None:
        if not self.net.alive(number):
            self.net.revive(number)
        self.net.restart_engine(number)
        self.net.restart_daemon(number)

    def remove_tasks(self) -> None:
        """Stop and forget every task, and wait until no container of any runs."""
        names = [task["id"] for task in self.json(1, "task", "ls")]
        if names:
            self.ok(1, "task", "rm", "--force", *names)
        eventually(lambda: not self.runs(), "all containers of tasks to end", timeout_s=30.0)
        eventually(lambda: not self.json(1, "task", "ls"), "all tasks to be forgotten", timeout_s=30.0)

    def diagnosis(self) -> str:
        """What a person would look at after a failure."""
        parts = ["ran:", *map(str, self.observer.intervals())]
        for number in self.net.living_hosts[:1]:
            for command in (("node", "ls"), ("task", "ls")):
                done = self.swarm(number, *command)
                parts.append(f"h{number}$ swarm {' '.join(command)}\n{done.stdout}{done.stderr}")
        parts += [f"log of h{number}:\n{tail(self.net.host(number).daemon_log, 2500)}" for number in self.net.hosts]
        return "\n\n".join(parts)


def run_of(interval: Interval) -> Run:
    return interval.host, interval.container[:12], interval.start_s


def at_once(act: Callable[[int], object], *numbers: int) -> None:
    with ThreadPoolExecutor(max_workers=max(len(numbers), 1)) as pool:
        list(pool.map(act, numbers))


def assert_clear_error(done: CompletedProcess[str]) -> None:
    """Non-zero, `error:` exactly once, nothing that only its programmer could read."""
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 70, 139), f"exit code {done.returncode}: {said}"
    assert done.stderr.count("error:") == 1, f"not one clear error: {said}"
    assert "Traceback" not in said, said


class Kept:
    """Clusters that outlive a test: made when first wanted, thrown away when one cannot be mended."""

    def __init__(self, *, together: bool = False) -> None:
        self.together = together
        self.stack = ExitStack()
        self.cluster: Cluster | None = None

    def get(self, hosts: int, voters: int = 3) -> Cluster:
        if self.cluster is None:
            instance = self.stack.enter_context(reserved_instance())
            net = self.stack.enter_context(Testnet.up(hosts=hosts, instance=instance, together=self.together))
            self.cluster = Cluster(net, Observer(net))
            self.cluster.wait_all_alive()
            self.cluster.wait_voters(voters)
        return self.cluster

    @contextmanager
    def lent(self, hosts: int, *, voters: int = 3, mend: bool = True) -> Iterator[Cluster]:
        """The cluster for one test, with an observer of its own; mended at the end if others are to use it."""
        cluster = self.get(hosts, voters)
        with Observer(cluster.net) as observer:
            cluster.observer = observer
            yield cluster
            if mend:
                self.mend()

    def mend(self) -> None:
        if self.cluster is not None:
            try:
                self.cluster.mend()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self.cluster = None
        self.stack.close()
