"""A client that asks again and again at a steady pace, whether or not earlier requests were answered.

So the time until something is accepted does not depend on which request had the bad luck to be with a leader that died: the
first success of any counts. It runs in a thread with a loop of its own; a connection carries one request at a time and is used
again when that is answered; at most `CONNECTIONS_MAX` stand.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from testnet.bench.askers import ANSWER_S_MAX, Asker
from testnet.bench.raw import fresh_name
from testnet.processes import wait_until

CONNECTIONS_MAX = 1_000
"""etcd keeps a put for 7 s that came while it had no leader: ten seconds at the pace of `leader_loss.py`."""
PULSE_S_MAX = 120.0
"""A pulse ends by itself after this, whatever its owner does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One accepted request, in seconds of the monotonic clock."""

    sent: float
    accepted: float


@dataclass(slots=True)
class Pulse:
    """`make` makes a connection's asker. What was accepted is in `accepted`, in the order of the answers."""

    make: Callable[[], Asker]
    every_s: float
    accepted: list[Asked] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    skipped: int = 0
    """Beats without a request, since as many as may stand were unanswered."""
    stopping: threading.Event = field(default_factory=threading.Event)

    def accepted_after(self, moment: float) -> float | None:
        """When the first request sent after a moment was accepted."""
        return min((each.accepted for each in list(self.accepted) if each.sent >= moment), default=None)

    def wait_accepted_after(self, moment: float, *, timeout_s: float) -> float:
        """The same, awaited. Raises TestnetError."""
        wait_until(
            lambda: self.accepted_after(moment) is not None, timeout_s=timeout_s, what="a request to be accepted", interval_s=0.02
        )
        found = self.accepted_after(moment)
        assert found is not None
        return found

    def longest_gap_s(self, start: float, end: float) -> float:
        """The longest time without an accepted request between two moments."""
        moments = [start, *sorted(each.accepted for each in list(self.accepted) if start < each.accepted < end), end]
        return max(later - sooner for sooner, later in pairwise(moments))

    async def beat(self) -> None:
        """Until `stopping` is set."""
        free: list[Asker] = []
        asking: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        due = began
        try:
            while not self.stopping.is_set() and due - began < PULSE_S_MAX:
                if len(asking) < CONNECTIONS_MAX:
                    task = asyncio.create_task(self._ask(free))
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                else:
                    self.skipped += 1
                due = max(due + self.every_s, time.monotonic() - self.every_s)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            if asking:
                await asyncio.wait(asking, timeout=1.0)
        finally:
            for task in list(asking):
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            for asker in free:
                asker.close()

    async def _ask(self, free: list[Asker]) -> None:
        asker = free.pop() if free else self.make()
        name = fresh_name("pulse")
        self.names.append(name)
        sent = time.monotonic()
        try:
            accepted = await asker.ask(name)
        except asyncio.CancelledError:
            asker.close()
            raise
        if accepted:
            self.accepted.append(Asked(sent, time.monotonic()))
        free.append(asker)


@contextmanager
def beating(make: Callable[[], Asker], every_s: float) -> Iterator[Pulse]:
    """A pulse while the block runs."""
    pulse = Pulse(make, every_s)
    thread = threading.Thread(target=lambda: asyncio.run(pulse.beat()), name="pulse", daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        pulse.stopping.set()
        thread.join(timeout=ANSWER_S_MAX + 5.0)
