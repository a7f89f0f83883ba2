"""The runner core against an engine and a log on virtual time: DESIGN section 9, PROTOCOLS S18 to S21."""

from __future__ import annotations

import itertools

import pytest

from swarm.model.assignment import assignment_id
from swarm.model.container import ContainerStatus, EngineEvent
from swarm.model.ids import NodeId, TaskId
from swarm.model.phase import Desired, Phase
from swarm.model.removal import Removal
from swarm.model.resources import Resources
from swarm.model.task import Mount, MountKind, Port, Restart, RestartKind
from swarm.runner import labels
from swarm.runner.effects import Inspect, Remove, Run, Start, Stop
from tests.fakes.runner_bench import CLUSTER, NODE, Bench, job


def ours(task: str, attempt: int, *, node: str = NODE, cluster: str = CLUSTER) -> dict[str, str]:
    return {
        labels.CLUSTER: cluster,
        labels.NODE: node,
        labels.TASK: task,
        labels.ATTEMPT: str(attempt),
        labels.NAME: "web",
    }


def running(bench: Bench, key: str) -> bool:
    box = bench.containers.of(key)
    return box is not None and box.status is ContainerStatus.RUNNING


def test_an_assignment_runs_and_is_reported_once() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(5)
    assert running(bench, key)
    assert [report.phase for _, report in bench.reports] == [Phase.RUNNING]
    assert bench.record(key).container_id and bench.record(key).started_utc > 0


def test_running_is_reported_at_once_when_the_start_event_comes_before_the_reply() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.lose_reply = 1.0
    key = bench.assign()
    bench.run(0.3)
    assert bench.record(key).phase is Phase.RUNNING


def test_a_long_pull_is_reported_as_preparing() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.never_done = 1.0
    key = bench.assign()
    bench.run(0.5)
    assert bench.record(key).phase is Phase.PREPARING


def test_the_container_is_told_who_and_where_it_is() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign(job(labels=(("team", "a"), ("swarm.node", "elsewhere"))), attempt=7)
    bench.run(1)
    box = bench.containers.of(key)
    assert box is not None and box.plan is not None
    assert box.plan.env_added == (
        "SWARM_TASK=web",
        "SWARM_ATTEMPT=7",
        "SWARM_NODE=h1",
        "SWARM_NODE_ADDRESS=10.0.0.1",
    )
    assert box.plan_labels == {"team": "a"} | ours("t1", 7)


def test_nothing_new_starts_while_the_leader_is_silent() -> None:
    bench = Bench()
    bench.run(1)
    bench.leader = False
    bench.run(6)
    key = bench.assign()
    bench.run(120)
    assert bench.begun(Run) == 0
    bench.leader = True
    bench.run(2)
    assert running(bench, key)


def test_an_answer_asked_before_the_fence_went_down_does_not_raise_it() -> None:
    bench = Bench(leader=False)
    bench.core.on_fresh(1, bench.applied_index, bench.now)
    assert bench.core.fresh
    bench.core.on_stall(10.0, bench.now + 10)
    bench.core.on_fresh(1, bench.applied_index, bench.now + 10)
    assert not bench.core.fresh
    bench.core.on_fresh(2, bench.applied_index, bench.now + 10)
    assert bench.core.fresh


def test_fresh_means_applied_as_far_as_the_leader_named() -> None:
    bench = Bench(leader=False)
    bench.core.on_fresh(1, bench.applied_index + 5, bench.now)
    bench.assign()
    assert bench.begun(Run) == 0
    bench.applied_index += 4
    bench.publish()
    assert bench.begun(Run) == 1


def test_a_leader_that_is_heard_but_never_asked_raises_nothing() -> None:
    bench = Bench(leader=False)
    bench.assign()
    for _ in range(20):
        bench.core.on_current(bench.now)
        bench.run(1)
    assert bench.begun(Run) == 0


def test_a_restart_by_policy_needs_no_leader() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.leader = False
    bench.run(60)
    box = bench.containers.of(key)
    assert box is not None
    bench.containers.end(box.container_id, 1)
    bench.run(2)
    assert running(bench, key) and box.starts == 2


def test_restarting_the_daemon_restarts_no_container() -> None:
    bench = Bench()
    bench.run(1)
    keys = [bench.assign(task=f"t{number}") for number in range(5)]
    bench.run(3)
    begun = len(bench.operations)
    for _ in range(3):
        bench.boot(remember=True)
        bench.run(10)
    assert len(bench.operations) == begun
    assert all(running(bench, key) and bench.containers.of(key).starts == 1 for key in keys)  # type: ignore[union-attr]


def test_a_replay_of_old_entries_starts_nothing() -> None:
    """A daemon whose catalog starts from an old snapshot sees assignments that have long ended."""
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    old = (bench.applied_index, dict(bench.records))
    bench.order_stop(key)
    bench.run(2)
    assert bench.record(key).phase is Phase.STOPPED
    bench.leader = False
    begun = len(bench.operations)
    for remember in (True, False):
        bench.boot(remember=remember, applied=False)
        bench.core.on_assignments(*old, bench.now)
        bench.run(60)
        assert bench.core.copies[key].restarts == 0, "no exit is judged by a record that may be old"
        assert len(bench.operations) == begun
        bench.publish()
        bench.run(5)
        assert len(bench.operations) == begun


def test_a_recovered_log_that_is_shorter_is_believed_once_a_leader_names_it() -> None:
    bench = Bench(leader=False)
    key = bench.assign()
    bench.applied_index = 3
    bench.records.clear()
    bench.publish()
    assert key in bench.core.held
    bench.core.on_fresh(bench.core.fence.number, 3, bench.now)
    bench.publish()
    assert key not in bench.core.held


def test_after_a_reboot_without_a_leader_the_last_assignments_start_after_thirty_seconds() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.leader = False
    bench.power_cut()
    bench.boot(rebooted=True, remember=True)
    bench.run(29)
    assert not running(bench, key)
    bench.run(2)
    assert running(bench, key)


def test_after_a_reboot_with_a_leader_they_start_at_once() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.power_cut()
    bench.boot(rebooted=True, remember=True)
    bench.run(3)
    assert running(bench, key)
    assert bench.record(key).restarts == 1


@pytest.mark.parametrize("removal", [Removal.TOLD, Removal.CERTAIN])
def test_after_a_reboot_a_removed_node_starts_nothing(removal: Removal) -> None:
    """What it last held runs elsewhere. Also when it learns of it in the wait, and when it is told by one member only."""
    for known_before in (False, True):
        bench = Bench()
        bench.run(1)
        bench.assign()
        bench.run(2)
        bench.leader = False
        bench.power_cut()
        begun = bench.begun(Run) + bench.begun(Start)
        bench.boot(rebooted=True, remember=True, removal=removal if known_before else Removal.NONE)
        bench.run(10)
        bench.core.on_removal(removal, bench.now)
        bench.run(100)
        assert bench.begun(Run) + bench.begun(Start) == begun


def test_a_node_that_is_certain_of_its_removal_stops_and_removes_all_that_is_its_own() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    foreign = bench.containers.add("foreign", ours("t2", 1, node="b" * 32))
    bench.leader = False
    bench.core.on_removal(Removal.TOLD, bench.now)
    bench.run(100)
    assert running(bench, key), "the word of one is not enough for that"
    bench.core.on_removal(Removal.CERTAIN, bench.now)
    bench.run(30)
    assert bench.containers.of(key) is None and foreign.container_id in bench.containers.boxes
    bench.publish()
    bench.run(100)
    assert bench.containers.of(key) is None, "the log here is the past"


def test_a_node_that_was_told_of_its_removal_stops_what_it_had_only_when_it_is_certain_again_after_a_restart() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.leader = False
    bench.boot(remember=True, removal=Removal.TOLD)
    bench.run(30)
    assert running(bench, key), "what its disk remembers was the word of others"
    bench.core.on_removal(Removal.CERTAIN, bench.now)
    bench.run(30)
    assert bench.containers.of(key) is None


def test_a_removal_that_was_undone_gives_the_node_its_work_again() -> None:
    bench = Bench()
    bench.run(1)
    bench.core.on_removal(Removal.CERTAIN, bench.now)
    key = bench.assign()
    bench.run(5)
    assert bench.containers.of(key) is None
    bench.core.on_removal(Removal.NONE, bench.now)
    bench.publish()
    bench.run(5)
    assert running(bench, key)


def test_a_daemon_restart_is_no_reboot() -> None:
    bench = Bench(leader=False)
    bench.assign()
    bench.boot(remember=True)
    bench.run(100)
    assert bench.begun(Run) == 0


def test_a_stray_is_told_and_collected_after_its_grace_but_only_when_fresh() -> None:
    bench = Bench()
    stray = bench.containers.add("stray", ours("unknown", 3))
    bench.containers.start(stray.container_id)
    bench.leader = False
    bench.run(200)
    assert [notice.kind for notice in bench.notices if notice.kind == "stray"] == ["stray"]
    assert stray.container_id in bench.containers.boxes
    bench.leader = True
    bench.run(5)
    assert stray.container_id not in bench.containers.boxes


def test_a_stray_whose_assignment_comes_to_be_known_while_it_is_looked_at_is_its_copy_and_no_stray() -> None:
    bench = Bench()
    key = assignment_id(TaskId("t1"), 1)
    box = bench.containers.add(key, ours("t1", 1))
    bench.containers.start(box.container_id)
    bench.run(0.5)
    bench.containers.on_event(EngineEvent("die", box.container_id, dict(box.plan_labels), bench.now))
    bench.run(0.01)
    assert bench.begun(Inspect) == 1, "it was to be looked at, and that takes a while"
    assert bench.assign(job("web"), task="t1", attempt=1) == key
    assert not bench.core.strays and bench.core.container_of(key) == box.container_id
    bench.run(200)
    assert running(bench, key) and bench.begun(Run) == bench.begun(Stop) == bench.begun(Remove) == 0


def test_a_stray_is_left_alone_for_a_minute() -> None:
    bench = Bench()
    stray = bench.containers.add("stray", ours("unknown", 3))
    bench.run(59)
    assert stray.container_id in bench.containers.boxes
    bench.run(35)
    assert stray.container_id not in bench.containers.boxes


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"app": "somebody's"},
        ours("t1", 1, node="b" * 32),
        ours("t1", 1, cluster="d" * 32),
        {key: value for key, value in ours("t1", 1).items() if key != labels.ATTEMPT},
        ours("t1", 1) | {labels.ATTEMPT: "٣"},
    ],
)
def test_a_container_that_is_not_ours_is_never_touched(foreign: dict[str, str]) -> None:
    bench = Bench()
    bench.run(1)
    other = bench.containers.add("other", foreign)
    bench.containers.start(other.container_id)
    bench.containers.touched.clear()
    bench.run(200)
    assert bench.containers.touched == set() and bench.notices[1:] == []
    assert other.status is ContainerStatus.RUNNING


def test_a_stop_ends_as_stopped_and_keeps_the_container_for_its_logs() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.order_stop(key)
    bench.run(2)
    assert bench.record(key).phase is Phase.STOPPED and bench.record(key).exit_code == 143
    assert bench.containers.of(key) is not None
    bench.forget(key)
    bench.run(2)
    assert bench.containers.of(key) is None and not bench.core.copies


def test_a_removed_record_stops_and_removes_its_container() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.forget(key)
    bench.run(2)
    assert bench.begun(Stop) == 1 and bench.begun(Remove) == 1 and not bench.containers.boxes


def test_only_the_newest_ended_container_of_a_task_is_kept() -> None:
    bench = Bench()
    bench.run(1)
    keys = []
    for attempt in (1, 2, 3):
        keys.append(bench.assign(attempt=attempt))
        bench.run(2)
        bench.order_stop(keys[-1])
        bench.run(2)
    assert [bench.containers.of(key) is not None for key in keys] == [False, False, True]


def test_a_stop_during_a_long_pull_gives_the_pull_up() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.never_done = 1.0
    key = bench.assign()
    bench.run(0.5)
    bench.order_stop(key)
    bench.run(4)
    assert bench.record(key).phase is Phase.STOPPED
    assert bench.record(key).reason == "stopped before it started"


def test_a_container_that_starts_after_it_was_given_up_is_stopped() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.never_done = 1.0
    key = bench.assign()
    bench.run(0.5)
    plan = bench.operations[-1][1].plan  # type: ignore[attr-defined]
    bench.order_stop(key)
    bench.run(4)
    bench.faults.never_done = 0.0
    bench.containers.do(Run(plan))
    bench.run(2)
    assert not running(bench, key)
    bench.forget(key)
    bench.run(2)
    bench.containers.do(Run(plan))
    bench.run(2)
    assert not bench.containers.boxes, "a leftover of an assignment that was cleared away waits for no grace"


def test_a_job_that_ends_well_succeeded_and_runs_once() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.lose_reply = 0.5
    key = bench.assign(job(kind=RestartKind.NO))
    bench.run(1)
    box = bench.containers.of(key)
    assert box is not None
    bench.containers.end(box.container_id, 0)
    bench.run(30)
    assert bench.record(key).phase is Phase.SUCCEEDED and bench.record(key).exit_code == 0
    assert box.starts == 1


def test_a_job_whose_reply_and_events_were_lost_is_not_run_twice() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.lose_reply, bench.faults.drop_event = 1.0, 1.0
    key = bench.assign(job(kind=RestartKind.NO))
    bench.run(1)
    box = bench.containers.of(key)
    assert box is not None
    bench.containers.end(box.container_id, 0)
    bench.faults.lose_reply = 0.0
    bench.run(60)
    assert bench.record(key).phase is Phase.SUCCEEDED and box.starts == 1


def test_a_failed_job_says_why() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign(job(kind=RestartKind.NO, resources=Resources(memory_bytes=128 * 1024 * 1024)))
    bench.run(1)
    bench.containers.end(bench.containers.of(key).container_id, 137, oom_killed=True)  # type: ignore[union-attr]
    bench.run(1)
    assert bench.record(key).phase is Phase.FAILED
    assert bench.record(key).reason == "out of memory (limit 128 MiB)"


def test_the_waits_between_restarts_double_and_are_forgotten_after_a_long_run() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign(job())
    bench.run(1)
    box = bench.containers.of(key)
    assert box is not None
    waits = []
    for _ in range(6):
        bench.containers.end(box.container_id, 1)
        ended, starts = bench.now, box.starts
        while box.starts == starts:
            bench.run(0.05)
        waits.append(bench.now - ended)
    assert all(later > 1.4 * earlier for earlier, later in itertools.pairwise(waits))
    bench.run(31)
    bench.containers.end(box.container_id, 1)
    bench.run(1.2)
    assert box.status is ContainerStatus.RUNNING
    bench.run(3)
    assert bench.record(key).restarts == 7


def test_a_task_gives_up_after_its_attempts() -> None:
    bench = Bench()
    bench.run(1)
    spec = job()
    key = bench.assign(type(spec)(name="web", image="here:1", restart=Restart(RestartKind.ON_FAILURE, attempts_max=2)))
    for _ in range(3):
        bench.run(5)
        bench.containers.end(bench.containers.of(key).container_id, 3)  # type: ignore[union-attr]
    bench.run(5)
    assert bench.record(key).phase is Phase.FAILED
    assert bench.record(key).reason == "gave up after 2 restarts in a row: exited with code 3"


@pytest.mark.parametrize("ran", [False, True])
def test_a_container_that_the_engine_can_start_never_again_is_made_anew(ran: bool) -> None:
    bench = Bench()
    bench.run(1)
    if not ran:
        bench.containers.wedged.add("c1")
    key = bench.assign()
    bench.run(0.5)
    box = bench.containers.of(key)
    assert box is not None and box.container_id == "c1"
    if ran:
        bench.containers.wedged.add("c1")
        bench.containers.end("c1", 1)
    bench.run(10)
    box = bench.containers.of(key)
    assert box is not None and box.container_id == "c2" and box.status is ContainerStatus.RUNNING
    assert bench.begun(Remove) == 1 and bench.record(key).phase is Phase.RUNNING


def test_a_container_that_fails_for_what_was_asked_is_not_made_anew() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign(job(ports=(Port(80, 80),)))
    bench.run(2)
    bench.containers.end("c1", 1)
    bench.containers.ports.add(80)
    bench.run(60)
    assert bench.begun(Start) > 3 and bench.begun(Remove) == 0
    assert "port 80" in bench.record(key).reason


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (job().__class__(name="web", image="nowhere:1"), "no such image"),
        (job(mounts=(Mount(MountKind.BIND, "/missing", "/x"),)), "does not exist: /missing"),
        (job(ports=(Port(80, 80),)), "port 80 is already allocated"),
    ],
)
def test_what_the_engine_refuses_is_a_reason_and_is_tried_again(spec: object, said: str) -> None:
    bench = Bench()
    bench.containers.ports.add(80)
    bench.run(1)
    key = bench.assign(spec)  # type: ignore[arg-type]
    bench.run(5)
    assert bench.record(key).phase is Phase.RESTARTING and said in bench.record(key).reason
    assert bench.begun(Run) > 1
    bench.containers.ports.clear()
    bench.containers.paths.add("/missing")
    bench.containers.images.add("nowhere:1")
    bench.run(40)
    assert bench.record(key).phase is Phase.RUNNING and bench.record(key).reason == ""


def test_a_full_disk_is_the_nodes_matter() -> None:
    bench = Bench()
    bench.run(1)
    bench.containers.full = True
    key = bench.assign(job(kind=RestartKind.NO))
    bench.run(20)
    assert bench.record(key).phase is Phase.PREPARING and "no space" in bench.record(key).reason
    bench.containers.full = False
    bench.run(15)
    assert bench.record(key).phase is Phase.RUNNING


def test_an_engine_that_is_down_fails_nothing_and_what_ran_through_is_not_restarted() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    reported = len(bench.reports)
    bench.crash_engine()
    waiting = bench.assign(job("other"), task="t2")
    bench.run(60)
    assert len(bench.reports) == reported and bench.begun(Run) == 1
    bench.recover_engine()
    bench.run(5)
    assert bench.containers.of(key).starts == 1  # type: ignore[union-attr]
    assert running(bench, waiting)


def test_what_died_with_the_engine_is_restarted() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.crash_engine()
    bench.containers.end(bench.containers.of(key).container_id, 137)  # type: ignore[union-attr]
    bench.recover_engine()
    bench.run(3)
    assert running(bench, key) and bench.record(key).restarts == 1


def test_a_container_removed_by_hand_is_made_anew() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    box = bench.containers.of(key)
    assert box is not None
    bench.containers.end(box.container_id, 137)
    bench.containers.remove(box.container_id)
    bench.run(5)
    assert running(bench, key)


def test_a_start_event_that_comes_late_brings_nothing_back_to_life() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign(job(kind=RestartKind.NO))
    bench.run(1)
    box = bench.containers.of(key)
    assert box is not None
    late = EngineEvent("start", box.container_id, box.plan_labels, box.started_utc)
    bench.containers.end(box.container_id, 0)
    bench.run(1)
    bench.core.on_event(late, bench.now)
    bench.run(1)
    assert bench.begun(Stop) == 0 and not bench.core.copies[key].alive


def test_a_lost_reply_is_a_reason_to_look() -> None:
    bench = Bench()
    bench.run(1)
    bench.faults.lose_reply = 1.0
    key = bench.assign(job(kind=RestartKind.NO))
    bench.run(1)
    bench.faults.lose_reply, bench.faults.drop_event = 0.0, 1.0
    bench.containers.end(bench.containers.of(key).container_id, 0)  # type: ignore[union-attr]
    bench.run(6)
    assert bench.record(key).phase is Phase.SUCCEEDED


def test_a_list_older_than_an_event_changes_nothing() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    asked_at = bench.now
    bench.run(1)
    bench.core.on_containers([], asked_at, bench.now)
    bench.run(5)
    assert bench.begun(Run) == 1 and bench.record(key).restarts == 0


def test_reports_are_coalesced_to_one_a_second_after_the_burst() -> None:
    bench = Bench()
    bench.run(1)
    restart = Restart(RestartKind.ALWAYS, delay_s=0.05, delay_max_s=0.05)
    key = bench.assign(job().__class__(name="web", image="here:1", restart=restart))
    for _ in range(100):
        bench.run(0.1)
        box = bench.containers.of(key)
        if box is not None:
            bench.containers.end(box.container_id, 1)
    assert len(bench.reports) <= 3 + 10 + 1
    bench.run(5)
    assert bench.record(key).restarts == bench.core.copies[key].restarts


def test_reports_are_sent_until_the_log_shows_them() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.leader = False
    bench.run(0.5)
    bench.containers.end(bench.containers.of(key).container_id, 1)  # type: ignore[union-attr]
    bench.run(300)
    assert bench.record(key).restarts == 0
    bench.leader = True
    bench.run(3)
    assert bench.record(key).restarts == 1


def test_a_report_of_the_former_process_under_the_same_number_hides_nothing() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    sequence = bench.record(key).report_sequence
    bench.boot(remember=True)
    bench.change(key, phase=Phase.RESTARTING, report_sequence=sequence + 1, restarts=1)
    bench.run(10)
    assert bench.record(key).phase is Phase.RUNNING
    assert bench.record(key).report_sequence > sequence + 1


def test_a_lost_assignment_is_left_running_until_it_is_told_to_stop() -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign()
    bench.run(2)
    bench.change(key, phase=Phase.LOST)
    bench.run(60)
    assert running(bench, key)
    bench.order_stop(key)
    bench.run(2)
    assert not running(bench, key)


def test_names_differ_between_clusters_tasks_and_attempts() -> None:
    names = {
        labels.container_name(cluster, TaskId(task * 32), attempt, "web")  # type: ignore[arg-type]
        for cluster in (CLUSTER, "d" * 32)
        for task in "ab"
        for attempt in (1, 2)
    }
    assert len(names) == 8


def test_an_assignment_of_another_attempt_is_another_container() -> None:
    bench = Bench()
    bench.run(1)
    first = bench.assign(attempt=1)
    bench.run(2)
    bench.order_stop(first)
    second = bench.assign(attempt=2)
    bench.run(3)
    assert bench.record(first).desired is Desired.STOPPED and not running(bench, first)
    assert running(bench, second) and bench.begun(Start) == 0
    assert NodeId(NODE) == bench.record(second).node_id


@pytest.mark.parametrize(("code", "words"), [(137, "killed by signal 9"), (255, "code 255"), (3, "code 3")])
def test_an_exit_code_names_a_signal_only_where_there_is_one(code: int, words: str) -> None:
    bench = Bench()
    bench.run(1)
    key = bench.assign(job(kind=RestartKind.NO))
    bench.run(1)
    bench.containers.end(bench.containers.of(key).container_id, code)  # type: ignore[union-attr]
    bench.run(1)
    assert bench.reports[-1][1].reason.endswith((words, f"({words})"))
