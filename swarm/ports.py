"""Everything this program asks of the world, on one page.

Drivers speak to these protocols; the adapters that keep them know one outside thing each (SQLite, UDP, TLS, Docker, the host);
the simulation and the tests have others. Only `swarm/node` knows which is used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from swarm.model.container import ContainerPlan, ContainerSeen, EngineEvent, EngineInfo, EngineTrouble
from swarm.model.entry import Committed, Entry, HardState, SnapshotMeta
from swarm.model.ids import ClusterId, NodeId


class Clock(Protocol):
    """Time. Drivers read it once per turn and hand it to cores."""

    def now(self) -> float:
        """CLOCK_BOOTTIME seconds: runs on while the machine sleeps."""

    def utc(self) -> float:
        """Wall time, seconds since the epoch; for people only."""


# ---- the store ------------------------------------------------------------------------------------------------------------


class SnapshotData(Protocol):
    """The bytes of one snapshot, wherever they lie; plain `bytes` are one. Consensus passes it on and never looks inside."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes:
        """A piece of it. It may come from a disk: ask through `Store.read`."""


class Spool(Protocol):
    """A snapshot that is being written, beside the log's writes. Nothing of it counts before `finish` has returned."""

    async def append(self, data: bytes) -> None:
        """Write the next bytes. Raises `Unavailable` when the disk refuses: the log is not touched."""

    async def finish(self, meta: SnapshotMeta) -> SnapshotData:
        """Make it durable under what describes it. It stays while anybody holds what is returned, or a written batch names it."""

    async def discard(self) -> None:
        """Forget it; nothing happens after `finish`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What must be on disk together. `entries` replace everything from the first one's index on (after `truncate_from`)."""

    number: int
    entries: tuple[Entry, ...] = ()
    truncate_from: int = 0
    """Delete rows at and above this index first; 0 for none."""
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    snapshot_data: SnapshotData | None = None
    """A snapshot replaces rows up to its index (and every row, when it was received from a leader and does not match)."""
    discard_log: bool = False
    committed: Committed | None = None
    """Known to be committed; names an entry of this batch or of an earlier one."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store held when it was opened; verified against its checksums."""

    store_generation: int
    hard_state: HardState
    entries: tuple[Entry, ...]
    snapshot: SnapshotMeta | None
    snapshot_data: SnapshotData | None
    committed: Committed = Committed()
    """The newest that was written; never beyond what is held here."""


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """The room on the store's disk, as it was at the last write."""

    full: bool = False
    """A write found no room, and not enough was made since. What is written meanwhile comes out of a small reserve."""
    free_bytes: int = 0
    reserve: bool = False
    """Something is held back for terms, votes and compaction."""
    where: str = ""
    """The folder, for people."""
    owed_bytes: int = 0
    """Of the reserve that was given back: to be held back again before anything large is written."""
    needs_bytes: int = 0
    """What has to be free for a snapshot that this node lacks and that did not fit; 0 while there is none."""
    lacks_bytes: int = 0
    """The size of the reserve that there should be and never was room for; 0 otherwise."""


class Store(Protocol):
    """Durable log, vote and snapshot. Calls are made by one driver; `write` is the only one that waits for the disk."""

    @property
    def room(self) -> DiskRoom:
        """Never waits. Looked at after each write or probe, also a failed one."""

    async def write(self, batches: Sequence[Batch]) -> None:
        """Write all batches in order in one transaction and sync. Returns only when durable. Raises `StoreFull`, having written
        nothing, or `StoreFailure`, after which nothing more may be written (a failed fsync is never retried as if it had not
        happened)."""

    async def probe(self) -> None:
        """A small durable write, to learn whether the disk still works."""

    async def spool(self) -> Spool:
        """Begin to write a snapshot. Raises `Unavailable`, as `Spool.append` does."""

    async def read(self, data: SnapshotData, start: int, end: int) -> bytes:
        """A piece of a snapshot, never more than there is. Raises `Unavailable`."""

    async def close(self) -> None:
        """Finish and release the file."""


# ---- peers ----------------------------------------------------------------------------------------------------------------

MessageHandler = Callable[[NodeId, bytes], None]
"""One-way message: (who sent it, its bytes). Synchronous: queue it and return. Raises only `PeerError` (counted, dropped)."""
CallHandler = Callable[[NodeId, bytes], Awaitable[bytes]]
"""A call: returns the answer. An `OperatorError` or `PeerError` raised travels back to the caller."""


class Peers(Protocol):
    """Authenticated streams to the other members, one per pair, many calls in flight."""

    def send(self, to: NodeId, kind: str, payload: bytes) -> bool:
        """Queue a one-way message; never waits. False when there is no stream or its queue is full: the message is dropped."""

    async def call(self, to: NodeId, kind: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask and wait. Raises `Unreachable` when the answer did not come; whether the peer acted is then unknown."""

    def on_message(self, kind: str, handler: MessageHandler) -> None:
        """Register the one handler of a kind of one-way message, before the streams start."""

    def on_call(self, kind: str, handler: CallHandler) -> None:
        """Register the one handler of a kind of call."""

    def connected(self, to: NodeId) -> bool:
        """Whether a verified stream to that member stands."""

    def silent_s(self, to: NodeId) -> float:
        """For how many seconds nothing has come from that member over any stream; infinite where none stands."""


class ByteStream(Protocol):
    """A connection as bytes. Trio's streams are ones; errors of the connection are `trio.BrokenResourceError` and its kin."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """At least one byte, or none at the end."""

    async def aclose(self) -> None: ...


@runtime_checkable
class PromptStream(ByteStream, Protocol):
    """A connection that can also be written without giving up the turn."""

    def send_now(self, data: bytes) -> bool:
        """Hand all of `data` to the kernel. False: not all of it; the next thing sent must begin with the same bytes."""


PROTOCOL_PEER = "swarm-peer/1"
"""Between admitted members, under the authority of secret and cluster id."""
PROTOCOL_BOOT = "swarm-boot/1"
"""Founding and joining, under the authority of the token alone."""
PROTOCOL_REJOIN = "swarm-rejoin/1"
"""For a member that was away while the secret was rotated: under any authority its cluster ever had, for pinned keys only."""


@dataclass(frozen=True, slots=True)
class SecureStream:
    """A connection after its TLS handshake. The other side holds the secret; whether it is admitted is checked above."""

    stream: ByteStream
    node_id: NodeId
    """As its certificate claims: the fingerprint must be the one the log names for it."""
    fingerprint: bytes
    """SHA-256 of the key it proved to hold."""
    address: str


class Dialer(Protocol):
    """Opens secure connections to peer ports."""

    async def dial(self, address: str, protocol: str) -> SecureStream:
        """Connect and shake hands, bounded in time. Raises `Unreachable` (saying why) or `Unauthenticated` (another secret)."""


class PacketSocket(Protocol):
    """UDP. Sealing and opening happen above it."""

    async def receive(self) -> list[tuple[bytes, tuple[str, int]]]:
        """Wait for at least one datagram and drain what is there, at most 64."""

    def drain(self) -> list[tuple[bytes, tuple[str, int]]]:
        """What is there now, at most 64 datagrams; never waits. Called before a timeout is judged, so that late is not lost."""

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        """Send or drop; never waits. Errors of the network are counted, not raised."""



class Connects(Protocol):
    """Asks a host's kernel, not its daemon: is somebody there?"""

    async def try_connect(self, address: tuple[str, int], timeout_s: float) -> str:
        """One TCP connect to the peer port, closed at once: `accepted`, `refused`, `silent` (no SYN-ACK, no RST) or
        `unreachable` (an ICMP error, or no route)."""


# ---- the engine -----------------------------------------------------------------------------------------------------------


class EngineError(Exception):
    """An engine operation failed; `trouble` says how the runner should take it, the text says it to people."""

    def __init__(self, trouble: EngineTrouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.message = message


class Engine(Protocol):
    """The host's container engine. Every operation is idempotent: a call that was abandoned may still finish later.

    All of them raise `EngineError`; none takes longer than its own bound, after which the thread is abandoned.
    """

    async def info(self) -> EngineInfo:
        """The engine's description of itself; also the liveness check."""

    async def list(self, cluster_id: ClusterId) -> Sequence[ContainerSeen]:
        """Every container, running or not, that carries this cluster's and this node's labels."""

    async def create(self, plan: ContainerPlan, registry_auth: dict[str, str] | None) -> str:
        """Create, or find the one of this name and labels; pulls the image when it is missing. Returns the container's id."""

    async def run(self, plan: ContainerPlan, registry_auth: dict[str, str] | None) -> ContainerSeen:
        """`create` and `start` in one go: the short way from an assignment to a running container. Cancelled in between, it
        does not start what it created; one of that name that had run already is returned as it is: this may be a repetition."""

    async def start(self, container_id: str) -> None:
        """Start; nothing happens when it runs already."""

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """Signal, wait up to the grace, kill. Returns when it is down; nothing happens when it is down already."""

    async def remove(self, container_id: str) -> None:
        """Remove it with its anonymous volumes; nothing happens when it is gone already."""

    async def inspect(self, container_id: str) -> ContainerSeen | None:
        """Its present state; None when there is no such container."""

    def events(self, cluster_id: ClusterId) -> AsyncGenerator[EngineEvent, None]:
        """Events of our containers from now on; ends or raises when the engine goes away. The first item is always one with the
        action `connected`: whoever lists after it misses nothing. Events are hints, listing is the truth."""

    def logs(
        self, container_id: str, *, follow: bool, tail: int | None, since_utc: float
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """(stream name, bytes) chunks of what the container wrote; ends at its end or, following, when it stops."""


# ---- the host -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostLoad:
    """A look at the host: thousandths used, load per core in thousandths."""

    cpu_used_permille: int
    memory_used_permille: int
    disk_used_permille: int
    load_permille: int
    cpu_pressure_permille: int | None = None
    """How much of the last ten seconds something that could run waited for a processor; None where the kernel does not say."""


class Host(Protocol):
    """The machine this daemon runs on."""

    def load(self) -> HostLoad:
        """Read /proc; microseconds."""

    def boot_id(self) -> str:
        """Differs after every reboot of the host."""
