"""A full disk (S9): a small filesystem of its own, really filled. Needs root, as the testnet does.

Of ext4 a share stays free that nobody can have, not even root; on a tmpfs the last page can be taken."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.adapters.ballast import BALLAST, make_room_to_start
from swarm.adapters.identity import open_data_folder
from swarm.adapters.store import SqliteStore, open_store
from swarm.errors import StartRefused, StoreFull
from swarm.model.command import SetReason
from swarm.model.entry import Entry, HardState
from swarm.model.ids import TaskId
from swarm.ports import Batch, Stored
from tests.archive_kit import KeptLog

MIB = 1024 * 1024
BALLAST_BYTES = 4 * MIB
SIZE_BYTES = 24 * MIB
EXT4_BYTES = 160 * MIB


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty filesystem: a tmpfs of 24 MiB, or an ext4 of 160, of which 3.2 MiB are nobody's."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "tmpfs":
        how = ["-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs"]
    else:
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, EXT4_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, timeout=20)
        how = ["-o", "loop", str(image)]
    if subprocess.run(["mount", *how, str(folder)], check=False, timeout=20).returncode:
        pytest.skip(f"no {request.param} can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)


def entry(index: int, size_bytes: int = 100) -> Entry:
    return Entry(index, 1, "task.reason", 1, bytes(size_bytes), 0, float(index))


def bulk(first: int) -> tuple[Entry, ...]:
    """Four entries, 2 MiB together."""
    return tuple(entry(index, MIB // 2) for index in range(first, first + 4))


def fill(folder: Path, *, leave_bytes: int = 0) -> Path:
    """Take all the room there is, as somebody else's data would."""
    hog = folder.parent / "hog" if folder.name == "data" else folder / "hog"
    with open(hog, "ab") as file:
        step = MIB
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                step //= 2
    if leave_bytes:
        os.truncate(hog, hog.stat().st_size - leave_bytes)
    return hog


def opened(folder: Path) -> SqliteStore:
    return open_store(folder / "data", ballast_bytes=BALLAST_BYTES)[0]


def allocated(folder: Path) -> int:
    return (folder / "data" / BALLAST).stat().st_blocks * 512


async def test_the_ballast_is_really_allocated_when_there_is_room(disk: Path) -> None:
    store = opened(disk)
    assert allocated(disk) == BALLAST_BYTES
    assert (store.room.full, store.room.reserve, store.room.where) == (False, True, str(disk / "data"))
    assert store.room.lacks_bytes == 0
    await store.close()


async def test_there_is_none_where_it_would_take_half_of_the_room(disk: Path) -> None:
    (disk / "data").mkdir()
    fill(disk / "data", leave_bytes=2 * BALLAST_BYTES - MIB)
    store = opened(disk)
    assert not (disk / "data" / BALLAST).exists()
    assert (store.room.full, store.room.reserve, store.room.lacks_bytes) == (False, False, BALLAST_BYTES)
    await store.close()


async def test_a_full_disk_gives_the_ballast_back_and_what_was_to_be_written_is_written(disk: Path) -> None:
    store = opened(disk)
    await store.write([Batch(1, (entry(1),))])
    fill(disk / "data")
    await store.write([Batch(2, bulk(2), hard_state=HardState(0, 2, "b"))])
    assert (store.room.full, store.room.reserve, allocated(disk)) == (True, False, 0)
    assert store.room.free_bytes > 0
    await store.write([Batch(3, hard_state=HardState(0, 3, "c"))])
    await store.close()
    store, stored = open_store(disk / "data")
    assert (stored.store_generation, stored.entries, stored.hard_state.term) == (1, (entry(1), *bulk(2)), 3)
    await store.close()


async def test_a_ballast_that_somebody_removed_is_no_reason_to_end(disk: Path) -> None:
    """A large file on a disk that fills is what people delete first."""
    store = opened(disk)
    (disk / "data" / BALLAST).unlink()
    hog = fill(disk / "data")
    with pytest.raises(StoreFull):
        await store.write([Batch(1, bulk(1))])
    hog.unlink()
    await store.write([Batch(1, bulk(1))])
    assert not store.room.full and allocated(disk) == BALLAST_BYTES
    await store.close()


async def test_a_disk_that_is_nearly_full_is_full_before_a_write_fails(disk: Path) -> None:
    store = opened(disk)
    fill(disk / "data", leave_bytes=MIB // 2)
    await store.probe()
    assert (store.room.full, store.room.reserve) == (True, False)
    await store.close()


async def test_without_any_room_a_write_fails_cleanly_and_the_same_write_succeeds_when_there_is(disk: Path) -> None:
    """Also the reserve is taken by others. Nothing of the failed write is there, and nothing before it is lost."""
    store = opened(disk)
    await store.write([Batch(1, (entry(1),))])
    hog = fill(disk / "data")
    await store.probe()
    fill(disk / "data")
    batch = Batch(2, (*bulk(2), entry(6)), hard_state=HardState(0, 2, "b"))
    for _ in range(5):
        with pytest.raises(StoreFull, match="no room on the disk of"):
            await store.write([batch])
        assert store.room.full
    copy, stored = open_copy(disk)
    assert (stored.entries, stored.hard_state) == ((entry(1),), HardState())
    await copy.close()
    hog.unlink()
    await store.write([batch])
    assert (store.room.full, store.room.reserve, allocated(disk)) == (False, True, BALLAST_BYTES)
    await store.close()
    store, stored = open_store(disk / "data")
    assert (stored.entries, stored.hard_state) == ((entry(1), *bulk(2), entry(6)), HardState(0, 2, "b"))
    await store.close()


def open_copy(disk: Path) -> tuple[SqliteStore, Stored]:
    """As after a crash at this moment, on a disk that has room."""
    copy = disk.parent / "copy"
    copy.mkdir()
    for name in ("log.db", "log.db-wal", "store.json", "log.mark"):
        (copy / name).write_bytes((disk / "data" / name).read_bytes())
    return open_store(copy)


async def test_the_log_does_not_grow_for_ever_on_a_full_disk(disk: Path) -> None:
    """Votes of many terms fit into what the write-ahead log and the reserve hold, since it is written over again and again."""
    store = opened(disk)
    fill(disk / "data")
    for term in range(1, 2001):
        await store.write([Batch(term, hard_state=HardState(0, term, "a"))])
    assert store.room.full
    await store.close()


async def test_a_daemon_started_on_a_full_disk_gives_the_ballast_back_first_and_knows_that_it_is_full(disk: Path) -> None:
    store = opened(disk)
    await store.write([Batch(1, (entry(1),), hard_state=HardState(0, 1, "a"))])
    await store.close()
    fill(disk / "data")
    make_room_to_start(disk / "data")
    (disk / "data" / "generation").write_bytes(b"2")
    for _ in range(2):
        store, stored = open_store(disk / "data", ballast_bytes=BALLAST_BYTES)
        assert (stored.entries, store.room.full, store.room.reserve) == ((entry(1),), True, False)
        await store.write([Batch(1, hard_state=HardState(0, stored.hard_state.term + 1, "a"))])
        await store.close()


async def test_a_disk_that_never_had_a_ballast_is_full_until_there_is_some_room(disk: Path) -> None:
    (disk / "data").mkdir()
    hog = fill(disk / "data", leave_bytes=MIB)
    store = opened(disk)
    with pytest.raises(StoreFull):
        await store.write([Batch(1, bulk(1))])
    assert store.room.full
    await store.probe()
    assert store.room.full
    hog.unlink()
    await store.probe()
    assert not store.room.full
    await store.close()


def test_the_history_loses_what_found_no_room_and_goes_on_when_there_is(disk: Path) -> None:
    """Each time it is tried a segment would begin, since what was not kept is missing before it."""
    kept = KeptLog(disk / "history", bytes_max=40_000)

    def more(count: int) -> None:
        for _ in range(count):
            kept.apply(SetReason(TaskId("none"), "waits"))
        kept.written = len(kept.records) - 1  # all but the last are not handed over: a gap

    for _ in range(40):
        more(1)
        kept.write()
    before = set((disk / "history").iterdir())
    assert len(before) > 2
    hog = fill(disk)
    for _ in range(3):
        more(2)
        with pytest.raises(OSError, match="No space left"):
            kept.write()
        fill(disk)
    assert set((disk / "history").iterdir()) <= before, "nothing empty is left behind"
    hog.unlink()
    more(2)
    kept.write()
    assert kept.past().newest == len(kept.records)


async def test_a_reserve_that_was_given_back_is_owed_until_it_is_made_again(disk: Path) -> None:
    store = opened(disk)
    assert store.room.owed_bytes == 0
    hog = fill(disk / "data")
    await store.write([Batch(1, bulk(1))])
    assert store.room.owed_bytes == BALLAST_BYTES
    hog.unlink()
    await store.probe()
    assert (store.room.owed_bytes, allocated(disk)) == (0, BALLAST_BYTES)
    await store.close()


def test_a_start_without_any_room_is_refused_with_the_way_out(disk: Path) -> None:
    hog = fill(disk / "data")
    with pytest.raises(StartRefused) as refused:
        open_data_folder(disk / "data", name="n1", rng=random.Random(1))
    assert (refused.value.cause.split(":")[0], refused.value.hint) == ("No space left on device", "free space on that disk")
    hog.unlink()
    open_data_folder(disk / "data", name="n1", rng=random.Random(1)).close()
