"""Kept snapshots: whole or not there, for their owner only, and never more than their retention allows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from swarm.adapters.kept_snapshots import Kept, KeptSnapshots, Retention, write_whole
from swarm.errors import BadMessage, NotFound
from swarm.model.entry import Configuration, SnapshotMeta
from swarm.model.ids import ClusterId
from swarm.wire.checksum import crc32c
from swarm.wire.kept import KeptHeader, pack_head, parse_untrusted

DAY_S = 86_400.0


def header(index: int, data: bytes, kind: str = "daily", taken_utc: float = 0.0) -> KeptHeader:
    meta = SnapshotMeta(index, 1, Configuration(()), 1, 0, 1.5, crc32c(data), len(data))
    return KeptHeader(kind, ClusterId("c" * 32), meta, taken_utc, "n1", "1.0", 3, 4)


def keep(place: KeptSnapshots, index: int, kind: str = "daily", taken_utc: float = 0.0, size: int = 100) -> Kept:
    data = bytes([index % 256]) * size
    return place.save(header(index, data, kind, taken_utc), data)


def test_what_is_kept_is_listed_by_index_and_loads_as_it_was_saved(tmp_path: Path) -> None:
    place = KeptSnapshots(tmp_path)
    keep(place, 20)
    keep(place, 3, "history")
    first = keep(place, 7)
    assert [(each.index, each.header.kind) for each in KeptSnapshots(tmp_path).kept()] == [
        (3, "history"), (7, "daily"), (20, "daily"),
    ]  # fmt: skip
    assert [each.index for each in place.kept("history")] == [3]
    assert place.load(first) == bytes([7]) * 100


def test_files_and_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    kept = keep(KeptSnapshots(tmp_path), 1)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in kept.path.parent.iterdir()] == [kept.path.name], "nothing is left beside"


def test_a_file_is_written_beside_in_no_file_that_was_there_before(tmp_path: Path) -> None:
    """A folder of everybody's may hold a trap under any name that could be guessed."""
    victim, trap, wide = tmp_path / "victim", tmp_path / "backup.new", tmp_path / ".backup.new"
    victim.write_text("mine")
    trap.symlink_to(victim)
    wide.touch(mode=0o666)
    write_whole(tmp_path / "backup", b"secret")
    assert (tmp_path / "backup").read_bytes() == b"secret" and (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    assert victim.read_text() == "mine" and trap.is_symlink() and wide.read_bytes() == b""
    assert len(list(tmp_path.iterdir())) == 4, "nothing is left beside"


def test_a_torn_file_is_skipped_and_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = KeptSnapshots(tmp_path)
    torn, whole = keep(place, 1), keep(place, 2)
    torn.path.write_bytes(torn.path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert [each.index for each in place.kept()] == [whole.index]
        assert [each.index for each in place.kept()] == [whole.index]
    assert len(caplog.records) == 1 and torn.path.name in caplog.text


def test_every_cut_and_every_flipped_bit_is_noticed() -> None:
    data = b"catalog"
    whole = pack_head(header(1, data)) + data
    assert parse_untrusted(whole) == (header(1, data), data)
    damaged = [whole[:cut] for cut in range(len(whole))] + [whole + b"x"]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)]
    for each in damaged:
        with pytest.raises(BadMessage):
            parse_untrusted(each)


def test_a_snapshot_that_was_damaged_after_it_was_listed_is_refused(tmp_path: Path) -> None:
    place = KeptSnapshots(tmp_path)
    kept = keep(place, 1)
    content = bytearray(kept.path.read_bytes())
    content[-1] ^= 1
    kept.path.write_bytes(content)
    with pytest.raises(NotFound, match="daily-"):
        place.load(kept)


def test_retention_keeps_so_many_so_young_and_so_large_of_each_kind(tmp_path: Path) -> None:
    place = KeptSnapshots(tmp_path)
    for index in range(1, 11):
        keep(place, index, taken_utc=index * DAY_S)
    keep(place, 1, "history")
    place.prune("daily", Retention(count_max=7), 10 * DAY_S)
    assert [each.index for each in place.kept("daily")] == [4, 5, 6, 7, 8, 9, 10]
    place.prune("daily", Retention(age_max_s=3 * DAY_S), 10 * DAY_S)
    assert [each.index for each in place.kept("daily")] == [7, 8, 9, 10]
    place.prune("daily", Retention(bytes_max=2 * place.kept("daily")[0].size_bytes), 10 * DAY_S)
    assert [each.index for each in place.kept("daily")] == [9, 10]
    assert [each.index for each in place.kept("history")] == [1], "another kind is not touched"


def test_the_newest_stays_however_old_and_large(tmp_path: Path) -> None:
    place = KeptSnapshots(tmp_path)
    keep(place, 1)
    assert place.prune("daily", Retention(count_max=0, bytes_max=0, age_max_s=0.0), 100 * DAY_S) == []
    assert [each.index for each in place.kept()] == [1]
