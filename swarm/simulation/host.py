"""A host: power, kernel, clock, disk and engine, and the daemon that runs on it, if one does.

Four things fail apart from each other: the host's power (everything on it stops, its disk keeps what was durable, its clock
begins anew), the daemon (its containers live on), the engine, and the kernel as a whole (a frozen machine answers nobody).

Promise: a daemon's death changes nothing but the daemon; the power's changes everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from swarm.consensus.recovery import begin_generation
from swarm.membership import Message
from swarm.model.command import SCHEMA_KNOWN
from swarm.model.entry import Voter
from swarm.model.generation import generation_text, next_generation, supersedes
from swarm.model.ids import NodeId
from swarm.runner.copies import Holdings
from swarm.simulation.disk import Disk
from swarm.simulation.keys import HeldSecrets
from swarm.simulation.node import Daemon
from swarm.simulation.scene import Scene
from swarm.simulation.virtual_engine import VirtualEngine
from swarm.simulation.world import HostClock

PORT = 4747
Build = Callable[["Host", Scene, int, bool], Daemon]
"""Makes a daemon of this host's life `number`; the last says whether the host was rebooted since the one before."""


class Host:
    """One machine. Clocks run at a rate within `drift` of the truth."""

    def __init__(self, number: int, node_id: NodeId, scene: Scene, build: Build, *, drift: float) -> None:
        self.number = number
        self.node_id = node_id
        self.name = f"n{number}"
        self.address = f"10.77.0.{10 + number}:{PORT}"
        self.address_pair = (f"10.77.0.{10 + number}", PORT)
        self.scene = scene
        self.is_witness = False
        """Its daemon votes and runs nothing."""
        self.is_echoed = False
        """What its daemon sends of snapshots another sends as well, a moment later."""
        self.is_powered = True
        self.is_frozen = False
        self.daemon: Daemon | None = None
        self.disk = Disk(scene.world, number)
        self.disk.on_failure = self._disk_failed
        self.stumble = 0.0
        """Chance that the daemon stops between two effects."""
        self.ambush: Callable[[Daemon, object], bool] | None = None
        """Asked before each effect; says whether it struck, and the effect then waits or is lost."""
        self.reset_hooks: list[Callable[[], None]] = []
        """Called when the power goes: whatever runs here is gone."""
        self.engine = VirtualEngine(self)
        self.schema_known = SCHEMA_KNOWN
        """Of the program that is installed here."""
        self.remembered: Holdings | None = None
        """What the runner last held, kept beside the store."""
        self.recovery_generation = scene.settings.recovery_generation
        """Of its cluster.json: which life of the cluster it follows."""
        self.secrets = HeldSecrets()
        """Of its cluster.json."""
        self._build = build
        self._rng: random.Random = scene.world.random(f"host/{number}")
        self._rate = 1 + drift * self._rng.choice((-1.0, 1.0, self._rng.uniform(-1, 1)))
        self._lives = 0
        self._booted_since_daemon = True
        self._freezes = 0
        self.clock = self._new_clock()

    def _new_clock(self) -> HostClock:
        offset_s, off_s = self._rng.uniform(5, 100_000), self._rng.gauss(0, 30)
        return HostClock(self.scene.world, rate=self._rate, offset_s=offset_s, utc_off_s=off_s)

    def keep_secrets(self, secrets: HeldSecrets) -> None:
        """Replace the file whole."""
        self.secrets = secrets

    # ---- what the network asks

    @property
    def kernel_answers(self) -> bool:
        return self.is_powered and not self.is_frozen

    @property
    def life(self) -> int:
        return self.daemon.life if self.daemon is not None else 0

    def on_packet(self, source: tuple[str, int], message: Message) -> None:
        """A datagram arrived; without a daemon nobody takes it."""
        if self.daemon is not None:
            self.daemon.on_datagram(source, message)

    # ---- the daemon

    def start_daemon(self) -> None:
        """Start it, unless one runs or the power is off."""
        if self.daemon is not None or not self.is_powered:
            return
        self._lives += 1
        self.disk.boots += 1
        self.scene.world.trace(self.name, f"daemon starts, life {self._lives}")
        rebooted, self._booted_since_daemon = self._booted_since_daemon and self._lives > 1, False
        daemon = self._build(self, self.scene, self._lives, rebooted)
        self.daemon = daemon
        self.scene.streams.start(daemon)
        self.scene.watch.began(daemon)
        daemon.start()

    def crash_daemon(self) -> None:
        """It is gone without a word; containers run on."""
        daemon, self.daemon = self.daemon, None
        if daemon is not None:
            self.scene.world.trace(self.name, "daemon is gone")
            daemon.kill()
            self.disk.crash()
            self.engine.listener = None
            self.scene.streams.stop(daemon)
            self.scene.watch.ended(daemon)

    def _disk_failed(self) -> None:
        """A write that failed is never tried again: the daemon ends, containers run on."""
        self.scene.world.trace(self.name, "A WRITE FAILED")
        self.crash_daemon()

    # ---- recovery

    def begin_recovery(self) -> int:
        """What `swarm recover` orders: the daemon starts anew, first writing the beginning of a new generation. Returns it."""
        self.crash_daemon()
        stored = self.disk.stored()
        generation = next_generation(self.recovery_generation, self._rng)
        me = Voter(self.node_id, stored.store_generation)
        batch = begin_generation(stored, me=me, generation=generation, time_utc=self.clock.utc())
        assert batch is not None
        self.scene.world.trace(self.name, f"BEGINS {generation_text(generation)}")
        self.disk.install(batch)
        self.recovery_generation = generation
        self.start_daemon()
        return generation

    def on_generation(self, generation: int) -> None:
        """A member follows another generation: a later one is followed, with an empty log, when the daemon has started anew."""
        if supersedes(generation, self.recovery_generation):
            self.scene.world.trace(self.name, f"FOLLOWS {generation_text(generation)}")
            self.crash_daemon()
            self.disk.wipe()
            self.recovery_generation = generation
            self.scene.world.after(0.1 + 0.4 * self._rng.random(), self.start_daemon)

    # ---- the host

    def lose_power(self) -> None:
        """Everything on it stops at once."""
        if not self.is_powered:
            return
        self.scene.world.trace(self.name, "POWER LOST")
        self.is_powered = False
        self.is_frozen = False
        self.crash_daemon()
        for hook in self.reset_hooks:
            hook()

    def restore_power(self) -> None:
        """It boots: another time, nothing running but the daemon."""
        if self.is_powered:
            return
        self.scene.world.trace(self.name, "power is back")
        self.is_powered = True
        self._booted_since_daemon = True
        self.clock = self._new_clock()
        self.start_daemon()

    def freeze(self, duration_s: float) -> None:
        """The whole machine stands still, its kernel too. Its clock counts the time, as after a suspend."""
        if not self.is_powered or self.is_frozen:
            return
        self.scene.world.trace(self.name, f"MACHINE FROZEN for {duration_s:.1f} s")
        self.is_frozen = True
        self._freezes += 1
        if self.daemon is not None:
            self.daemon.freeze(duration_s)
        self.scene.world.after(duration_s, self._thaw, self._freezes)

    def _thaw(self, freeze: int) -> None:
        if freeze == self._freezes and self.is_frozen:
            self.is_frozen = False
            if self.daemon is not None:
                self.daemon.thaw()
