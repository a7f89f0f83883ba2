"""The archive: what is kept, what a crash, damage, a full disk and a recovery leave of it, and that its bounds hold."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from swarm.adapters import archive_file as files
from swarm.adapters.past import Past
from swarm.cli.up import checked_history_size
from swarm.consensus.recovery import begin_generation
from swarm.errors import NotFound, UsageError
from swarm.model.archived import Archived, Base, Moment, Question, archived
from swarm.model.command import (
    Admit,
    CreateApiToken,
    RemoveNode,
    RemoveTask,
    RotateSecret,
    SetReason,
    StopTask,
    Submit,
    SubmitMany,
)
from swarm.model.entry import Configuration, HardState, Voter
from swarm.model.ids import NodeId, TaskId
from swarm.model.secret import Authority, SealedSecret
from swarm.ports import Stored
from tests.archive_kit import CLUSTER, DAY_S, KeptLog
from tests.catalog_kit import Log, make_node, make_spec


def submit(kept: KeptLog, name: str, request_id: str = "") -> None:
    kept.log.time_utc += 1
    kept.apply(Submit(TaskId(f"task-{name}"), make_spec(name)), request_id or f"request-{name}")


def filled(folder: Path, names: int, **bounds: float) -> KeptLog:
    """So many submits, each written on its own."""
    kept = KeptLog(folder, **bounds)  # type: ignore[arg-type]
    for number in range(names):
        submit(kept, f"n{number}")
        kept.write()
    return kept


def newest_segment(folder: Path) -> Path:
    return files.listed(folder, files.ENTRIES)[-1]


def test_a_torn_tail_is_read_up_to_where_it_is_whole_and_written_again_after_a_start(tmp_path: Path) -> None:
    kept = filled(tmp_path, 5)
    whole = newest_segment(tmp_path).read_bytes()
    last = list(files.blocks(newest_segment(tmp_path), CLUSTER))[-1]
    for cut in (1, last.size // 2, last.size - 1):
        newest_segment(tmp_path).write_bytes(whole[:-cut])
        assert kept.past().newest == 5
        kept.begin_anew()
        kept.write(first=4)
        assert kept.past().gaps() == []
        assert kept.past().rebuild(6).digest() == kept.digests[6]
        assert newest_segment(tmp_path).read_bytes() == whole


@pytest.mark.parametrize("offset", range(0, 90, 7))
def test_a_flipped_bit_makes_entries_missing_and_never_wrong(tmp_path: Path, offset: int) -> None:
    kept = filled(tmp_path, 4)
    kept.offer_base()
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        data[offset % len(data)] ^= 0x10
        path.write_bytes(data)
    past = kept.past()
    for index in range(1, 6):
        try:
            assert past.rebuild(index).digest() == kept.digests[index]
        except NotFound as error:
            assert "is not kept" in error.message


def test_a_damaged_block_is_told_when_a_time_within_it_is_asked_for(tmp_path: Path) -> None:
    kept = filled(tmp_path, 4)
    submit(kept, "together")
    submit(kept, "with-this")
    kept.write()
    past = kept.past()
    block = past._blocks[-1]
    with open(block.path, "r+b") as file:
        file.seek(block.offset + block.size - 1)
        last = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([last[0] ^ 0x10]))
    with pytest.raises(NotFound, match="cannot be read"):
        past.index_of(Moment(utc=(block.first_utc + block.last_utc) / 2))


def test_a_later_base_is_passed_over_when_it_is_damaged(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path)
    for number in range(3):
        submit(kept, f"n{number}")
        kept.write()
        kept.offer_base()
    bases = files.listed(tmp_path, files.BASE)
    assert len(bases) > 0
    data = bytearray(bases[-1].read_bytes())
    data[-3] ^= 1
    bases[-1].write_bytes(data)
    assert kept.past().rebuild(4).digest() == kept.digests[4]


def test_size_is_bounded_and_what_is_left_can_be_shown(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path, bytes_max=40_000)
    for number in range(600):
        submit(kept, f"n{number}")
        if number % 10 == 9:
            kept.write()
            kept.offer_base()
            assert kept.size <= 40_000
    past = kept.past()
    oldest = past.kept()["oldest_state_index"]
    assert past.kept()["first_index"] > 1 and 1 < oldest < kept.written
    for index in (oldest, (oldest + kept.written) // 2, kept.written):
        assert past.rebuild(index).digest() == kept.digests[index]
    with pytest.raises(NotFound, match=r"is not kept") as refused:
        past.rebuild(2)
    assert f"index {oldest}" in refused.value.hint


def test_age_is_bounded_by_the_time_of_the_log(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path, age_max_s=10 * DAY_S)
    for _ in range(40):
        kept.log.time_utc += DAY_S
        kept.apply(SetReason(TaskId("none"), "x"))
        kept.write()
        kept.offer_base()
    past = kept.past()
    first = past.kept()["first_utc"]
    assert 9 * DAY_S <= kept.log.time_utc - first <= 13 * DAY_S
    assert past.rebuild(past.kept()["oldest_state_index"]).digest() == kept.digests[past.kept()["oldest_state_index"]]


def test_a_gap_is_told_and_a_base_behind_it_shows_what_came_after(tmp_path: Path) -> None:
    kept = filled(tmp_path, 4)
    for name in ("a", "b", "c"):
        submit(kept, name)
    kept.written = len(kept.records)  # dropped: the daemon was away, and took a snapshot
    kept.offer_base()
    submit(kept, "d")
    kept.write()
    past = kept.past()
    assert past.gaps() == [(6, 8)]
    assert past.rebuild(5).digest() == kept.digests[5]
    assert past.rebuild(9).digest() == kept.digests[9]
    with pytest.raises(NotFound, match="not kept"):
        past.rebuild(7)
    with pytest.raises(NotFound, match="entries 6 to 8 are missing"):
        past.index_of(Moment(utc=kept.log.entries[6].time_utc - 1.5))
    assert past.index_of(Moment(utc=kept.log.entries[7].time_utc)) == 8


def test_entries_that_a_recovered_cluster_does_not_have_are_cut_off(tmp_path: Path) -> None:
    kept = filled(tmp_path, 6)
    kept.offer_base()
    recovered = Log()
    for record in kept.records[:4]:
        recovered.apply_entry(record.entry)
    first = replace(recovered.entry(Submit(TaskId("task-new"), make_spec("new"))), recovery_generation=1 << 40, term=9)
    applied = recovered.apply_entry(first)
    kept.archive.write([Archived(first, applied.events)])
    past = kept.past()
    assert past.newest == 5 and past.gaps() == []
    assert past.rebuild(5).digest() == recovered.catalog.digest()
    assert past.rebuild(4).digest() == kept.digests[4]


def test_nothing_is_rebuilt_across_the_snapshot_of_another_recovery(tmp_path: Path) -> None:
    kept = filled(tmp_path, 6)
    recovered = Log()
    for record in kept.records[:2]:
        recovered.apply_entry(record.entry)
    for number in range(4):
        recovered.must(Submit(TaskId(f"task-r{number}"), make_spec(f"r{number}")))
    assert recovered.catalog.applied_index == 6
    base = Base(CLUSTER, 5, 2_000.0, 1 << 40)
    at_five = Log()
    for entry in recovered.entries[:5]:
        at_five.apply_entry(entry)
    kept.archive.offer_base(base, at_five.catalog.snapshot())
    following = replace(recovered.entries[5], recovery_generation=1 << 40)
    kept.archive.write([Archived(following)])
    past = kept.past()
    assert past.rebuild(6).digest() == recovered.catalog.digest()
    assert past.rebuild(5).digest() == at_five.catalog.digest()
    assert past.rebuild(4).digest() == kept.digests[4], "what this node applied before it heard of the recovery"
    files.base_path(tmp_path, 5).unlink()
    with pytest.raises(NotFound):
        kept.past().rebuild(6)


def test_files_of_another_cluster_are_not_read_and_go(tmp_path: Path) -> None:
    kept = filled(tmp_path, 3)
    assert Past(tmp_path, "other").newest == 0
    kept.archive = type(kept.archive)(tmp_path, "other", bytes_max=1 << 20, age_max_s=DAY_S)
    kept.archive.write([])
    assert files.listed(tmp_path, files.ENTRIES) == []


def test_a_full_disk_makes_the_archive_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptLog(tmp_path, bytes_max=40_000)
    for number in range(400):
        submit(kept, f"n{number}")
        if number % 10 == 9:
            kept.write()
            kept.offer_base()
    before = kept.size

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    submit(kept, "more")
    with monkeypatch.context() as patch:
        patch.setattr(files, "blocks_of", full)
        with pytest.raises(OSError, match="no space"):
            kept.write()
    assert kept.size <= 10_000 < before
    kept.write()
    kept.offer_base()
    assert kept.past().rebuild(len(kept.records)).digest() == kept.digests[len(kept.records)]


def test_a_history_of_no_size_is_none_and_one_too_small_to_prune_in_is_refused() -> None:
    assert (checked_history_size("0"), checked_history_size("4M"), checked_history_size("256M")) == (0, 4 << 20, 256 << 20)
    for text in ("1", "3M", "much"):
        with pytest.raises(UsageError):
            checked_history_size(text)


def rows(past: Past, **fields: object) -> list[dict[str, object]]:
    found = past.history(Question("history", **fields))["rows"]  # type: ignore[arg-type]
    assert isinstance(found, list)
    return found


def test_history_comes_in_pages_newest_last_and_each_row_once(tmp_path: Path) -> None:
    kept = filled(tmp_path, 25)
    past, before, pages = kept.past(), 0, []
    while True:
        found = past.history(Question("history", before=before, limit=7))
        assert [row["index"] for row in found["rows"]] == sorted(row["index"] for row in found["rows"])
        pages.append(found["rows"])
        if not found["more"]:
            break
        before = found["rows"][0]["index"]
    joined = [row["index"] for page in reversed(pages) for row in page]
    assert joined == list(range(1, 27))
    assert [row["index"] for row in rows(past, since=Moment(index=20), limit=100)] == list(range(21, 27))
    assert rows(past, since=Moment(utc=kept.log.time_utc))[0]["index"] == 26
    assert rows(past, limit=3)[-1]["request_id"] == "request-n24"


def test_history_of_a_task_is_found_by_name_id_and_beginning_also_when_it_is_gone(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path)
    submit(kept, "web")
    submit(kept, "db")
    kept.log.time_utc += 1
    for command in (StopTask(TaskId("task-web"), "enough"), RemoveTask(TaskId("task-web"))):
        kept.apply(command, f"request-{type(command).__name__}")
    kept.write()
    assert "task-web" not in kept.log.catalog.tasks
    for about in ("web", "task-web", "task-we"):
        found = rows(kept.past(), about=(about,))
        assert [row["kind"] for row in found] == ["task.submitted", "task.stopping", "task.ended", "task.removed"]
        assert {row["by"] for row in found} == {"request"}


def test_a_recovery_is_in_the_history_with_its_node_and_a_later_change_of_voters_is_none(tmp_path: Path) -> None:
    kept = filled(tmp_path, 3)
    log, voter = kept.log, Voter("id-n2", 1)
    stored = Stored(1, HardState(), tuple(log.entries), None, None)
    batch = begin_generation(stored, me=voter, generation=7 << 40, time_utc=log.time_utc + 5)
    assert batch is not None
    log.time_utc += 5
    kept.records.append(archived(batch.entries[0], log.apply_entry(batch.entries[0])))
    alone, both = (voter,), (voter, Voter("id-n3", 1))
    for command in (Configuration(both, alone), Configuration(both), Configuration(alone, both), Configuration(alone)):
        entry = replace(log.entry(command), recovery_generation=7 << 40)
        kept.records.append(archived(entry, log.apply_entry(entry)))
    kept.write()
    found = [row for row in rows(kept.past()) if row["kind"] == "cluster.recovered"]
    assert [(row["index"], row["time_utc"], row["by"], row["by_node_id"]) for row in found] == [
        (5, log.time_utc, "node", "id-n2")
    ]
    assert found[0]["text"] == "cluster recovered on n2: begins recovery 7 (0000000000)" and found[0]["fields"] == {"recovery": 7}
    texts = [row["text"] for row in rows(kept.past()) if row["kind"] == "voters.changed"]
    assert texts == ["voters are n2", "voters are n2, n3", "voters are n2"]


def test_a_refused_request_is_in_the_history_of_everything(tmp_path: Path) -> None:
    kept = filled(tmp_path, 1)
    submit(kept, "n0", "another-request")
    kept.write()
    last = rows(kept.past())[-1]
    assert (last["refused"], last["kind"], last["request_id"]) == (True, "task.submit", "another-request")
    assert "refused: cannot submit task 'n0': a task of id task-n0 exists" in str(last["text"])


def test_what_was_refused_of_a_batch_is_in_the_history_beside_what_was_not(tmp_path: Path) -> None:
    kept = filled(tmp_path, 1)
    batch = tuple(Submit(TaskId(f"task-b{number}"), make_spec(name)) for number, name in enumerate(("n0", "fresh", "n0")))
    kept.apply(SubmitMany(batch), "request-many")
    kept.apply(SubmitMany(batch), "request-many")
    kept.write()
    found = [row for row in rows(kept.past()) if row["request_id"] == "request-many"]
    assert [row["refused"] for row in found] == [False, True], "and a repetition tells nothing anew"
    reason = str(found[1]["text"])
    assert "task 'n0': a task named 'n0' has not ended" in reason and reason.endswith("and 1 more of this request")
    assert [row["refused"] for row in rows(kept.past(), about=("fresh",))] == [False]


def test_a_node_that_is_gone_is_named_where_it_brought_something_as_long_as_its_removal_is_kept(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path)
    node = NodeId("id-n4")
    kept.apply(Admit(make_node("n4")))
    kept.apply(RemoveNode(node))
    removed = {**kept.log.catalog.removed_nodes, NodeId("id-other"): 99}
    kept.write()
    by = {row["by_node_id"]: row.get("by_node") for row in rows(kept.past(), removed=removed) if row["by"] == "node"}
    assert by == {node: "n4"}
    by = {row["by_node_id"]: row.get("by_node") for row in rows(kept.past(), removed={node: 99}) if row["by"] == "node"}
    assert by == {node: None}


def test_nothing_sealed_is_in_any_answer(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path)
    kept.apply(Submit(TaskId("t"), make_spec("web", registry_auth=b"SEALED")))
    fresh, former = (Authority(bytes([each]) * 32, b"CERTIFICATE") for each in (1, 2))
    rotated = kept.apply(RotateSecret(1, fresh, former, (SealedSecret(NodeId("id-n1"), b"SEALED"),)))
    assert rotated.outcome is None
    kept.apply(CreateApiToken("token", b"H" * 32, "note"))
    kept.write()
    past = kept.past()
    first = Moment(index=1)
    for question in (Question("history"), Question("state"), Question("diff", at=first)):
        answer = msgspec.json.encode(past.answer(question))
        assert len(answer) > 100 and not any(word in answer for word in (b"SEALED", b"U0VBTEVE", b"HHHH", b"SEhI"))


def test_moments_that_cannot_be_shown_say_what_can(tmp_path: Path) -> None:
    kept = filled(tmp_path, 3)
    past = kept.past()
    with pytest.raises(NotFound, match="no index 99") as refused:
        past.index_of(Moment(index=99))
    assert "index 1," in refused.value.hint
    with pytest.raises(NotFound, match="nothing from 1970"):
        past.index_of(Moment(utc=1.0))
    with pytest.raises(UsageError, match="yet to come"):
        past.index_of(Moment(utc=4e9))
    with pytest.raises(NotFound, match="nothing is kept on this node yet"):
        Past(tmp_path / "empty", CLUSTER).index_of(Moment())
