"""Faults: what goes wrong during a run, drawn from its seed, and how all of it is made good again.

Each run has its own temper: some lose packets, some lose power, some freeze. Faults of the host, of the daemon, of the kernel's
answers, of the engine, of the disk and of the paths between hosts are separate. Whatever broke is repaired after a while, or at
the latest by `heal`, after which nothing goes wrong any more and the cluster owes us progress.

Kinds that came later, and newer ones, are drawn apart, so that a seed of before means what it meant (`later=False`,
`newer=False`).

Promise: `heal` leaves no fault behind; a majority of the voters keeps what was durable.
"""

from __future__ import annotations

from collections.abc import Callable

from swarm.model.liveness import EngineState
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.disk_faults import DiskFaults
from swarm.simulation.host import Host
from swarm.simulation.intrigues import Intrigues
from swarm.simulation.network import FAIR, Weather
from swarm.simulation.node import Daemon
from swarm.simulation.plots import Plots

KINDS = ("power", "blackout", "daemon", "freeze", "machine", "engine", "slow_engine", "disk", "cut", "pair", "one_way", "split",
         "crown", "forget")
LATER_KINDS = ("rot", "no_sync", "set_back", "ambush", "hand_over", "voters", "ring", "burial")
NEWER_KINDS = ("stop", "leave", "misread", "echo")
NEWER_SHARE = 0.15
"""Of the runs, for each of the newer kinds."""
PLOTS = ("figure_8", "dead_king", "lost_store", "coup")
"""Only when asked for: they break more than a run that is to show something else can bear."""


class Faults:
    """Breaks a cluster, on average every `every_s` seconds, until `heal`."""

    def __init__(
        self, cluster: Cluster, *, every_s: float = 2.5, kinds: tuple[str, ...] = (), later: bool = True, newer: bool = True
    ) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.rng = cluster.world.random("faults")
        self.every_s = every_s
        self.is_over = False
        self._hunting = 0
        self._away: set[int] = set()
        """Hosts whose daemon was stopped, and is not started by the service manager."""
        self._plots = Plots(cluster, self.rng, lambda: self.is_over)
        later_rng = cluster.world.random("faults/later")
        disks = DiskFaults(cluster, later_rng, lambda: self.is_over)
        intrigues = Intrigues(cluster, later_rng, lambda: self.is_over)
        self._actions: dict[str, Callable[[Host], None]] = {
            "power": self._power,
            "blackout": self._blackout,
            "daemon": self._daemon,
            "freeze": self._freeze,
            "machine": self._machine,
            "engine": self._engine,
            "slow_engine": self._slow_engine,
            "disk": self._disk,
            "cut": self._isolate,
            "pair": self._pair,
            "crown": self._crown,
            "forget": self._forget,
            "one_way": self._one_way,
            "split": self._split,
            "rot": disks.rot,
            "no_sync": disks.no_sync,
            "full": disks.full,  # only when asked for, so that the seeds of everybody tell their old stories
            "set_back": disks.set_back,
            "misread": disks.misread,
            "echo": self._echo,
            "ambush": intrigues.ambush,
            "hand_over": intrigues.hand_over,
            "voters": intrigues.voters,
            "ring": lambda host: self._ring(intrigues, host),
            "burial": self._burial,
            "stop": lambda host: self._stop(host, leaves=False),
            "leave": lambda host: self._stop(host, leaves=True),
            "figure_8": lambda _: self._plots.begin(self._plots.figure_8()),
            "dead_king": lambda _: self._plots.begin(self._plots.dead_king()),
            "lost_store": lambda _: self._plots.begin(self._plots.lost_store()),
            "coup": lambda _: self._plots.begin(self._plots.coup()),
        }
        chosen = kinds or tuple(self.rng.sample(KINDS, self.rng.randint(2, len(KINDS))))
        if later and not kinds:
            chosen += tuple(later_rng.sample(LATER_KINDS, later_rng.randint(0, 4)))
        self._newer_rng = cluster.world.random("faults/newer")
        if newer and not kinds:
            chosen += tuple(kind for kind in NEWER_KINDS if self._newer_rng.random() < NEWER_SHARE)
        self.kinds = tuple(sorted(chosen))
        cluster.scene.network.weather = self._draw_weather()
        self._draw_habits()
        cluster.scene.on_leader.append(self._on_leader)
        self.world.after(self.rng.expovariate(1 / every_s), self._next)
        self.world.after(1.0, self._watchdog)

    def _draw_habits(self) -> None:
        """Of processes, disks and engines."""
        stumble = self.rng.choice((0.0, 0.0, 0.0003, 0.001))
        for host in self.cluster.hosts:
            host.stumble = stumble
            host.disk.slow = self.rng.choice((0.0, 0.0, 0.05, 0.2))
            host.engine.habits.lose_reply = self.rng.choice((0.0, 0.1, 0.3))
            host.engine.habits.drop_event = self.rng.choice((0.0, 0.2, 0.5))
            host.engine.habits.slow = self.rng.choice((0.0, 0.1))
            host.engine.habits.ends_per_s = self.rng.choice((0.0, 0.0, 0.02))

    def _draw_weather(self) -> Weather:
        rng = self.rng
        return Weather(
            delay_s=rng.choice((0.0003, 0.002, 0.02)),
            jitter_s=rng.choice((0.0006, 0.005, 0.05)),
            loss=rng.choice((0.0, 0.01, 0.1)),
            duplicate=rng.choice((0.0, 0.05)),
            overtake=rng.choice((0.0, 0.05)),
            wild_streams=rng.random() < 0.5,
        )

    def _next(self) -> None:
        if self.is_over:
            return
        kind = self.rng.choice(self.kinds)
        host = self.rng.choice(self.cluster.hosts)
        leader = self.cluster.leader()
        if leader is not None and self.rng.random() < 0.4:
            host = leader.host  # trouble finds the leader more often than chance would
        self._actions[kind](host)
        self.world.after(self.rng.expovariate(1 / self.every_s), self._next)

    def _watchdog(self) -> None:
        """What a service manager does: a daemon that is gone is started again."""
        for host in self.cluster.hosts:
            is_due = host.daemon is None and host.is_powered and host.number not in self._away
            if is_due and self.rng.random() < (1.0 if self.is_over else 0.5):
                host.start_daemon()
        self.world.after(1.0, self._watchdog)

    def _for_a_while(self, longest_s: float, repair: Callable[[], None]) -> None:
        self.world.after(longest_s * self.rng.random() ** 2 + 0.05, self._unless_over, repair)

    def _unless_over(self, repair: Callable[[], None]) -> None:
        if not self.is_over:
            repair()

    # ---- the faults

    def _power(self, host: Host) -> None:
        host.lose_power()
        self._for_a_while(40.0, host.restore_power)

    def _burial(self, host: Host) -> None:
        """Off for so long that another votes in its place."""
        host.lose_power()
        self.world.after(25.0 + 20.0 * self.rng.random(), self._unless_over, host.restore_power)

    def _stop(self, host: Host, *, leaves: bool) -> None:
        """Somebody stops the daemon, as for an upgrade or for good, and it is back after up to 20 s."""
        if not isinstance(host.daemon, Member):
            return
        departures, away_s = host.daemon.departures, 0.5 + 20.0 * self._newer_rng.random() ** 2
        self.world.trace(host.name, "is asked to leave" if leaves else "is asked to stop")
        self._away.add(host.number)
        if leaves:
            departures.give_vote_away()
        else:
            departures.pause()
        self.world.after(away_s + (15.0 if leaves else 0.0), self._back, host)

    def _echo(self, host: Host) -> None:
        """From here on two send the same snapshots, as an old leader and a new one do."""
        host.is_echoed = True

    def _back(self, host: Host) -> None:
        self._away.discard(host.number)
        host.start_daemon()

    def _blackout(self, _: Host) -> None:
        for host in self.cluster.hosts:
            if self.rng.random() < 0.9:
                host.lose_power()
                self._for_a_while(8.0, host.restore_power)

    def _daemon(self, host: Host) -> None:
        host.crash_daemon()

    def _freeze(self, host: Host) -> None:
        if host.daemon is not None:
            host.daemon.freeze(self.rng.choice((0.2, 0.7, 1.5, 4.0, 12.0)) * (0.5 + self.rng.random()))

    def _machine(self, host: Host) -> None:
        host.freeze(self.rng.choice((0.5, 1.5, 4.0, 12.0)) * (0.5 + self.rng.random()))

    def _engine(self, host: Host) -> None:
        if host.engine.state is EngineState.UP:
            self.rng.choice((host.engine.crash, host.engine.hang))()
            self._for_a_while(20.0, host.engine.recover)

    def _slow_engine(self, host: Host) -> None:
        host.engine.habits.slow = 0.8

    def _disk(self, host: Host) -> None:
        self.world.trace(host.name, "DISK HANGS")
        host.disk.hang()
        self._for_a_while(8.0, host.disk.free)

    def _isolate(self, host: Host) -> None:
        others = [other.number for other in self.cluster.hosts if other is not host]
        self.world.trace(host.name, "CUT OFF")
        self.cluster.scene.network.split([host.number], others)
        self._for_a_while(25.0, self._open_paths)

    def _pair(self, host: Host) -> None:
        """Two hosts do not hear each other; everybody else hears both."""
        others = [other.number for other in self.cluster.hosts if other is not host]
        if others:
            other = self.rng.choice(others)
            self.world.trace(host.name, f"CUT OFF from n{other} alone")
            self.cluster.scene.network.split([host.number], [other])
            self._for_a_while(15.0, self._open_paths)

    def _crown(self, host: Host) -> None:
        """The next winners of an election get into trouble at once; the present leader goes, so that there is one."""
        self._hunting = self.rng.randint(1, 5)
        host.crash_daemon()

    def _on_leader(self, daemon: Daemon) -> None:
        if self._hunting and not self.is_over:
            self._hunting -= 1
            self.world.after(self.rng.random() ** 3 * 0.02, self._hunt, daemon.host)

    def _hunt(self, leader: Host) -> None:
        """Cut a new leader off, kill it, or let everybody else forget what they have not written down."""
        if self.is_over:
            return
        self.world.trace(leader.name, "HUNTED")
        what = self.rng.random()
        if what < 0.6:
            others = [other for other in self.cluster.hosts if other is not leader]
            self.cluster.scene.network.split([leader.number], [other.number for other in others])
            self._for_a_while(6.0, self._open_paths)
            for other in others:
                if self.rng.random() < 0.7:
                    self._restart_soon(other)
        if what > 0.5:
            self._restart_soon(leader)

    def _forget(self, host: Host) -> None:
        """One host does not hear the leader and would lead; then those who do hear it restart, and may forget their promise."""
        leader = self.cluster.leader()
        if leader is None or leader.host is host:
            return
        self.world.trace(host.name, "CUT OFF from the leader; the others will restart")
        self.cluster.scene.network.split([host.number], [leader.host.number])
        self._for_a_while(8.0, self._open_paths)
        for other in self.cluster.hosts:
            if other not in (host, leader.host):
                self.world.after(1.0 + 2.0 * self.rng.random(), self._unless_over, lambda other=other: self._restart_soon(other))

    def _restart_soon(self, host: Host) -> None:
        if self.is_over or not host.is_powered:
            return
        host.crash_daemon()
        self.world.after(0.03 + 0.3 * self.rng.random() ** 2, host.start_daemon)

    def _one_way(self, host: Host) -> None:
        network = self.cluster.scene.network
        for other in self.cluster.hosts:
            if other is not host and self.rng.random() < 0.6:
                pair = (host.number, other.number)
                network.cut(*(pair if self.rng.random() < 0.5 else pair[::-1]))
        self.world.trace(host.name, f"ONE-WAY CUTS {sorted(network.cuts)}")
        self._for_a_while(25.0, self._open_paths)

    def _split(self, _: Host) -> None:
        numbers = [host.number for host in self.cluster.hosts]
        self.rng.shuffle(numbers)
        half = self.rng.randint(1, max(1, len(numbers) - 1))
        self.world.trace("net", f"SPLIT {numbers[:half]} from {numbers[half:]}")
        self.cluster.scene.network.split(numbers[:half], numbers[half:])
        self._for_a_while(25.0, self._open_paths)

    def _ring(self, intrigues: Intrigues, host: Host) -> None:
        intrigues.ring(host)
        self._for_a_while(20.0, self._open_paths)

    def _open_paths(self) -> None:
        self.world.trace("net", "all paths open")
        self.cluster.scene.network.heal()

    def heal(self) -> None:
        """Make everything good, for good."""
        self.world.trace("net", "==== EVERYTHING HEALS ====")
        self.is_over = True
        self._away.clear()
        self.cluster.scene.network.heal()
        self.cluster.scene.network.weather = FAIR
        for member in list(self.cluster.daemons()):
            member.departures.hurry()
        for host in self.cluster.hosts:
            host.stumble = 0.0
            host.ambush = None
            host.disk.slow = 0.0
            host.disk.failing = host.disk.full = False
            host.disk.misread = 0.0
            host.is_echoed = False
            host.disk.free()
            host.restore_power()
            habits = host.engine.habits
            habits.lose_reply = habits.drop_event = habits.slow = habits.ends_per_s = 0.0
            host.engine.recover()
            host.start_daemon()
