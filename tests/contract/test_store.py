"""The contract of `ports.Store`, kept by the fake in memory and by SQLite; and what only a file can do: be damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.adapters import store_rows
from swarm.adapters.store import open_store
from swarm.errors import StartRefused, StoreFailure
from swarm.model.entry import Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.ports import Batch, Store, Stored
from swarm.wire.checksum import crc32c
from swarm.wire.codec import encode
from tests.fakes.memory_store import MemoryStore

Reopen = Callable[[Store], Awaitable[tuple[Store, Stored]]]
DATA = b"a catalog"


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(index, term, "task.reason", 1, b"payload %d" % index, 0, float(index)) for index in range(first, last + 1))


def snapshot_at(index: int) -> SnapshotMeta:
    return SnapshotMeta(index, 1, Configuration((Voter("a", 1),)), 1, 0, float(index), crc32c(DATA), len(DATA))


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Opens the store anew, as after a crash of the process; the first time with whatever store is given."""

    async def again(store: Store) -> tuple[Store, Stored]:
        if isinstance(store, MemoryStore) and request.param == "memory":
            return store, store.durable
        await store.close()
        return open_store(tmp_path)

    return again


async def opened(reopen: Reopen) -> Store:
    return (await reopen(MemoryStore()))[0]


async def test_a_new_store_is_empty_and_of_the_first_generation(reopen: Reopen) -> None:
    _, stored = await reopen(await opened(reopen))
    assert stored == Stored(1, HardState(), (), None, None)


async def test_what_was_written_is_there_again(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 3)), Batch(2, entries(4, 5), hard_state=HardState(2, 7, "b"))])
    store, stored = await reopen(store)
    assert stored == Stored(1, HardState(2, 7, "b"), entries(1, 5), None, None)
    await store.close()


async def test_a_truncated_tail_is_replaced(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 5))])
    await store.write([Batch(2, entries(4, 4, term=2), truncate_from=4)])
    await store.write([Batch(3, entries(5, 6, term=2))])
    store, stored = await reopen(store)
    assert stored.entries == entries(1, 3) + entries(4, 6, term=2)
    await store.close()


async def test_a_tail_can_be_truncated_without_a_replacement(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 5)), Batch(2, truncate_from=2)])
    store, stored = await reopen(store)
    assert stored.entries == entries(1, 1)
    await store.close()


async def test_a_snapshot_replaces_the_log_up_to_its_index(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 5))])
    await store.write([Batch(2, entries(6, 6), snapshot=snapshot_at(3), snapshot_data=DATA)])
    await store.write([Batch(3, entries(7, 7))])
    store, stored = await reopen(store)
    assert stored == Stored(1, HardState(), entries(4, 7), snapshot_at(3), DATA)
    await store.close()


async def test_a_snapshot_of_the_whole_log_leaves_none_and_the_log_goes_on_behind_it(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 5)), Batch(2, snapshot=snapshot_at(5), snapshot_data=DATA)])
    await store.write([Batch(3, entries(6, 7))])
    store, stored = await reopen(store)
    assert (stored.entries, stored.snapshot) == (entries(6, 7), snapshot_at(5))
    await store.close()


async def test_a_received_snapshot_discards_a_log_that_does_not_match(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 9))])
    await store.write([Batch(2, entries(8, 8, term=2), snapshot=snapshot_at(7), snapshot_data=DATA, discard_log=True)])
    store, stored = await reopen(store)
    assert (stored.entries, stored.snapshot) == (entries(8, 8, term=2), snapshot_at(7))
    await store.close()


async def test_a_probe_changes_nothing(reopen: Reopen) -> None:
    store = await opened(reopen)
    await store.write([Batch(1, entries(1, 2))])
    await store.probe()
    store, stored = await reopen(store)
    assert stored.entries == entries(1, 2)
    await store.close()


async def test_after_a_failed_write_nothing_is_written_any_more_in_memory() -> None:
    store = MemoryStore()
    store.fail_next = True
    with pytest.raises(StoreFailure):
        await store.write([Batch(1, entries(1, 1))])
    store.fail_next = False
    with pytest.raises(StoreFailure):
        await store.write([Batch(1, entries(1, 1))])
    assert store.durable.entries == ()


async def test_after_a_failed_write_nothing_is_written_any_more(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    await store.write([Batch(1, entries(1, 3))])
    with pytest.raises(StoreFailure, match="write the log"):
        await store.write([Batch(2, entries(3, 3))])  # the row is taken: SQLite refuses it
    with pytest.raises(StoreFailure, match="an earlier write failed"):
        await store.write([Batch(3, entries(4, 4))])
    with pytest.raises(StoreFailure, match="an earlier write failed"):
        await store.probe()
    await store.close()
    store, stored = open_store(tmp_path)
    assert stored.entries == entries(1, 3)
    await store.close()


async def written(folder: Path) -> None:
    store, _ = open_store(folder)
    await store.write([Batch(1, entries(1, 9), hard_state=HardState(0, 1, "a"))])
    await store.write([Batch(2, snapshot=snapshot_at(3), snapshot_data=DATA)])
    await store.close()


DAMAGE = {
    "a row's content": "UPDATE log SET content = CAST(replace(content, 'payload 5', 'payload 6') AS BLOB) WHERE position = 5",
    "a row's checksum": "UPDATE log SET chain = chain + 1 WHERE position = 9",
    "a lost row": "DELETE FROM log WHERE position = 6",
    "a lost first row": "DELETE FROM log WHERE position = 4",
    "a swapped row": "UPDATE log SET content = (SELECT content FROM log WHERE position = 5) WHERE position = 6",
    "the vote": "UPDATE fact SET content = x'830001616b' WHERE name = 'hard'",
    "a lost vote": "DELETE FROM fact WHERE name = 'hard'",
    "a vote in another's place": "UPDATE fact SET content = (SELECT content FROM fact WHERE name = 'anchor'), checksum = "
    "(SELECT checksum FROM fact WHERE name = 'anchor') WHERE name = 'hard'",
    "the snapshot's data": "UPDATE fact SET content = x'00' WHERE name = 'snapshot data'",
    "a lost snapshot": "DELETE FROM fact WHERE name = 'snapshot'",
    "a lost table": "DROP TABLE log",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE.keys())
async def test_damage_is_found_and_begins_a_new_store_generation(tmp_path: Path, statement: str) -> None:
    await written(tmp_path)
    connection = sqlite3.connect(tmp_path / "log.db")
    with connection:
        connection.execute(statement)
    connection.close()
    store, stored = open_store(tmp_path)
    assert stored == Stored(2, HardState(), (), None, None)
    assert (tmp_path / "log.db.damaged-1").exists(), "for whoever wants to look"
    await store.close()
    store, stored = open_store(tmp_path)
    assert stored.store_generation == 2, "an undamaged store keeps its generation"
    await store.close()


async def test_a_missing_database_begins_a_new_store_generation(tmp_path: Path) -> None:
    await written(tmp_path)
    (tmp_path / "log.db").unlink()
    store, stored = open_store(tmp_path)
    assert stored.store_generation == 2
    await store.close()


async def test_a_store_that_is_not_trusted_is_set_aside_and_begins_a_new_store_generation(tmp_path: Path) -> None:
    await written(tmp_path)
    store, stored = open_store(tmp_path, trusted=False)
    assert stored == Stored(2, HardState(), (), None, None)
    assert (tmp_path / "log.db.replaced-1").exists(), "it is whole, and named so"
    await store.close()
    store, stored = open_store(tmp_path)
    assert stored.store_generation == 2
    await store.close()


async def test_an_older_copy_of_the_database_is_not_taken_for_the_present_one(tmp_path: Path) -> None:
    await written(tmp_path)
    old = (tmp_path / "log.db").read_bytes()
    (tmp_path / "log.db").unlink()
    store, _ = open_store(tmp_path)
    await store.close()
    (tmp_path / "log.db").write_bytes(old)
    store, stored = open_store(tmp_path)
    assert stored.store_generation == 3
    await store.close()


@pytest.mark.parametrize("content", [None, b"", b'{"store_generation":1,"crc32c":1}', b"\xff"])
async def test_a_generation_that_cannot_be_read_is_never_begun_anew(tmp_path: Path, content: bytes | None) -> None:
    await written(tmp_path)
    (tmp_path / "store.json").unlink()
    if content is not None:
        (tmp_path / "store.json").write_bytes(content)
    with pytest.raises(StoreFailure, match=r"store\.json"):
        open_store(tmp_path)


async def test_a_store_of_a_newer_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    await store.write([Batch(1, entries(1, 3))])
    await store.close()
    connection = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    connection.execute("BEGIN")
    store_rows._put(connection, "schema", encode(store_rows.STORE_SCHEMA + 1))
    connection.execute("COMMIT")
    connection.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        with pytest.raises(StartRefused, match="cannot open the store") as refused:
            open_store(tmp_path)
        assert "newer swarm wrote it" in refused.value.cause and "upgrade swarm" in refused.value.hint
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: data for name, data in after.items() if not name.endswith(("-wal", "-shm"))} == before


async def test_a_store_that_names_no_schema_is_of_the_first(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    await store.write([Batch(1, entries(1, 3))])
    await store.close()
    connection = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    connection.execute("DELETE FROM fact WHERE name = 'schema'")
    connection.close()
    store, stored = open_store(tmp_path)
    assert (stored.store_generation, stored.entries) == (1, entries(1, 3))
    await store.close()
