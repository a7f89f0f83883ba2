"""One life of one daemon: the real cores, composed as the drivers compose them, in a process that can stop anywhere.

An input goes to its part (replica, gossip, runner side, duties); what the cores then ask for is carried out one effect after the
other, in order. Between any two effects the process can be frozen, so that the rest of the batch happens late, or killed, so
that it never happens. While it is frozen inputs wait: what comes by the network as in the kernel's buffers, a bounded number of
them, and what its own threads and timers have for it without a bound, for none of that is ever lost. When it runs again the
rest of the batch comes first, then `on_stall`, then what waited: the drivers tell a stall before any other input.

Promise: nothing of a daemon happens after its end, and no core is fed from inside its own effects.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from swarm.model.ids import NodeId
from swarm.simulation.scene import Scene, brief
from swarm.simulation.streams import Reply

if TYPE_CHECKING:
    from swarm.simulation.host import Host

STALL_S = 0.5
"""Longer gaps are told to the cores, as the drivers do."""
INBOX_MAX = 2000
"""So much of the network's waits for a frozen process."""
UNTOLD = ("SendPacket", "NoneType", "tuple")
"""Left out of the story: pings, and what tells itself when it is done."""
LAG_S = 0.002
"""A loop that is awake is late by up to this much."""


class Core(Protocol):
    """What every core takes and gives."""

    @property
    def next_deadline(self) -> float: ...
    def tick(self, now: float) -> None: ...
    def on_stall(self, gap_s: float, now: float) -> None: ...
    def take_effects(self) -> list[Any]: ...
    def check(self) -> None: ...


class Part(Protocol):
    """A core with its driver's share of the work."""

    name: str
    dirty: bool
    """It was fed: its effects are to be taken and its deadline looked at."""

    @property
    def core(self) -> Core: ...
    def carry_out(self, effect: Any) -> None: ...


class PacketPart(Part, Protocol):
    """The part that takes datagrams."""

    def on_packet(self, source: tuple[str, int], message: Any) -> None: ...


class Daemon:
    """A process. Its parts are added in the order in which they are served."""

    def __init__(self, host: Host, scene: Scene, life: int) -> None:
        self.host = host
        self.scene = scene
        self.world = scene.world
        self.life = life
        self.node_id: NodeId = host.node_id
        self.host_number = host.number
        self.is_alive = True
        self.is_frozen = False
        self.parts: list[Part] = []
        self.handlers: dict[str, Callable[[NodeId, Any, Reply], None]] = {}
        self.on_one_way: dict[str, tuple[Part, Callable[[NodeId, Any], None]]] = {}
        self.on_streams: list[tuple[Part, Callable[[NodeId, bool], None]]] = []
        self.packet_part: PacketPart | None = None
        self._armed: dict[str, float] = {}
        self._inbox: deque[tuple[Part | None, Callable[..., None], tuple[Any, ...]]] = deque()
        self._todo: deque[tuple[Part, Callable[[Any], None], Any]] = deque()
        self._running = False
        self._frozen_at = 0.0
        self._thawed_at = -math.inf
        self._freeze_s = 0.0
        self._rng = scene.world.random(f"daemon/{host.number}/{life}")

    @property
    def is_running(self) -> bool:
        return self.is_alive and not self.is_frozen

    def now(self) -> float:
        """This host's CLOCK_BOOTTIME."""
        return self.host.clock.now()

    @property
    def frozen_lately_s(self) -> float:
        """How long it stood still, if that ended within the last ten seconds: what it does may be as late."""
        return self._freeze_s if self.world.now - self._thawed_at < 10.0 else 0.0

    # ---- inputs

    def feed(self, part: Part | None, action: Callable[..., None], *arguments: Any) -> None:
        """Give an input to a part; it waits while the process is frozen, and is lost with it."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._inbox.append((part, action, arguments))
            return
        if part is not None:
            part.dirty = True
        action(*arguments)
        self._run()

    def _receive(self, part: Part | None, action: Callable[..., None], *arguments: Any) -> None:
        """An input from the network: dropped when too many wait."""
        if not self.is_frozen or len(self._inbox) < INBOX_MAX:
            self.feed(part, action, *arguments)

    def later(self, delay_s: float, part: Part | None, action: Callable[..., None], *arguments: Any) -> None:
        """Feed it after so many seconds."""
        self.world.after(delay_s, self.feed, part, action, *arguments)

    def todo(self, part: Part, action: Callable[[Any], None], argument: Any) -> None:
        """Something to be done after the effects at hand, by another task of this process."""
        self._todo.append((part, action, argument))

    @property
    def recovery_generation(self) -> int:
        """Which life of the cluster this daemon follows."""
        return self.host.recovery_generation

    def on_generation(self, generation: int) -> None:
        """Another daemon follows another one. May be the end of this one."""
        if self.is_alive:
            self.host.on_generation(generation)

    def on_stream(self, peer: NodeId, connected: bool) -> None:
        for part, handler in self.on_streams:
            self.feed(part, handler, peer, connected)

    def on_stream_message(self, source: NodeId, kind: str, message: Any) -> None:
        part, handler = self.on_one_way[kind]
        self._receive(part, handler, source, message)

    def on_datagram(self, source: tuple[str, int], message: Any) -> None:
        """A packet for the membership core."""
        if self.packet_part is not None:
            self._receive(self.packet_part, self.packet_part.on_packet, source, message)

    def on_call(self, source: NodeId, kind: str, question: Any, reply: Reply) -> None:
        self._receive(None, self.handlers[kind], source, question, reply)

    def feed_answer(self, done: Callable[[Any], None], answer: Any) -> None:
        self.feed(None, done, answer)

    # ---- the loop

    def _run(self) -> None:
        """Carry out effects until none is left, or until something stops the process in between."""
        if self._running or self.is_frozen:
            return
        self._running = True
        stumble = self.host.stumble
        while self.is_alive and not self.is_frozen:
            if not self._todo and not self._take():
                break
            if stumble and self._rng.random() < stumble:
                self._stumble()
                continue
            if self.host.ambush is not None and self.host.ambush(self, self._todo[0][2]):
                continue
            part, action, effect = self._todo.popleft()
            if self.world.tracing and type(effect).__name__ not in UNTOLD:
                self.world.trace(self.host.name, brief(self.scene, effect))
            part.dirty = True
            action(effect)
        self._running = False
        if self.is_alive:
            self.scene.watch.turned(self)

    def _take(self) -> bool:
        for part in self.parts:
            if part.dirty:
                part.dirty = False
                core = part.core
                for effect in core.take_effects():
                    self._todo.append((part, part.carry_out, effect))
                deadline = core.next_deadline
                if deadline < self._armed.get(part.name, math.inf):
                    self._wake_at(part, deadline)
        return bool(self._todo)

    def _wake_at(self, part: Part, deadline: float) -> None:
        self._armed[part.name] = deadline
        when = self.host.clock.true_time(deadline) + 1e-6 + LAG_S * self._rng.random()
        self.world.at(when, self._wake, part, deadline)

    def _wake(self, part: Part, deadline: float) -> None:
        if not self.is_alive or self._armed.get(part.name) != deadline:
            return
        self._armed[part.name] = math.inf
        if self.is_frozen:
            return
        now = self.now()
        due = part.core.next_deadline
        if now >= due:
            self.feed(part, part.core.tick, now)
        elif due < math.inf:
            self._wake_at(part, due)

    def start(self) -> None:
        """Everything is in place: carry out what the cores want at once."""
        for part in self.parts:
            part.dirty = True
        self._run()

    # ---- accidents

    def _stumble(self) -> None:
        if self._rng.random() < 0.4:
            self.world.trace(self.host.name, f"KILLED between two effects, {len(self._todo)} undone")
            self.host.crash_daemon()
        else:
            self.freeze(self._rng.choice((0.05, 0.3, 0.9, 2.0, 6.0)) * (0.5 + self._rng.random()))

    def freeze(self, duration_s: float) -> None:
        """The process stands still; the kernel goes on."""
        if not self.is_alive or self.is_frozen:
            return
        self.world.trace(self.host.name, f"FROZEN for {duration_s:.2f} s, {len(self._todo)} effects undone")
        self.is_frozen = True
        self._frozen_at = self.now()
        self.world.after(duration_s, self.thaw)

    def thaw(self) -> None:
        """It runs again: first what it was doing, then the stall, then what waited."""
        if not self.is_alive or not self.is_frozen:
            return
        if not self.host.kernel_answers:
            self.world.after(0.1, self.thaw)
            return
        self.world.trace(self.host.name, "runs again")
        self.is_frozen = False
        gap_s = self.now() - self._frozen_at
        self._thawed_at, self._freeze_s = self.world.now, gap_s
        self._drain_batch()
        if gap_s > STALL_S and self.is_running:
            for part in self.parts:
                part.dirty = True
                part.core.on_stall(gap_s, self.now())
        waiting, self._inbox = self._inbox, deque()
        while waiting and self.is_alive:
            fed, handler, arguments = waiting.popleft()
            self.feed(fed, handler, *arguments)
        for part in self.parts:
            part.dirty = True
        self._armed.clear()
        self._run()

    def _drain_batch(self) -> None:
        """What was under way when the process stopped; inputs to cores that this causes are the drivers' own."""
        while self._todo and self.is_running:
            part, action, effect = self._todo.popleft()
            part.dirty = True
            action(effect)

    def kill(self) -> None:
        """The end of this life."""
        self.is_alive = False
        self._todo.clear()
        self._inbox.clear()

    def check(self) -> None:
        """Assert the invariants of every core."""
        for part in self.parts:
            part.core.check()
