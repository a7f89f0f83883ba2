"""What a disk can do to the store's files: torn writes, flipped bits, lost files, failing syncs (S5 to S8 of the safety list).

Each test makes the files as a killed process leaves them (everything in the write-ahead log) or as a closed one does, harms a
copy, and opens that. The rule is always the same: what comes back is exactly what was written, up to at least the last
acknowledged write, or the store begins empty under a new generation.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.adapters.store import open_store
from swarm.errors import StoreFailure
from swarm.model.entry import Committed, Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.ports import Batch, Stored
from swarm.wire.checksum import crc32c

CHILD = "tests.contract.store_fault_child"
DATABASE, LOG, MARK, GENERATION = "log.db", "log.db-wal", "log.mark", "store.json"
MEMORY = Path("/dev/shm")
NEW = Stored(2, HardState(), (), None, None)
DATA = b"a catalog" * 100
CONFIGURATION = Configuration((Voter("a", 1),))


def entry(index: int) -> Entry:
    return Entry(index, 1, "task.reason", 1, b"payload %d" % index * 20, 0, float(index))


BATCHES = (
    Batch(1, (entry(1), entry(2)), hard_state=HardState(0, 1, "a")),
    Batch(2, (entry(3),), committed=Committed(0, 2, 1)),
    Batch(3, (entry(4), entry(5))),
    Batch(4, truncate_from=5),
    Batch(5, snapshot=SnapshotMeta(2, 1, CONFIGURATION, 1, 0, 2.0, crc32c(DATA), len(DATA)), snapshot_data=DATA),
    Batch(6, (entry(5),), hard_state=HardState(0, 2, "b"), committed=Committed(0, 4, 1)),
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory: hundreds of copies are opened, and what a real disk does to them is done by hand."""
    folder = Path(tempfile.mkdtemp(prefix="swarm-store-", dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


class Files:
    """A store's files as they were at the end, and what it held after each write."""

    def __init__(self, folder: Path, states: list[Stored]) -> None:
        self.content = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.states = states

    def lay(self, folder: Path, **harmed: bytes | None) -> Path:
        """Put them into an empty folder; `harmed` by the part of the name that tells them apart (None: lost)."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        names = {"database": DATABASE, "log": LOG, "mark": MARK, "generation": GENERATION}
        for name, content in (self.content | {names[key]: value for key, value in harmed.items()}).items():
            if content is not None:
                (folder / name).write_bytes(content)
        return folder


async def opened(folder: Path) -> Stored:
    store, stored = open_store(folder)
    await store.close()
    return stored


@pytest.fixture
async def killed(place: Path) -> Files:
    """Everything is in the write-ahead log; nothing was closed."""
    store, stored = open_store(place / "written")
    states = [stored]
    for batch in BATCHES:
        await store.write([batch])
        copy = Files(place / "written", []).lay(place / "copy")
        states.append(await opened(copy))
    files = Files(place / "written", states)
    await store.close()
    return files


@pytest.fixture
async def closed(place: Path, killed: Files) -> Files:
    """Everything is in the database; there is no log."""
    folder = killed.lay(place / "closed")
    await opened(folder)
    return Files(folder, killed.states)


def offsets(size_bytes: int) -> Iterator[int]:
    """Offsets all over a file: odd ones in every page, and around every page's end."""
    yield from range(0, size_bytes, 1499)
    yield from (at for page in range(4096, size_bytes, 8192) for at in (page - 1, page, page + 32))


async def test_the_states_differ_and_the_last_is_everything(killed: Files) -> None:
    last = killed.states[-1]
    assert len(set(map(repr, killed.states))) == len(BATCHES) + 1
    assert (last.entries, last.hard_state) == ((entry(3), entry(4), entry(5)), HardState(0, 2, "b"))
    assert (last.snapshot_data, last.committed) == (DATA, Committed(0, 4, 1))


STALE: dict[str, Callable[[bytes, int], bytes]] = {
    "nothing": lambda log, at: b"",
    "zeros": lambda log, at: bytes(len(log) - at),
    "frames of earlier": lambda log, at: log[32 : 32 + len(log) - at],
    "the same frames one further": lambda log, at: log[at + 4120 :],
}


@pytest.mark.parametrize("behind", STALE.values(), ids=STALE.keys())
async def test_s7_an_unsynced_tail_torn_anywhere_leaves_a_state_that_was_written(
    place: Path, killed: Files, behind: Callable[[bytes, int], bytes]
) -> None:
    """A power cut: what was not synced is torn, and the mark, never synced, is gone with it."""
    log = killed.content[LOG]
    reached = 0
    for at in sorted(offsets(len(log))):
        stored = await opened(killed.lay(place / "torn", log=log[:at] + behind(log, at), mark=None))
        state = killed.states.index(stored) if stored != NEW else 0
        assert stored == NEW or state >= reached, f"cut at {at}: state {state} after {reached}"
        reached = max(reached, state)
    assert reached >= len(BATCHES) - 1, "the cuts reached into the last write"


@pytest.mark.parametrize("behind", STALE.values(), ids=STALE.keys())
async def test_s8_an_acknowledged_write_cut_out_of_the_log_is_never_silently_lost(
    place: Path, killed: Files, behind: Callable[[bytes, int], bytes]
) -> None:
    """A killed process: everything was synced, so what is missing was lost by the disk."""
    log = killed.content[LOG]
    for at in offsets(len(log)):
        harmed = log[:at] + behind(log, at)
        stored = await opened(killed.lay(place / "cut", log=harmed))
        assert stored == (killed.states[-1] if harmed == log else NEW), f"cut at {at}"


@pytest.mark.parametrize("part", ["log", "database", "mark"])
async def test_s8_a_flipped_bit_anywhere_is_found_or_harmless(place: Path, killed: Files, closed: Files, part: str) -> None:
    files, name = (closed, DATABASE) if part == "database" else (killed, LOG if part == "log" else MARK)
    whole = files.content[name]
    found = 0
    for at in offsets(len(whole)) if part != "mark" else range(len(whole)):
        harmed = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        stored = await opened(files.lay(place / "flipped", **{part: harmed}))
        assert stored in (files.states[-1], NEW), f"bit flipped at {at}"
        found += stored == NEW
    assert (found > 0) == (part != "mark"), "the mark is a hint: without it there is nothing wrong"


async def test_s8_a_database_cut_anywhere_is_never_taken_for_the_whole(place: Path, closed: Files) -> None:
    whole = closed.content[DATABASE]
    for at in offsets(len(whole)):
        assert await opened(closed.lay(place / "cut", database=whole[:at])) == NEW, f"cut at {at}"


@pytest.mark.parametrize(
    ("lost", "is_found"), [("database", True), ("log", True), ("mark", False)], ids=["database", "log", "mark"]
)
async def test_s12_a_lost_file_begins_a_new_generation_unless_nothing_was_in_it(
    place: Path, killed: Files, lost: str, is_found: bool
) -> None:
    stored = await opened(killed.lay(place / "lost", **{lost: None}))
    assert stored == (NEW if is_found else killed.states[-1])


async def test_s12_a_lost_generation_is_an_error_and_not_a_new_beginning(place: Path, killed: Files) -> None:
    with pytest.raises(StoreFailure, match=r"store\.json is missing"):
        open_store(killed.lay(place / "lost", generation=None))


async def test_s8_what_was_damaged_is_kept_as_it_was_found(place: Path, killed: Files) -> None:
    harmed = killed.content[LOG][:5000]
    folder = killed.lay(place / "cut", log=harmed)
    assert await opened(folder) == NEW
    assert (folder / "log.db.damaged-1-wal").read_bytes() == harmed


async def test_s8_an_older_copy_of_the_database_is_not_taken_for_the_present_one(place: Path, closed: Files) -> None:
    folder = closed.lay(place / "old")
    store, _ = open_store(folder)
    await store.write([Batch(7, (entry(6),))])
    await store.close()
    (folder / DATABASE).write_bytes(closed.content[DATABASE])
    assert await opened(folder) == NEW


async def test_s8_a_commit_index_beyond_the_log_is_damage(place: Path, closed: Files) -> None:
    """Somebody's repair that drops the end of the log, in a file that is otherwise whole."""
    folder = closed.lay(place / "short")
    store, _ = open_store(folder)
    await store.write([Batch(7, committed=Committed(0, 5, 1))])
    await store.write([Batch(8, truncate_from=5)])
    await store.close()
    assert await opened(folder) == NEW


async def test_a_store_that_knows_no_commit_index_and_has_no_mark_opens_as_it_is(place: Path) -> None:
    store, _ = open_store(place)
    await store.write([Batch(1, (entry(1),))])
    await store.close()
    (place / MARK).unlink()
    assert await opened(place) == Stored(1, HardState(), (entry(1),), None, None, Committed())


async def test_a_log_removed_under_a_running_process_is_noticed_at_the_next_write(place: Path) -> None:
    store, _ = open_store(place)
    await store.write([Batch(1, (entry(1),))])
    (place / LOG).unlink()
    with pytest.raises(StoreFailure, match="No such file"):
        await store.write([Batch(2, (entry(2),))])
    await store.close()


# ---- a sync that fails ----------------------------------------------------------------------------------------------------

SYNC = re.compile(r"(fdatasync|fsync)\(\d+<(?P<file>[^>]*)>\) += (?P<result>-?\d+)")
WRITE = re.compile(r"pwrite64\(\d+<[^>]*log\.db(-wal)?>")


def injected(folder: Path, nth: int) -> tuple[list[str], list[str]]:
    """What the child said, and its writes and syncs, when a thread's `nth` sync fails with EIO once and all others
    succeed. The thread that opens the store makes fewer."""
    trace = folder / "trace"
    command = ["strace", "-f", "-y", "-s", "0", "-e", "trace=pwrite64,fdatasync,fsync", "-o", str(trace)]
    command += ["-e", f"inject=fdatasync,fsync:error=EIO:when={nth}", sys.executable, "-m", CHILD, str(folder / "store")]
    done = subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    return done.stdout.split("\n")[:-1], trace.read_text().splitlines()


@pytest.mark.parametrize("nth", [19, 20, 21])
async def test_s6_a_failed_sync_is_final_wherever_it_hits(tmp_path: Path, nth: int) -> None:
    """The child checkpoints after every write: syncs of a commit, of the log before a checkpoint, and of the database."""
    said, traced = injected(tmp_path, nth)
    failed = next(number for number, line in enumerate(traced) if "EIO" in line)
    assert not [line for line in traced[failed + 1 :] if WRITE.search(line)], "nothing is written after a sync failed"
    acknowledged = [int(line.split()[1]) for line in said if line.startswith("ACKNOWLEDGED")]
    refused = [line for line in said if line.startswith("REFUSED")]
    assert len(refused) == 10 - len(acknowledged) and all("an earlier write failed" in line for line in refused[1:])
    assert acknowledged == list(range(1, len(acknowledged) + 1)), "nothing is acknowledged after it"
    stored = await opened(tmp_path / "store")
    assert len(stored.entries) >= len(acknowledged), "and everything before it is there"
