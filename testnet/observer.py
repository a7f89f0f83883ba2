"""An observer outside the daemons: which containers really ran on which host, and when.

One thread per engine listens to its events and turns them into intervals. An engine that is down says
nothing, so while it is away the kernel is asked instead: a container runs as long as its cgroup holds
processes. When the engine is back, its list of containers corrects what was missed. Times are CLOCK_BOOTTIME
seconds, those of the engine's own events where there are any; without them (a power cut) they are exact to
about 20 ms.

Promises: it reads only; it needs no daemon of ours; two containers of one task that were alive at the same
time appear as two overlapping intervals, whatever the daemons believed.
"""

from __future__ import annotations

import calendar
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from testnet import cgroups
from testnet.cluster import Testnet
from testnet.processes import wait_until
from testnet.shared import LABEL_TASK_NAME

POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Interval:
    """One run of one container. `end_s` is None while it runs; `exit_code` is None where nobody knew."""

    host: int
    container: str
    name: str
    labels: dict[str, str] = field(repr=False)
    start_s: float
    end_s: float | None = None
    exit_code: int | None = None

    @property
    def task(self) -> str:
        """The name of the task it belongs to, or of the container where no daemon of ours made it."""
        return self.labels.get(LABEL_TASK_NAME, self.name)

    def covers(self, at_s: float) -> bool:
        return self.start_s <= at_s and (self.end_s is None or at_s < self.end_s)


class Observer:
    """Watches every host of a testnet while its block runs."""

    def __init__(self, net: Testnet) -> None:
        self.net = net
        self.lock = threading.Lock()
        self.finished: list[Interval] = []
        self.open: dict[tuple[int, str], Interval] = {}
        self.stopping = threading.Event()
        hosts = net.hosts if net.record.engine == "own" else net.hosts[:1]
        self.watches = [Watch(self, number) for number in hosts]

    def __enter__(self) -> Self:
        for watch in self.watches:
            watch.thread.start()
        for watch in self.watches:
            watch.caught_up.wait(timeout=10.0)
        return self

    def __exit__(self, *details: object) -> None:
        self.stopping.set()
        for watch in self.watches:
            watch.thread.join(timeout=10.0)

    # What was seen

    def intervals(self, task: str | None = None) -> list[Interval]:
        """All runs so far, or those of one task, by start time."""
        with self.lock:
            found = [*self.finished, *self.open.values()]
        chosen = [interval for interval in found if task is None or interval.task == task]
        return sorted(chosen, key=lambda interval: (interval.start_s, interval.container))

    def running(self, task: str | None = None) -> list[Interval]:
        return [interval for interval in self.intervals(task) if interval.end_s is None]

    def copies(self, task: str) -> list[tuple[float, int]]:
        """How many copies of a task ran, as (time, count) at each change."""
        changes: list[tuple[float, int]] = []
        for interval in self.intervals(task):
            changes.append((interval.start_s, 1))
            if interval.end_s is not None:
                changes.append((interval.end_s, -1))
        count, steps = 0, []
        for at_s, change in sorted(changes):
            count += change
            steps.append((at_s, count))
        return steps

    def copies_max(self, task: str, *, since_s: float = 0.0) -> int:
        """The largest number of copies of a task that ran at the same time, from a moment on."""
        before = sum(1 for interval in self.intervals(task) if interval.covers(since_s))
        return max([before, *(count for at_s, count in self.copies(task) if at_s >= since_s)])

    def absence_s(self, task: str, *, since_s: float, until_s: float) -> float:
        """For how many of these seconds no copy of a task ran."""
        edges = [since_s, *(at_s for at_s, _ in self.copies(task) if since_s < at_s < until_s), until_s]
        intervals = self.intervals(task)
        return sum(
            later - earlier for earlier, later in pairwise(edges) if not any(interval.covers(earlier) for interval in intervals)
        )

    def wait_for(self, condition: Callable[[Self], object], *, timeout_s: float, what: str) -> None:
        wait_until(lambda: condition(self), timeout_s=timeout_s, what=what)

    # What the watches report

    def note_start(self, seen: Interval) -> None:
        with self.lock:
            self.open.setdefault((seen.host, seen.container), seen)

    def note_end(self, host: int, container: str, *, at_s: float, exit_code: int | None = None) -> None:
        with self.lock:
            found = self.open.pop((host, container), None)
            if found is not None:
                ended = replace(found, end_s=max(at_s, found.start_s), exit_code=exit_code)
                self.finished.append(ended)

    def open_on(self, host: int) -> list[str]:
        with self.lock:
            return [container for number, container in self.open if number == host]


class Watch:
    """The thread that follows one engine through its deaths and returns."""

    def __init__(self, observer: Observer, number: int) -> None:
        self.observer = observer
        self.number = number
        self.layout = observer.net.layout
        self.own = observer.net.record.engine == "own"
        self.path = observer.net.engine(number).removeprefix("unix://")
        self.caught_up = threading.Event()
        self.thread = threading.Thread(target=self.run, name=f"observer-h{number}", daemon=True)

    def run(self) -> None:
        while not self.observer.stopping.is_set():
            try:
                self.follow()
            except (OSError, ValueError, KeyError):
                self.ask_kernel()  # the engine went away or speaks in pieces; the next turn starts afresh
                self.observer.stopping.wait(POLL_S)

    def follow(self) -> None:
        """Subscribe, then list, so that nothing falls between; then read events until the engine goes."""
        filters = quote(json.dumps({"type": ["container"], "event": ["start", "die"]}))
        with request(self.path, f"/events?filters={filters}") as stream:
            self.read_list()
            self.caught_up.set()
            for line in lines(stream, self.observer.stopping):
                self.on_event(json.loads(line))
        raise ConnectionError("the engine closed its events")

    def read_list(self) -> None:
        """Correct the record by what the engine says runs now."""
        with request(self.path, "/containers/json") as stream:
            listed = json.loads(b"".join(lines(stream, self.observer.stopping)))
        found = {}
        for entry in listed:
            with request(self.path, f"/containers/{entry['Id']}/json") as stream:
                details = json.loads(b"".join(lines(stream, self.observer.stopping)))
            found[entry["Id"]] = details
        for container in self.observer.open_on(self.number):
            if container not in found:
                self.observer.note_end(self.number, container, at_s=boottime_s())
        for container, details in found.items():
            if details.get("State", {}).get("Running"):
                self.observer.note_start(
                    Interval(
                        host=self.number,
                        container=container,
                        name=details["Name"].lstrip("/"),
                        labels=details["Config"].get("Labels") or {},
                        start_s=from_utc(details["State"]["StartedAt"]),
                    )
                )

    def on_event(self, event: dict[str, Any]) -> None:
        attributes = event["Actor"]["Attributes"]
        at_s = event["timeNano"] / 1e9 - wall_minus_boottime_s()
        container = event["Actor"]["ID"]
        if event["Action"] == "start":
            seen = Interval(
                host=self.number,
                container=container,
                name=attributes.get("name", ""),
                labels=attributes,
                start_s=at_s,
            )
            self.observer.note_start(seen)
        elif event["Action"] == "die":
            code = attributes.get("exitCode", "")
            self.observer.note_end(self.number, container, at_s=at_s, exit_code=int(code) if code.isdigit() else None)

    def ask_kernel(self) -> None:
        """With the engine away, end the intervals whose container has no process left."""
        if not self.own:
            return  # a shared engine's containers may lie in any cgroup
        folders = cgroups.container_folders(self.layout, self.number)
        alive = {folder.name for folder in folders if has_processes(folder)}
        for container in self.observer.open_on(self.number):
            if container not in alive:
                self.observer.note_end(self.number, container, at_s=boottime_s())


def has_processes(folder: Path) -> bool:
    try:
        return bool((folder / "cgroup.procs").read_text().strip())
    except OSError:
        return False


def request(path: str, page: str) -> socket.socket:
    """Send a GET to a Unix socket; the answer's head is still to be read. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(POLL_S)
        connection.connect(path)
        connection.sendall(f"GET {page} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
    except OSError:
        connection.close()
        raise
    return connection


def lines(connection: socket.socket, stopping: threading.Event) -> Iterator[bytes]:
    """The lines of an answer's body as they come; ends when the engine closes or the observer stops."""
    pending, in_body = b"", False
    while not stopping.is_set():
        try:
            received = connection.recv(65536)
        except TimeoutError:
            continue
        pending += received
        if not in_body and b"\r\n\r\n" in pending:
            head, _, pending = pending.partition(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise ConnectionError(f"the engine answered {head[:60]!r}")
            in_body = True
        while in_body and b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            yield line
        if not received:
            if in_body and pending:
                yield pending
            return


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_minus_boottime_s() -> float:
    return time.time() - boottime_s()


def from_utc(text: str) -> float:
    """An engine's time such as 2024-05-01T10:00:00.123456789Z as CLOCK_BOOTTIME seconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")
    return seconds - wall_minus_boottime_s()
