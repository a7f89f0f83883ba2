"""Clients of a cluster in trouble: they submit, remove and list through any node, and write down what they asked and were told.

Each is a thread with connections of its own. A write that broke off is asked again under its request id, through other nodes,
for up to `ASK_AGAIN_S`; only then its outcome counts as unknown. Most tasks wait for ever for a node that does not exist, so that
the log is what is tested; every `REAL_EVERY`th is a container.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from swarm.client.client import Client, new_request_id, task_path
from swarm.errors import DiskFull, NotFound, OperatorError, UnknownOutcome
from testnet.cluster import Testnet
from testnet.layout import TestnetError
from testnet.observer import boottime_s
from testnet.soak.history import History, Outcome, Read, Write

ASK_AGAIN_S = 20.0
REAL_EVERY = 12
WORK = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
NOWHERE = ["node.labels.nowhere==yes"]
"""Holds for no node: what is bound by it waits for ever."""
REFUSALS = (OperatorError, TestnetError)


class Hammer(threading.Thread):
    """One client. `pace_s` between its requests; ends when `stopping` is set."""

    def __init__(self, net: Testnet, number: int, seed: int, history: History, stopping: threading.Event, pace_s: float) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.counts: Counter[str] = Counter()
        self.real: set[str] = set()
        """Containers of mine that were acknowledged and not removed since."""
        self.longest_without_write_s = 0.0
        self._net = net
        self._number = number
        self._rng = random.Random(f"{seed}/{number}")
        self._history = history
        self._stopping = stopping
        self._pace_s = pace_s
        self._made = 0
        self._waiting: list[str] = []
        self._accepted_at = boottime_s()

    def run(self) -> None:
        while not self._stopping.wait(self._pace_s * self._rng.uniform(0.5, 1.5)):
            what = self._rng.random()
            if what < 0.35:
                self._read()
            elif what < 0.5 and self._waiting:
                self._remove(self._waiting.pop(self._rng.randrange(len(self._waiting))))
            else:
                self._submit()

    # ---- what is asked

    def _read(self) -> None:
        number, called = self._some_node(), boottime_s()
        try:
            with self._client(number) as client:
                answer = client.get("/v1/tasks")
        except REFUSALS:
            self.counts["reads refused"] += 1
            return
        if answer.stale_s is not None:
            self.counts["reads marked stale"] += 1
            return
        self.counts["reads"] += 1
        names = frozenset(str(row["name"]) for row in answer.content if not row["removing"])
        read = Read(called, boottime_s(), number, names)
        self._history.note(lambda history: history.reads.append(read))

    def _submit(self) -> None:
        self._made += 1
        name = f"s{self._number}-{self._made}"
        is_real = self._made % REAL_EVERY == 0
        document = {"name": name, "image": "testnet/busybox:1", "command": WORK, "stop_grace": "1s"}
        if not is_real:
            document["constraints"] = NOWHERE
        write = self._ask("POST", "/v1/tasks", {"task": document})
        self._history.note(lambda history: history.submits.__setitem__(name, write))
        if write.outcome is Outcome.DONE:
            (self.real.add if is_real else self._waiting.append)(name)

    def _remove(self, name: str) -> None:
        write = self._ask("DELETE", task_path(name), None, {"force": 1})
        self._history.note(lambda history: history.removals.__setitem__(name, write))

    def _ask(self, method: str, path: str, body: object, query: dict[str, object] | None = None) -> Write:
        """A write, asked until its outcome is known or that has taken too long."""
        request_id, called, is_unknown = new_request_id(), boottime_s(), False
        while True:
            try:
                with self._client(self._some_node()) as client:
                    client.write(method, path, body, query, request_id=request_id)
                return self._told(called, Outcome.DONE)
            except UnknownOutcome:
                is_unknown = True
            except NotFound:
                return self._told(called, Outcome.UNKNOWN if is_unknown or method == "DELETE" else Outcome.REFUSED)
            except REFUSALS as refusal:
                if isinstance(refusal, DiskFull):
                    self.counts["refusals for want of room"] += 1
                if not is_unknown:
                    return self._told(called, Outcome.REFUSED)
            if boottime_s() - called > ASK_AGAIN_S:
                return self._told(called, Outcome.UNKNOWN)
            time.sleep(0.2)

    def _told(self, called: float, outcome: Outcome) -> Write:
        self.counts[f"writes {outcome.value}"] += 1
        now = boottime_s()
        if outcome is Outcome.DONE:
            self.longest_without_write_s = max(self.longest_without_write_s, now - self._accepted_at)
            self._accepted_at = now
        return Write(called, now, outcome)

    # ---- whom

    def _some_node(self) -> int:
        return self._rng.choice(self._net.hosts)

    def _client(self, number: int) -> Client:
        """Of a node that may be dead: then no request is carried out."""
        try:
            path = self._net.daemon_socket(number)
        except (TestnetError, KeyError, OSError):
            path = "/nonexistent/swarm.sock"
        return Client(socket_path=path)
