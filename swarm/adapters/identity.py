"""The data folder: who this node is, which cluster it belongs to, and how often it started.

    lock            held while a daemon runs: two of them cannot share a folder
    node.json       node id and name            (made once)
    key.pem         the node's P-256 key, 0600  (made once)
    generation      counts the daemon's starts  (synced before the number is used)
    cluster.json    cluster id, secrets, and what was learned at founding or joining, 0600
    displaced       there while the log is not to be used, with why: another daemon has acted under this identity, or the
                    cluster was recovered without it
    removed         there when this node knows, or was told, that it was removed from the cluster: which of the two

Every file is replaced whole: written beside, synced, renamed, folder synced. Everything here blocks on the disk for some
milliseconds; it happens at the start, or in a thread.

Promises: a generation is never handed out twice, also across a crash; a folder that cannot be used is refused by name before
anything in it changes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarm.adapters.certificates import Credentials, fingerprint, issue, public_key_der
from swarm.adapters.store_file import GENERATION as STORE_GENERATION
from swarm.errors import StartRefused
from swarm.model.ids import ClusterId, NodeId, is_id, random_id
from swarm.model.node import Node
from swarm.model.removal import Removal
from swarm.wire.keys import FOUND_SALT, cluster_salt

T = TypeVar("T")

LOCK, NODE, KEY, GENERATION, CLUSTER = "lock", "node.json", "key.pem", "generation", "cluster.json"
DISPLACED = "displaced"
REMOVED = "removed"
TAKEN = "another daemon acted under this node's identity"


class NodeFile(msgspec.Struct, frozen=True):
    """node.json."""

    node_id: NodeId
    name: str


class ClusterFile(msgspec.Struct, frozen=True):
    """cluster.json. `nodes` are the members known when it was written: where to find the cluster before the log is read."""

    cluster_id: ClusterId
    secret: bytes
    recovery_generation: int = 0
    found: bytes = b""
    """Entry 1, encoded, on a founder; empty on a node that joined."""
    nodes: tuple[Node, ...] = ()
    accepted: tuple[bytes, ...] = ()
    """Secrets of the cluster beside `secret`, with which this node does not send: those of a rotation under way."""
    former: tuple[bytes, ...] = ()
    """SHA-256 of secrets that were retired, newest last: a start that is still given an old token is told apart by them."""

    pinned: tuple[NodeId, ...] = ()
    """Members when the newest of the secrets was taken out of the log; empty while it is only known from others. Whom it may be
    handed to when the log has not been read that far."""

    recovering: int = 0
    """While `swarm recover` is not finished: the store generation of the log that `recovery_generation` is to begin with."""

    recovering_from: int = 0
    """The recovery generation to go back to when that log is not there any more."""

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """All that are accepted, the sending one first."""
        return (self.secret, *self.accepted)


@dataclass(slots=True)
class DataFolder:
    """An open, locked data folder. `close` releases the lock."""

    path: Path
    node_id: NodeId
    name: str
    generation: int
    """This start's number: gossip's generation, and the upper bits of the packet counter."""
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    cluster: ClusterFile | None = field(repr=False)
    _lock: int = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        return public_key_der(self.private_key.public_key())

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the public key."""
        return fingerprint(self.public_key)

    def save_cluster(self, cluster: ClusterFile) -> None:
        """Remember the cluster. Durable when it returns. Never changes to another cluster's id."""
        assert self.cluster is None or self.cluster.cluster_id == cluster.cluster_id
        _replace(self.path / CLUSTER, msgspec.json.format(msgspec.json.encode(cluster), indent=1) + b"\n")
        self.cluster = cluster

    def boot_credentials(self, secret: bytes) -> Credentials:
        """This node's certificate under the authority of the token alone."""
        return issue(secret, FOUND_SALT, self.node_id, self.private_key)

    def peer_credentials(self) -> Credentials:
        """This node's certificate under its cluster's authority: that of the secret it sends with."""
        assert self.cluster is not None, "no cluster yet"
        return self.credentials_of(self.cluster.secret)

    def credentials_of(self, secret: bytes) -> Credentials:
        """This node's certificate under the authority of one of its cluster's secrets."""
        assert self.cluster is not None, "no cluster yet"
        return issue(secret, cluster_salt(self.cluster.cluster_id), self.node_id, self.private_key)

    def raise_generation(self, generation: int) -> None:
        """Starts are counted from here on, where others heard of a later one. Durable when it returns; never lower."""
        if generation > self.generation:
            _replace(self.path / GENERATION, b"%d\n" % generation)
            self.generation = generation

    @property
    def displaced(self) -> str:
        """Why the log here is not to be used any more; empty when it is."""
        try:
            return (self.path / DISPLACED).read_text("utf-8", "replace").strip() or TAKEN
        except FileNotFoundError:
            return ""

    def mark_displaced(self, reason: str = TAKEN) -> bool:
        """The next start sets the log aside. Whether it is durable; blocks, in a daemon that is about to end."""
        try:
            _replace(self.path / DISPLACED, reason.encode())
        except OSError:
            return False  # a full disk; the daemon ends for the better reason, and a leader finds out that the log is short
        return True

    def clear_displaced(self) -> None:
        """The log was set aside, and a new one begun."""
        (self.path / DISPLACED).unlink(missing_ok=True)

    @property
    def removal(self) -> Removal:
        """What a start knows of this node's removal: that it was told, however certain it was then. It asks again."""
        return Removal.TOLD if (self.path / REMOVED).exists() else Removal.NONE

    def mark_removal(self, removal: Removal) -> None:
        """Durable when it returns. Raises OSError."""
        if removal:
            _replace(self.path / REMOVED, removal.encode())
        else:
            (self.path / REMOVED).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder for another process."""
        os.close(self._lock)


def open_data_folder(path: str | Path, *, name: str, rng: random.Random) -> DataFolder:
    """Open or make the folder, lock it, and count this start. Blocks on the disk. Raises `StartRefused`.

    `name` is used the first time and whenever it is not empty; `rng` should be `random.SystemRandom()` outside of tests.
    """
    folder = Path(path)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _take_lock(folder)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        return _read_folder(folder, lock, name, rng)
    except OSError as error:
        os.close(lock)
        raise _unusable(folder, error) from None
    except BaseException:
        os.close(lock)
        raise


def _read_folder(folder: Path, lock: int, name: str, rng: random.Random) -> DataFolder:
    node = _read(folder / NODE, NodeFile)
    cluster = _read(folder / CLUSTER, ClusterFile)
    _check_whole(folder, node, cluster)
    key = _read_or_make_key(folder)
    previous = _read(folder / GENERATION, int) or 0
    if node is None or (name and node.name != name):
        node = NodeFile(node.node_id if node else NodeId(random_id(rng)), name)
        _replace(folder / NODE, msgspec.json.encode(node) + b"\n")
    _replace(folder / GENERATION, b"%d\n" % (previous + 1))
    return DataFolder(folder, node.node_id, node.name, previous + 1, key, cluster, lock)


def _check_whole(folder: Path, node: NodeFile | None, cluster: ClusterFile | None) -> None:
    """Refuse a folder of which a part is missing.

    A new id under an old cluster would be admitted by nobody. A counter that begins anew is worse: an empty store under the
    first store generation would vote in the name of the one that was lost, and packets under the first start are dropped as old.
    """
    wrong = ""
    counters = [name for name in (STORE_GENERATION, GENERATION) if not (folder / name).exists()]
    if cluster is not None and (node is None or not (folder / KEY).exists()):
        wrong = f"{CLUSTER} is there, but not {NODE} or not {KEY}"
    elif node is not None and not (folder / KEY).exists():
        wrong = f"{NODE} is there, but not {KEY}"
    elif node is not None and not is_id(node.node_id):
        wrong = f"{NODE} holds no node id"
    elif cluster is not None and counters:
        wrong = f"{CLUSTER} is there, but not {counters[0]}"
    elif cluster is not None and (not is_id(cluster.cluster_id) or {len(each) for each in cluster.secrets} != {32}):
        wrong = f"{CLUSTER} holds no cluster id or no secret"
    if wrong:
        raise StartRefused(
            f"cannot use the data folder {folder}",
            cause=wrong,
            hint="put the missing file back, or run 'swarm reset' and join as a new node",
        )


def _take_lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartRefused(
            f"cannot use the data folder {folder}",
            cause="another swarm daemon is using it",
            hint="stop the other daemon, or give this one a folder of its own with --data",
        ) from None
    return descriptor


def _read_or_make_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    path = folder / KEY
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        _replace(path, fresh.private_bytes(encoding, form, serialization.NoEncryption()))
        return fresh
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _unreadable(path, "it holds no P-256 private key")
    return key


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise _unreadable(path, str(error)) from None


def _replace(path: Path, data: bytes) -> None:
    """Replace a file whole: written beside with mode 0600, synced, renamed, folder synced."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unusable(folder: Path, error: OSError) -> StartRefused:
    allow = "run the daemon as root, or give it a folder it may write with --data"
    return StartRefused(
        f"cannot use the data folder {folder}",
        cause=f"{error.strerror or error}: {error.filename or folder}",
        hint="free space on that disk" if error.errno == errno.ENOSPC else allow,
    )


def _unreadable(path: Path, cause: str) -> StartRefused:
    return StartRefused(
        f"cannot read {path}", cause=cause, hint="put a good copy back, or run 'swarm reset' and join as a new node"
    )
