"""The scene: what all hosts of one run share, the settings of their cores, and who watches.

A `Watch` is told everything a checker may want to know, in true time; the one here does nothing. Watching changes nothing: no
draw, no event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from swarm.consensus.config import ConsensusConfig
from swarm.membership import Config as MembershipConfig
from swarm.model.entry import Entry, SnapshotMeta
from swarm.model.ids import ClusterId, NodeId
from swarm.model.outcome import Applied
from swarm.runner.config import RunnerConfig
from swarm.runner.effects import Operation
from swarm.simulation.network import Network
from swarm.simulation.streams import Streams
from swarm.simulation.world import World

if TYPE_CHECKING:
    from swarm.simulation.host import Host
    from swarm.simulation.node import Daemon


@dataclass(frozen=True, slots=True)
class Settings:
    """How the daemons of a run are configured. A short log between snapshots makes them frequent."""

    consensus: ConsensusConfig = ConsensusConfig(snapshot_every=120, trailing=30)
    membership: MembershipConfig = MembershipConfig()
    runner: RunnerConfig = RunnerConfig()
    recovery_generation: int = 0
    encode_every: int = 64
    """One consensus message in so many goes through its codec, to show that it comes back equal; 0 for none."""


class Watch:
    """Every hook is called in true time, after the fact, and must change nothing."""

    def turned(self, daemon: Daemon) -> None:
        """A daemon took an input and carried out what came of it, or stopped in the middle."""

    def began(self, daemon: Daemon) -> None:
        """A daemon started."""

    def ended(self, daemon: Daemon) -> None:
        """A daemon is gone."""

    def persisting(self, daemon: Daemon, entries: tuple[Entry, ...]) -> None:
        """Entries were given to a disk."""

    def applied(self, daemon: Daemon, entry: Entry, applied: Applied) -> None:
        """A catalog applied an entry."""

    def restored(self, daemon: Daemon, meta: SnapshotMeta) -> None:
        """A catalog became a snapshot."""

    def acted(self, daemon: Daemon, what: str) -> None:
        """A leader did something only a leader may: a plan was proposed, a barrier answered."""

    def operating(self, daemon: Daemon, operation: Operation) -> None:
        """A runner asks its engine for something."""

    def copy_started(self, host: Host, labels: dict[str, str]) -> None:
        """A container runs from now on."""

    def copy_ended(self, host: Host, labels: dict[str, str]) -> None:
        """It runs no more."""


@dataclass(slots=True)
class Scene:
    """One run's shared things."""

    world: World
    network: Network
    streams: Streams
    cluster_id: ClusterId
    settings: Settings = field(default_factory=Settings)
    watch: Watch = field(default_factory=Watch)
    hosts: dict[int, Host] = field(default_factory=dict)
    by_address: dict[str, Host] = field(default_factory=dict)
    by_id: dict[NodeId, Host] = field(default_factory=dict)
    on_leader: list[Callable[[Daemon], None]] = field(default_factory=list)
    """Called when a daemon has won an election; for faults that wait for it."""

    def add(self, host: Host) -> None:
        """Put a host on the scene."""
        self.hosts[host.number] = host
        self.by_address[host.address] = host
        self.by_id[host.node_id] = host
        self.network.attach(host.number, host)

    def name_of(self, node_id: str) -> str:
        """A node's short name, for the story."""
        host = self.by_id.get(NodeId(node_id))
        return host.name if host else node_id[:8] or "nobody"


def brief(scene: Scene, thing: Any) -> str:
    """One effect in a few words, for the story of a run."""
    text = type(thing).__name__
    for name in ("to", "node_id"):
        if hasattr(thing, name):
            text += f" to {scene.name_of(getattr(thing, name))}"
    for name in ("role", "term", "number", "text"):
        if hasattr(thing, name):
            text += f" {name}={getattr(thing, name)}"
    if hasattr(thing, "leader_id"):
        text += f" leader={scene.name_of(thing.leader_id)}"
    if hasattr(thing, "entries"):
        text += " " + ", ".join(f"{entry.index} {entry.kind}" for entry in thing.entries)
    if hasattr(thing, "operation"):
        operation = thing.operation
        plan = getattr(operation, "plan", None)
        text += f" {type(operation).__name__} {plan.name if plan else getattr(operation, 'container_id', '')}"
    if hasattr(thing, "reports"):
        text += " " + ", ".join(f"{report.assignment_id[:8]} {report.phase.value}" for report in thing.reports)
    return text + _brief_message(getattr(thing, "message", None))


def _brief_message(message: Any) -> str:
    if message is None:
        return ""
    names = ("term", "granted", "accepted", "index", "previous_index", "commit", "round")
    told = " ".join(f"{name}={getattr(message, name)}" for name in names if isinstance(getattr(message, name, None), int))
    entries = f" {len(message.entries)} entries" if hasattr(message, "entries") else ""
    return f": {type(message).__name__} {told}{entries}"
