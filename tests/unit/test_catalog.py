"""What applying each kind of entry does, and refuses."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarm.errors import Bug, Conflict, NotFound, UnknownEntry
from swarm.model.command import (
    Admit,
    Assign,
    CreateApiToken,
    Declare,
    Noop,
    PassVerdict,
    RemoveNode,
    RemoveTask,
    Report,
    Reports,
    RevokeApiToken,
    SetNode,
    StopAssignment,
    StopTask,
    Submit,
)
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Availability, VerdictKind
from swarm.model.outcome import Applied
from swarm.model.phase import Desired, Phase
from swarm.model.resources import Resources
from swarm.model.task import MOVES_KEPT, Mount, MountKind, Port, Restart, RestartKind
from tests.catalog_kit import GIB, Log, make_node, make_spec


def three() -> Log:
    return Log(make_node("n1"), make_node("n2"), make_node("n3"))


def refused(applied: Applied) -> str:
    assert applied.outcome is not None
    return f"{applied.outcome.code}: {applied.outcome.message}; {applied.outcome.cause}"


def test_a_submitted_task_waits_until_it_is_assigned() -> None:
    log = three()
    first, second = log.submit("a"), log.submit("b")
    assert list(log.catalog.pending) == [first, second]
    log.assign(first, "n1")
    assert list(log.catalog.pending) == [second]


def test_a_name_is_free_again_once_its_task_has_ended() -> None:
    log = three()
    task_id, assignment = log.running("cache", "n1")
    again = Submit(TaskId("other"), make_spec("cache"))
    assert "has not ended" in refused(log.apply(again))
    log.must(StopTask(task_id))
    log.report(assignment, Phase.STOPPED)
    assert log.catalog.tasks[task_id].ended
    log.must(again)
    assert log.catalog.find_task("cache").id == "other"


def test_a_task_that_never_ran_ends_as_soon_as_it_is_stopped() -> None:
    log = three()
    task_id = log.submit("a")
    log.must(StopTask(task_id))
    assert log.catalog.tasks[task_id].ended
    assert list(log.catalog.pending) == []


def test_an_assignment_must_carry_the_next_attempt() -> None:
    log = three()
    task_id = log.submit("a")
    assert "not the next" in refused(log.apply(Assign(task_id, 2, NodeId("id-n1"))))


def test_two_placements_that_race_for_the_same_memory_are_put_in_order() -> None:
    log = Log(make_node("n1", memory=GIB))
    wants = Resources(memory_bytes=700 * 2**20)
    one, two = log.submit("a", resources=wants), log.submit("b", resources=wants)
    log.assign(one, "n1")
    assert "not enough memory" in refused(log.apply(Assign(two, 1, NodeId("id-n1"))))


def test_a_taken_host_port_is_refused_until_its_holder_has_ended() -> None:
    log = three()
    port = (Port(6379, 6379),)
    first, assignment = log.running("a", "n1", ports=port)
    second = log.submit("b", ports=port)
    assert "host port 6379/tcp is taken" in refused(log.apply(Assign(second, 1, NodeId("id-n1"))))
    log.must(StopTask(first))
    log.report(assignment, Phase.STOPPED)
    log.assign(second, "n1")


@pytest.mark.parametrize("kind", [kind for kind in VerdictKind if kind is not VerdictKind.ALIVE])
def test_nothing_is_assigned_to_a_node_under_a_verdict_of_death(kind: VerdictKind) -> None:
    log = three()
    task_id = log.submit("a")
    log.verdict("n1", kind)
    assert "dead" in refused(log.apply(Assign(task_id, 1, NodeId("id-n1"))))


@pytest.mark.parametrize("mount", [Mount(MountKind.VOLUME, "data", "/data"), Mount(MountKind.BIND, "/srv", "/data")])
def test_a_task_with_a_volume_stays_on_the_node_of_its_first_placement(mount: Mount) -> None:
    log = three()
    task_id, assignment = log.running("db", "n1", mounts=(mount,))
    log.must(StopAssignment(assignment, "drain"))
    log.report(assignment, Phase.STOPPED)
    assert log.catalog.tasks[task_id].pinned_node == "id-n1"
    assert "its data is on" in refused(log.apply(Assign(task_id, 2, NodeId("id-n2"))))


@pytest.mark.parametrize(
    ("mount", "elsewhere"),
    [
        (Mount(MountKind.VOLUME, "data", "/data"), True),
        (Mount(MountKind.VOLUME, "", "/data"), False),
        (Mount(MountKind.BIND, "/srv", "/data", read_only=True), False),
    ],
)
def test_a_task_without_data_of_its_own_and_one_that_may_start_empty_run_anywhere(mount: Mount, elsewhere: bool) -> None:
    log = three()
    task_id, assignment = log.running("db", "n1", mounts=(mount,), volume_elsewhere=elsewhere)
    log.must(StopAssignment(assignment, "drain"))
    log.report(assignment, Phase.STOPPED)
    log.must(Assign(task_id, 2, NodeId("id-n2")))


def test_reports_that_are_old_foreign_or_illegal_are_dropped_and_counted() -> None:
    log = three()
    _, assignment = log.running("a", "n1")
    before = log.catalog.assignments[assignment]
    for node, sequence, phase in (("id-n1", 1, Phase.FAILED), ("id-n2", 9, Phase.FAILED), ("id-n1", 9, Phase.PREPARING)):
        log.must(Reports(NodeId(node), (Report(assignment, sequence, phase),)))
    log.must(Reports(NodeId("id-n1"), (Report("nobody.1", 1, Phase.FAILED), Report(assignment, 9, Phase.LOST))))
    assert log.catalog.assignments[assignment] == before
    assert log.catalog.counters == {
        "report_repeated": 1,
        "report_by_another_node": 1,
        "report_of_illegal_move": 2,
        "report_of_unknown_assignment": 1,
    }


def test_an_end_is_final() -> None:
    log = three()
    task_id, assignment = log.running("job", "n1", restart=Restart(RestartKind.NO))
    log.report(assignment, Phase.FAILED, exit_code=3, reason="exit code 3")
    log.report(assignment, Phase.RUNNING)
    record = log.catalog.assignments[assignment]
    assert (record.phase, record.exit_code) == (Phase.FAILED, 3)
    assert log.catalog.tasks[task_id].ended and log.catalog.tasks[task_id].reason == "exit code 3"


def test_the_phase_of_a_dead_nodes_assignment_is_kept_and_marked() -> None:
    log = three()
    _, assignment = log.running("a", "n1")
    index = log.verdict("n1", VerdictKind.HOST_SILENT).index
    record = log.catalog.assignments[assignment]
    assert (record.phase, record.unreachable_since_index) == (Phase.RUNNING, index)
    log.verdict("n1", VerdictKind.ALIVE)
    assert log.catalog.assignments[assignment].unreachable_since_index == 0


def test_a_replaced_copy_stops_when_its_node_returns_after_the_new_one_ran() -> None:
    log = three()
    task_id, old = log.running("a", "n1")
    log.verdict("n1", VerdictKind.HOST_SILENT)
    new = log.assign(task_id, "n2", replaces=old)
    assert log.catalog.assignments[old].desired is Desired.RUNNING
    assert Phase.LOST in [move.phase for move in log.catalog.tasks[task_id].moves]
    log.report(new, Phase.RUNNING)
    assert log.catalog.assignments[old].desired is Desired.STOPPED
    log.verdict("n1", VerdictKind.ALIVE)
    log.report(old, Phase.STOPPED)
    assert old not in log.catalog.assignments
    assert log.catalog.tasks[task_id].assignment == new


def test_the_old_copy_is_kept_when_it_returns_before_the_new_one_runs() -> None:
    log = three()
    task_id, old = log.running("a", "n1")
    log.verdict("n1", VerdictKind.HOST_SILENT)
    new = log.assign(task_id, "n2", replaces=old)
    log.verdict("n1", VerdictKind.ALIVE)
    log.must(StopAssignment(new, "the former copy is back", keep=old))
    assert log.catalog.tasks[task_id].assignment == old
    assert log.catalog.assignments[new].desired is Desired.STOPPED
    log.report(new, Phase.STOPPED)
    assert new not in log.catalog.assignments
    log.verdict("n1", VerdictKind.HOST_SILENT)
    assert log.assign(task_id, "n3", replaces=old).endswith(".3"), "numbers are never reused"


def test_the_old_copy_is_not_kept_once_the_new_one_runs() -> None:
    log = three()
    task_id, old = log.running("a", "n1")
    log.must(SetNode(NodeId("id-n1"), Availability.DRAIN))
    new = log.assign(task_id, "n2", replaces=old)
    log.report(new, Phase.RUNNING)
    assert "it runs by now" in refused(log.apply(StopAssignment(new, "late", keep=old)))


def test_a_drained_copy_runs_on_until_it_is_told_to_stop() -> None:
    log = three()
    task_id, old = log.running("a", "n1")
    log.must(SetNode(NodeId("id-n1"), Availability.DRAIN))
    new = log.assign(task_id, "n2", replaces=old)
    log.report(new, Phase.RUNNING)
    assert log.catalog.assignments[old].desired is Desired.RUNNING
    log.must(StopAssignment(old, "moved"))
    log.report(old, Phase.STOPPED)
    task = log.catalog.tasks[task_id]
    assert (task.assignment, task.previous, task.ended) == (new, "", False)


def test_a_move_whose_new_copy_fails_leaves_the_old_one_in_place() -> None:
    log = three()
    task_id, old = log.running("a", "n1")
    log.must(SetNode(NodeId("id-n1"), Availability.DRAIN))
    new = log.assign(task_id, "n2", replaces=old)
    log.report(new, Phase.FAILED, reason="gave up")
    task = log.catalog.tasks[task_id]
    assert (task.assignment, task.previous, task.ended) == (old, "", False)


def test_a_job_that_finished_on_a_node_thought_lost_is_not_run_twice() -> None:
    log = three()
    task_id, old = log.running("job", "n1", restart=Restart(RestartKind.NO))
    log.verdict("n1", VerdictKind.HOST_SILENT)
    new = log.assign(task_id, "n2", replaces=old)
    log.verdict("n1", VerdictKind.ALIVE)
    log.report(old, Phase.SUCCEEDED, exit_code=0)
    assert log.catalog.tasks[task_id].ended
    assert log.catalog.assignments[new].desired is Desired.STOPPED
    log.report(new, Phase.STOPPED)
    assert log.catalog.tasks[task_id].assignment == old


def test_removing_a_node_loses_what_it_ran_and_its_id_for_ever() -> None:
    log = three()
    task_id, assignment = log.running("a", "n2")
    log.must(RemoveNode(NodeId("id-n2")))
    assert log.catalog.assignments[assignment].phase is Phase.LOST
    assert list(log.catalog.pending) == [task_id]
    assert "was removed" in refused(log.apply(Admit(make_node("n2"))))
    log.must(RemoveNode(NodeId("id-n2")))


def test_a_removed_task_is_forgotten_when_its_container_is_gone() -> None:
    log = three()
    task_id, assignment = log.running("a", "n1")
    assert "has not ended" in refused(log.apply(RemoveTask(task_id)))
    log.must(RemoveTask(task_id, force=True))
    assert task_id in log.catalog.tasks
    log.report(assignment, Phase.STOPPED)
    assert task_id not in log.catalog.tasks and assignment not in log.catalog.assignments


def test_a_task_can_be_removed_while_its_node_is_dead() -> None:
    log = three()
    task_id, _ = log.running("a", "n1")
    log.verdict("n1", VerdictKind.HOST_SILENT)
    log.must(RemoveTask(task_id, force=True))
    assert task_id not in log.catalog.tasks
    log.submit("a2")


def test_an_ended_task_keeps_its_last_assignment_until_it_is_removed() -> None:
    log = three()
    task_id, assignment = log.running("job", "n1", restart=Restart(RestartKind.NO))
    log.report(assignment, Phase.SUCCEEDED, exit_code=0)
    assert assignment in log.catalog.held_by(NodeId("id-n1"))
    log.must(RemoveTask(task_id))
    assert log.catalog.held_by(NodeId("id-n1")) == {}


def test_admission_is_idempotent_for_the_same_key_and_refused_for_another() -> None:
    log = three()
    log.must(Admit(replace(make_node("n2"), store_generation=4)))
    assert log.catalog.nodes[NodeId("id-n2")].store_generation == 4
    stranger = replace(make_node("n2"), fingerprint=b"x" * 32)
    assert "known by another key" in refused(log.apply(Admit(stranger)))


def test_a_node_with_a_name_in_use_is_refused_with_what_to_do() -> None:
    log = three()
    twin = replace(make_node("n2"), id=NodeId("id-n9"), fingerprint=b"9" * 32)
    outcome = log.apply(Admit(twin)).outcome
    assert outcome is not None and outcome.code == "conflict" and "--name" in outcome.hint


def test_an_operators_labels_outlive_what_the_node_declares() -> None:
    log = three()
    log.must(SetNode(NodeId("id-n1"), labels=(("disk", "ssd"), ("zone", None))))
    log.must(
        Declare(NodeId("id-n1"), "n1", "a:1", "a:2", 2, (("rack", "7"), ("zone", "b")), "arm64", "linux", Resources(1), "29", 1)
    )
    node = log.catalog.nodes[NodeId("id-n1")]
    assert node.labels == (("disk", "ssd"), ("rack", "7"))
    assert (node.arch, node.store_generation) == ("arm64", 2)


def test_the_same_request_id_gives_the_first_result_again() -> None:
    log = three()
    submit = Submit(TaskId("t1"), make_spec("a"))
    first = log.must(submit, "r1")
    again = log.must(submit, "r1")
    assert (again.value, again.repeated, again.events) == (first.value, True, ())
    other = log.apply(Submit(TaskId("t2"), make_spec("b")), "r1")
    assert "belongs to another request" in refused(other)
    assert not other.repeated, "it is a refusal of its own, and in the history as such"


def test_a_rejection_is_repeated_for_its_request_id_too() -> None:
    log = three()
    log.submit("a")
    twin = Submit(TaskId("t2"), make_spec("a"))
    first = log.apply(twin, "r1").outcome
    log.must(StopTask(TaskId("t-a")))
    assert log.apply(twin, "r1").outcome == first


def test_request_ids_are_forgotten_after_a_day_of_log_time() -> None:
    log = three()
    log.must(Noop(), "r1")
    log.time_utc += 24 * 3600 + 1
    assert not log.must(Noop(), "r1").repeated


@pytest.mark.parametrize(("kind", "version"), [("task.teleport", 1), ("noop", 2), ("noop", 0)])
def test_an_unknown_kind_or_version_stops_apply_and_changes_nothing(kind: str, version: int) -> None:
    log = three()
    before = log.catalog.digest()
    with pytest.raises(UnknownEntry):
        log.apply_entry(log.raw(kind, version, b""))
    assert log.catalog.digest() == before


def test_an_entry_out_of_order_is_a_bug() -> None:
    log = three()
    with pytest.raises(Bug):
        log.catalog.apply(log.entries[0])


@pytest.mark.parametrize(
    "spec",
    [
        make_spec("Bad Name"),
        make_spec("a", image=""),
        make_spec("a", constraints=("node.colour==red",)),
        make_spec("a", preferences=("pack=node.name",)),
        make_spec("a", resources=Resources(-1)),
        make_spec("a", resources=Resources(generic=(("gpu", 1), ("gpu", 1)))),
        make_spec("a", ports=(Port(70_000, 1),)),
        make_spec("a", ports=(Port(80, 1), Port(80, 2))),
        make_spec("a", stop_grace_s=float("nan")),
        make_spec("a", restart=Restart(delay_s=-1.0)),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec: object) -> None:
    log = three()
    assert refused(log.apply(Submit(TaskId("t1"), spec))).startswith("invalid")  # type: ignore[arg-type]


def test_events_resume_after_an_index_and_say_when_older_ones_are_gone() -> None:
    log = three()
    index = log.submit("a") and log.catalog.applied_index
    log.submit("b")
    page = log.catalog.events(index)
    assert page.complete and [event.kind for event in page.events] == ["task.submitted"]
    log.catalog.restore(log.catalog.snapshot())
    assert not log.catalog.events(index).complete
    assert log.catalog.events(log.catalog.applied_index).complete


def test_the_ring_of_events_drops_whole_entries() -> None:
    log = three()
    for number in range(2_200):
        log.catalog.apply(log.entry(CreateApiToken(f"k{number}", b"s" * 32)))
        log.entries.append(log.entry(Noop()))
        log.catalog.apply(log.entry(RevokeApiToken(f"k{number}")))
        log.entries.append(log.entry(Noop()))
    page = log.catalog.events(0)
    assert not page.complete and len(page.events) <= 4_096
    assert log.catalog.events(page.events[0].index - 1).complete


def test_only_the_last_moves_of_a_task_are_kept_with_a_count() -> None:
    log = three()
    task_id, assignment = log.running("a", "n1")
    for _ in range(40):
        log.report(assignment, Phase.RESTARTING, restarts=1)
        log.report(assignment, Phase.RUNNING)
    task = log.catalog.tasks[task_id]
    assert (len(task.moves), task.moves_total) == (MOVES_KEPT, 82)


def test_people_find_a_task_by_name_and_unique_prefix() -> None:
    log = three()
    log.submit("a1")
    log.submit("a2")
    assert log.catalog.find_task("t-a1").spec.name == "a1"
    for text in ("t-", "nobody"):
        with pytest.raises(NotFound):
            log.catalog.find_task(text)


def test_a_rejection_becomes_the_error_of_its_code() -> None:
    log = three()
    log.submit("a")
    outcome = log.apply(Submit(TaskId("x"), make_spec("a"))).outcome
    assert outcome is not None and isinstance(outcome.to_error(), Conflict)


def test_a_verdict_on_a_node_that_is_gone_is_refused() -> None:
    log = three()
    assert refused(log.apply(PassVerdict(NodeId("nobody"), VerdictKind.CONFIRMED, ""))).startswith("not_found")
