"""A new cluster from a backup: prepares a data folder, so that the next `swarm up` on it comes back to a cluster that never was.

The folder gets an identity and a key of its own, a new cluster id and a new secret, and a store that begins with the backup's
snapshot, made fit for the new cluster (`catalog.backup`). Everything is read and checked before anything is written.

What a start leaves that founded and joined nothing (a port was taken, say) is as good as an empty folder: an identity that nobody
has admitted.

Promise: a folder that holds anything else is refused, as is one that a daemon has open; one that could not be prepared is left
empty.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import trio

from swarm.adapters.ballast import BALLAST
from swarm.adapters.clock import SystemClock
from swarm.adapters.identity import GENERATION, KEY, LOCK, NODE, ClusterFile, DataFolder, open_data_folder
from swarm.adapters.store import open_store
from swarm.adapters.store_file import DATABASE, MARK, SNAPSHOTS
from swarm.adapters.store_file import GENERATION as STORE_GENERATION
from swarm.catalog.backup import Contents, contents_untrusted, for_new_cluster_untrusted
from swarm.errors import BadMessage, Conflict, NotFound, StartRefused, UsageError
from swarm.model.command import SCHEMA_KNOWN
from swarm.model.entry import Configuration, HardState, SnapshotMeta, Voter
from swarm.model.ids import ClusterId, random_id
from swarm.model.node import Node
from swarm.node.site import BOOT_FILE
from swarm.ports import Batch
from swarm.schema.waiting import is_locked
from swarm.wire.checksum import crc32c
from swarm.wire.kept import KeptHeader, parse_untrusted

_OF_A_START = frozenset({
    LOCK, NODE, KEY, GENERATION, STORE_GENERATION, BOOT_FILE, BALLAST, MARK, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm",
    SNAPSHOTS,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made."""

    cluster_id: ClusterId
    header: KeptHeader
    contents: Contents


def read_backup(path: str) -> tuple[KeptHeader, bytes, Contents]:
    """A file, verified to its last byte. Raises `NotFound` or `UsageError`."""
    try:
        whole = Path(path).read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}", cause=error.strerror or str(error)) from None
    try:
        header, data = parse_untrusted(whole)
        return header, data, contents_untrusted(data)
    except BadMessage as problem:
        hint = "it is damaged, or no backup: take another one (swarm backup ls lists what a node keeps)"
        raise UsageError(f"cannot use {path}", cause=str(problem), hint=hint) from None


def restore_backup(path: str, folder: str, *, name: str, empty_volumes: bool) -> Restored:
    """Prepare `folder`. Raises `NotFound`, `UsageError`, `Conflict` or `StartRefused`, with the folder as it was."""
    header, data, contents = read_backup(path)
    _check_folder(folder)
    if contents.pinned and not empty_volumes:
        named = ", ".join(f"{task} (on {node})" for task, node in contents.pinned[:10])
        raise Conflict(
            f"cannot restore: {len(contents.pinned)} tasks have their data on nodes of the old cluster", cause=named,
            hint="they would start on any node, with the volumes found there, or empty ones; to accept that: --empty-volumes",
        )  # fmt: skip
    cluster_id = ClusterId(random_id(random.SystemRandom()))
    try:
        _prepare(folder, header, data, cluster_id, name)
    except Conflict:
        raise  # it holds a log
    except BaseException as problem:
        for each in os.listdir(folder) if os.path.isdir(folder) else ():
            shutil.rmtree(whole) if os.path.isdir(whole := os.path.join(folder, each)) else os.unlink(whole)
        if isinstance(problem, BadMessage):
            raise UsageError(f"cannot use {path}", cause=str(problem)) from None
        if isinstance(problem, OSError):
            raise StartRefused(f"cannot restore into {folder}", cause=problem.strerror or str(problem)) from None
        raise
    return Restored(cluster_id, header, contents)


def _check_folder(folder: str) -> None:
    """Raises `Conflict` unless nothing is there, or only what a start leaves."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if is_locked(os.path.join(folder, LOCK)):
        raise Conflict(f"cannot restore into {folder}", cause="a daemon has it open", hint="end it first: swarm down")
    if not _OF_A_START.issuperset(names):
        raise _not_empty(folder)


def _not_empty(folder: str) -> Conflict:
    hint = "on a member: swarm reset; or name another with --data"
    return Conflict(f"cannot restore into {folder}", cause="it is not empty", hint=hint)


def _prepare(folder: str, header: KeptHeader, data: bytes, cluster_id: ClusterId, name: str) -> None:
    opened = open_data_folder(folder, name=name, rng=random.SystemRandom())
    try:
        store, stored = open_store(opened.path)
        if stored.entries or stored.snapshot is not None:
            raise _not_empty(folder)
        me = _node(opened, stored.store_generation)
        term, utc = header.meta.term, SystemClock().utc()
        new, index = for_new_cluster_untrusted(data, cluster_id=cluster_id, me=me, term=term, time_utc=utc)
        voters = Configuration((Voter(me.id, me.store_generation),))
        meta = SnapshotMeta(index, term, voters, index, 0, utc, crc32c(new), len(new))

        async def write() -> None:
            spool = await store.spool()
            await spool.append(new)
            written = await spool.finish(meta)
            hard_state = HardState(0, term, "")
            await store.write((Batch(1, hard_state=hard_state, snapshot=meta, snapshot_data=written, discard_log=True),))
            await store.close()

        trio.run(write)
        opened.save_cluster(ClusterFile(cluster_id, os.urandom(32)))
    finally:
        opened.close()


def _node(folder: DataFolder, store_generation: int) -> Node:
    """This node as far as it is known before it starts; it declares the rest itself."""
    return Node(
        folder.node_id, folder.name, "", "", folder.fingerprint, folder.public_key, store_generation, schema_known=SCHEMA_KNOWN
    )
