"""The network: what becomes of a packet, of a stream, and of a connect.

Packets get lost, doubled, delayed and overtaken. A stream delivers in order or not at all: while its path is cut, what was
written waits in the kernel and comes late, in one go, unless the stream breaks first. A connect asks a host's kernel: `accepted`
when something listens (frozen or not), `refused` when the kernel is up and nothing does, `silent` when no answer comes.
Cuts are one-way: a cut from A to B leaves B to A open, and a connect or a stream needs both.

Promises: what is delivered was sent; nothing is delivered to a host that is off or to another life of a daemon than the stream
was made to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from swarm.simulation.world import World

Deliver = Callable[[], None]


@dataclass(slots=True)
class Weather:
    """How bad the network is. Chances are per packet; times in seconds."""

    delay_s: float = 0.0004
    jitter_s: float = 0.0006
    loss: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    """Chance that a packet takes up to `overtake_s` longer than it should, so that later ones pass it."""
    overtake_s: float = 0.3
    wild_streams: bool = False
    """Let one-way messages on streams be lost, doubled and overtaken as well: reconnects do that in reality."""


FAIR = Weather()


class Kernel(Protocol):
    """What the network asks of a host at the moment something arrives."""

    @property
    def kernel_answers(self) -> bool:
        """Powered, and not frozen as a whole."""

    @property
    def life(self) -> int:
        """Number of the daemon's life that listens now; 0 when none does."""


@dataclass(slots=True)
class Stream:
    """One verified connection between two lives of two daemons. Sides are in the order of their hosts' numbers."""

    hosts: tuple[int, int]
    lives: tuple[int, int]
    up: bool = True
    stuck_since: float | None = None
    arrives: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Per direction: when the last thing written so far arrives; later ones arrive no earlier."""
    held: tuple[list[Deliver], list[Deliver]] = field(default_factory=lambda: ([], []))
    """Per direction: written while the path was cut."""


class Network:
    """All paths between hosts, which are known by their numbers."""

    def __init__(self, world: World, weather: Weather = FAIR) -> None:
        self.world = world
        self.weather = weather
        self.cuts: set[tuple[int, int]] = set()
        self.lost = 0
        self._kernels: dict[int, Kernel] = {}
        self._rng = world.random("network")

    def attach(self, host: int, kernel: Kernel) -> None:
        """Plug a host in."""
        self._kernels[host] = kernel

    def passes(self, source: int, target: int) -> bool:
        """Whether a packet that leaves `source` now reaches `target`'s kernel."""
        return (source, target) not in self.cuts and self._kernels[target].kernel_answers

    def open_both_ways(self, one: int, other: int) -> bool:
        """Whether two kernels can talk."""
        return self.passes(one, other) and self.passes(other, one)

    def delay(self) -> float:
        """One way, for something that is not lost."""
        return self.weather.delay_s + self.weather.jitter_s * self._rng.random()

    def packet(self, source: int, target: int, deliver: Deliver) -> None:
        """Send one datagram; `deliver` is called once, twice or never."""
        weather, rng = self.weather, self._rng
        if (source, target) in self.cuts or (weather.loss and rng.random() < weather.loss):
            self.lost += 1
            return
        self.world.after(self._packet_delay(), self._arrive, target, deliver)
        if weather.duplicate and rng.random() < weather.duplicate:
            self.world.after(self._packet_delay() + rng.random() * 0.05, self._arrive, target, deliver)

    def _packet_delay(self) -> float:
        weather, rng = self.weather, self._rng
        delay_s = weather.delay_s + weather.jitter_s * rng.random()
        if weather.overtake and rng.random() < weather.overtake:
            delay_s += weather.overtake_s * rng.random()
        return delay_s

    def _arrive(self, target: int, deliver: Deliver) -> None:
        if self._kernels[target].kernel_answers:
            deliver()

    def connect(self, source: int, target: int | None, timeout_s: float, done: Callable[[str], None]) -> None:
        """One TCP connect, `timeout_s` in true seconds; `done` is told the outcome, always."""
        answers = target is not None and self.open_both_ways(source, target)
        if not answers or self._rng.random() < self.weather.loss:
            self.world.after(timeout_s, done, "silent")
        else:
            assert target is not None
            outcome = "accepted" if self._kernels[target].life else "refused"
            self.world.after(self.delay() + self.delay(), done, outcome)

    # ---- streams ----------------------------------------------------------------------------------------------------------

    def open_stream(self, one: int, other: int) -> Stream | None:
        """A new stream between the daemons of two hosts, or None when they cannot reach each other now."""
        first, second = sorted((one, other))
        lives = (self._kernels[first].life, self._kernels[second].life)
        if not all(lives) or not self.open_both_ways(first, second):
            return None
        return Stream((first, second), lives)

    def write(self, stream: Stream, source: int, deliver: Deliver, *, whole: bool = False) -> None:
        """Write one message to a stream. `whole` exempts it (calls and answers) from what `wild_streams` does."""
        side = stream.hosts.index(source)
        target = stream.hosts[1 - side]
        if not self.open_both_ways(source, target):
            stream.held[side].append(deliver)
            return
        weather, rng = self.weather, self._rng
        when = self.world.now + self.delay()
        if weather.wild_streams and not whole:
            if rng.random() < weather.loss:
                self.lost += 1
                return
            if rng.random() < weather.duplicate:
                self.world.after(rng.random() * 0.5, self._stream_arrive, stream, side, deliver)
            if rng.random() < weather.overtake:
                when += weather.overtake_s * rng.random()
        elif when < stream.arrives[side]:
            when = stream.arrives[side]
        stream.arrives[side] = max(when, stream.arrives[side]) if not weather.wild_streams else stream.arrives[side]
        self.world.at(when, self._stream_arrive, stream, side, deliver)

    def _stream_arrive(self, stream: Stream, side: int, deliver: Deliver) -> None:
        target = stream.hosts[1 - side]
        if not stream.up or self._kernels[target].life != stream.lives[1 - side]:
            return
        if not self._kernels[target].kernel_answers:
            stream.held[side].append(deliver)
            return
        deliver()

    def release_held(self, stream: Stream) -> None:
        """The path is open again: the kernel sends again what was waiting, in order."""
        for side in (0, 1):
            waiting = stream.held[side][:]
            stream.held[side].clear()
            for deliver in waiting:
                self.write(stream, stream.hosts[side], deliver, whole=True)

    # ---- cuts -------------------------------------------------------------------------------------------------------------

    def cut(self, source: int, target: int) -> None:
        """Nothing from `source` reaches `target` any more; the other way is untouched."""
        self.cuts.add((source, target))

    def split(self, left: list[int], right: list[int]) -> None:
        """Cut every path between two groups, both ways."""
        for one in left:
            for other in right:
                self.cuts.add((one, other))
                self.cuts.add((other, one))

    def heal(self) -> None:
        """Open every path."""
        self.cuts.clear()
