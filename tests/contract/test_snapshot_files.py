"""Snapshots beside the database: the contract of `ports.Spool`, kept by the fake and by files, and a crash after every step of
the switch from one snapshot to the next (PROTOCOLS S10)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from swarm.adapters.store import SqliteStore, open_store
from swarm.errors import Unavailable
from swarm.model.entry import Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.ports import Batch, SnapshotData, Store
from swarm.wire.checksum import crc32c
from tests.fakes.memory_store import MemoryStore

OLD, NEW = b"the old catalog " * 9_000, b"the new catalog " * 10_000


def meta_of(index: int, data: bytes) -> SnapshotMeta:
    return SnapshotMeta(index, 1, Configuration((Voter("a", 1),)), 1, 0, float(index), crc32c(data), len(data))


def entries(first: int, last: int) -> tuple[Entry, ...]:
    return tuple(Entry(index, 1, "task.reason", 1, b"%d" % index, 0, float(index)) for index in range(first, last + 1))


async def spooled(store: Store, index: int, data: bytes) -> tuple[SnapshotMeta, SnapshotData]:
    spool = await store.spool()
    for start in range(0, len(data), 50_000):
        await spool.append(data[start : start + 50_000])
    meta = meta_of(index, data)
    return meta, await spool.finish(meta)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else open_store(tmp_path)[0]


async def test_what_was_spooled_is_read_again_in_pieces(store: Store) -> None:
    _, data = await spooled(store, 3, NEW)
    assert len(data) == len(NEW)
    assert await store.read(data, 70_000, 90_000) == NEW[70_000:90_000]
    assert await store.read(data, len(NEW) - 5, len(NEW) + 5) == NEW[-5:]
    assert data[:] == NEW
    await store.close()


async def test_a_snapshot_that_was_replaced_can_still_be_read_by_who_holds_it(store: Store) -> None:
    await store.write([Batch(1, entries(1, 9))])
    old_meta, old = await spooled(store, 3, OLD)
    await store.write([Batch(2, snapshot=old_meta, snapshot_data=old)])
    new_meta, new = await spooled(store, 6, NEW)
    await store.write([Batch(3, snapshot=new_meta, snapshot_data=new)])
    assert old[:] == OLD, "a transfer of it may be under way"
    await store.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in (folder / "log.snapshots").iterdir())


async def with_old(folder: Path) -> SqliteStore:
    store, _ = open_store(folder)
    await store.write([Batch(1, entries(1, 9), hard_state=HardState(0, 1, "a"))])
    meta, data = await spooled(store, 3, OLD)
    await store.write([Batch(2, snapshot=meta, snapshot_data=data)])
    return store


async def step_part(store: SqliteStore) -> None:
    await (await store.spool()).append(NEW[:70_000])


async def step_named(store: SqliteStore) -> None:
    await spooled(store, 6, NEW)


async def step_switched(store: SqliteStore) -> None:
    meta, data = await spooled(store, 6, NEW)
    await store.write([Batch(3, snapshot=meta, snapshot_data=data)])


@pytest.mark.parametrize(
    ("step", "index"), [(step_part, 3), (step_named, 3), (step_switched, 6)], ids=["half written", "named", "switched"]
)
async def test_after_a_crash_the_old_snapshot_stands_or_the_new_one_and_nothing_else_is_left(tmp_path: Path, step, index) -> None:
 # type: ignore[no-untyped-def]
    store = await with_old(tmp_path)
    await step(store)
    await store.close()
    store, stored = open_store(tmp_path)
    assert stored.snapshot is not None and stored.snapshot_data is not None
    assert (stored.store_generation, stored.snapshot.index) == (1, index)
    assert stored.snapshot_data[:] == (OLD if index == 3 else NEW)
    assert stored.entries == entries(index + 1, 9)
    assert files(tmp_path) == [str(index)]
    await store.close()


async def test_the_old_file_goes_after_the_switch_and_one_that_waits_for_its_turn_stays(tmp_path: Path) -> None:
    store = await with_old(tmp_path)
    waiting_meta, waiting = await spooled(store, 8, NEW)
    meta, data = await spooled(store, 6, NEW)
    await store.write([Batch(3, snapshot=meta, snapshot_data=data)])
    await store.probe()
    assert files(tmp_path) == ["6", "8"], "an idle disk has time to remove it"
    await store.write([Batch(4, snapshot=waiting_meta, snapshot_data=waiting)])
    del data
    await store.close()
    store, stored = open_store(tmp_path)
    assert (stored.snapshot, files(tmp_path)) == (waiting_meta, ["8"])
    await store.close()


async def test_a_discarded_spool_leaves_nothing_and_a_finished_one_is_not_discarded(tmp_path: Path) -> None:
    store = await with_old(tmp_path)
    spool = await store.spool()
    await spool.append(NEW)
    await spool.discard()
    assert files(tmp_path) == ["3"]
    spool = await store.spool()
    await spool.append(NEW)
    data = await spool.finish(meta_of(6, NEW))
    await spool.discard()
    assert data[:] == NEW
    await store.close()


@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
async def test_a_damaged_snapshot_file_begins_a_new_store_generation(tmp_path: Path, damage: str) -> None:
    store = await with_old(tmp_path)
    await store.close()
    path = next((tmp_path / "log.snapshots").iterdir())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(OLD[:-1])
    else:
        path.write_bytes(OLD[:77] + b"X" + OLD[78:])
    store, stored = open_store(tmp_path)
    assert (stored.store_generation, stored.snapshot, stored.entries) == (2, None, ())
    assert (tmp_path / "log.snapshots.damaged-1").exists(), "for whoever wants to look"
    await store.close()


async def test_a_snapshot_inside_the_database_is_read_and_the_next_one_replaces_it(tmp_path: Path) -> None:
    """As programs before files kept it."""
    store, _ = open_store(tmp_path)
    await store.write([Batch(1, entries(1, 9)), Batch(2, snapshot=meta_of(3, OLD), snapshot_data=OLD)])
    await store.close()
    store, stored = open_store(tmp_path)
    assert (stored.snapshot, stored.snapshot_data) == (meta_of(3, OLD), OLD)
    meta, data = await spooled(store, 6, NEW)
    await store.write([Batch(3, snapshot=meta, snapshot_data=data)])
    await store.close()
    connection = sqlite3.connect(tmp_path / "log.db")
    rows = connection.execute("SELECT count(*) FROM fact WHERE name = 'snapshot data'").fetchall()
    connection.close()
    assert rows == [(0,)], "its bytes do not stay in the database"
    store, stored = open_store(tmp_path)
    assert stored.snapshot_data is not None and stored.snapshot_data[:] == NEW
    await store.close()


async def test_a_folder_that_takes_no_snapshot_refuses_it_and_the_log_goes_on(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    (tmp_path / "log.snapshots").write_bytes(b"in the way")
    with pytest.raises(Unavailable, match="begin a snapshot"):
        await store.spool()
    await store.write([Batch(1, entries(1, 2))])
    (tmp_path / "log.snapshots").unlink()
    await store.close()
    store, stored = open_store(tmp_path)
    assert stored.entries == entries(1, 2)
    await store.close()
