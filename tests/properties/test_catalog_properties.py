"""Whatever the log says, replicas agree: apply is total, deterministic, and equal after a snapshot."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.catalog import Catalog
from swarm.errors import BadMessage
from swarm.model.command import (
    COMMANDS,
    AckSecret,
    Admit,
    AdvanceSecret,
    Assign,
    PassVerdict,
    RemoveNode,
    RemoveTask,
    Report,
    Reports,
    RotateSecret,
    SetNode,
    SetReason,
    StopAssignment,
    StopTask,
    Submit,
)
from swarm.model.entry import Entry
from swarm.model.ids import NodeId, RequestId, TaskId
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Phase
from swarm.model.resources import Resources, fits
from swarm.model.secret import Authority, SealedSecret
from swarm.model.task import Mount, MountKind, Port, Restart, RestartKind
from tests.catalog_kit import GIB, Log, make_node, make_spec

NODES = ("n1", "n2", "n3", "n4")
node_ids = st.sampled_from([NodeId(f"id-{name}") for name in NODES])
task_ids = st.sampled_from([TaskId(f"t{number}") for number in range(4)])
attempts = st.integers(1, 6)
assignment_ids = st.builds(lambda task, attempt: f"{task}.{attempt}", task_ids, attempts)
replaces = st.one_of(st.just(""), assignment_ids)
specs = st.builds(
    make_spec,
    st.sampled_from(["a", "b", "c"]),
    resources=st.builds(Resources, st.integers(0, 2500), st.integers(0, 5 * GIB)),
    ports=st.sampled_from([(), (Port(80, 80),)]),
    restart=st.builds(Restart, st.sampled_from(RestartKind)),
    mounts=st.sampled_from([(), (Mount(MountKind.VOLUME, "v", "/v"),)]),
)
reports = st.builds(Report, assignment_ids, st.integers(1, 30), st.sampled_from(Phase), restarts=st.integers(0, 3))
numbers = st.integers(0, 4)
authorities = st.builds(lambda number: Authority(bytes([number]) * 32, b"certificate"), numbers)
copies = st.lists(st.builds(SealedSecret, node_ids, st.just(b"sealed")), max_size=3).map(tuple)
COMMAND_STRATEGY: st.SearchStrategy[Any] = st.one_of(
    st.builds(Submit, task_ids, specs),
    st.builds(Assign, task_ids, attempts, node_ids, replaces),
    st.builds(Assign, task_ids, attempts, node_ids),
    st.builds(Reports, node_ids, st.lists(reports, max_size=4).map(tuple)),
    st.builds(PassVerdict, node_ids, st.sampled_from(VerdictKind), st.just("seen")),
    st.builds(StopAssignment, assignment_ids, st.just("why"), replaces),
    st.builds(StopTask, task_ids),
    st.builds(RemoveTask, task_ids, st.booleans()),
    st.builds(RemoveNode, node_ids),
    st.builds(SetNode, node_ids, st.sampled_from(Availability)),
    st.builds(SetReason, task_ids, st.sampled_from(["", "waits"])),
    st.builds(RotateSecret, numbers, authorities, authorities, copies, st.one_of(st.just(NodeId("")), node_ids)),
    st.builds(AckSecret, node_ids, numbers, numbers),
    st.builds(AdvanceSecret, numbers, st.booleans()),
    st.builds(Admit, st.sampled_from([make_node(name) for name in NODES])),
)
STEP = st.tuples(COMMAND_STRATEGY, st.sampled_from(["", "sharp", "sharp", "sharp", "r1"]))


def sharpened(command: Any, catalog: Catalog) -> Any:
    """The same command with the numbers that a proposer who has read the catalog would give."""
    if isinstance(command, Assign) and command.task_id in catalog.tasks:
        task = catalog.tasks[command.task_id]
        current = catalog.assignments.get(task.assignment)
        return Assign(task.id, task.attempts + 1, command.node_id, current.id if current and not current.ended else "")
    if isinstance(command, StopAssignment) and command.keep:
        for task_id in sorted(catalog.tasks):
            task = catalog.tasks[task_id]
            if task.previous:
                return StopAssignment(task.assignment, "back", task.previous)
    if isinstance(command, RotateSecret):
        number = catalog.secrets.newest + 1
        fresh, present = (Authority(bytes([each]) * 32, b"certificate") for each in (number, catalog.secrets.sending))
        return RotateSecret(number, fresh, present, command.sealed, command.remove)
    if isinstance(command, AdvanceSecret):
        return AdvanceSecret(catalog.secrets.newest, command.retire)
    if isinstance(command, Reports):
        known = [catalog.assignments[key] for key in sorted(catalog.assignments)]
        phases = [report.phase for report in command.reports]
        sharp = (Report(a.id, a.report_sequence + 1, phase) for a, phase in zip(known, phases, strict=False))
        mine = tuple(report for report in sharp if catalog.assignments[report.assignment_id].node_id == command.node_id)
        return Reports(command.node_id, mine)
    return command


@settings(deadline=None, max_examples=150)
@given(st.lists(STEP, max_size=60), st.integers(0, 60))
def test_any_log_applies_the_same_everywhere_and_through_a_snapshot(steps: list[tuple[Any, str]], cut: int) -> None:
    log = Log(*(make_node(name) for name in NODES[:3]))
    joined_late: Catalog | None = None
    for number, (command, request_id) in enumerate(steps):
        if number == cut:
            joined_late = Catalog()
            joined_late.restore(log.catalog.snapshot())
            assert joined_late.digest() == log.catalog.digest()
        if request_id == "sharp":
            command, request_id = sharpened(command, log.catalog), ""
        applied = log.apply(command, request_id)
        if joined_late is not None:
            again = joined_late.apply(log.entries[-1])
            assert (again.outcome, again.value, again.events) == (applied.outcome, applied.value, applied.events)
            assert (again.touched_nodes, again.touched_tasks) == (applied.touched_nodes, applied.touched_tasks)
        no_node_is_overfull(log.catalog)
    replayed = Catalog()
    for entry in log.entries:
        replayed.apply(entry)
    assert replayed.digest() == log.catalog.digest()
    assert joined_late is None or joined_late.digest() == log.catalog.digest()


def no_node_is_overfull(catalog: Catalog) -> None:
    for node in catalog.nodes.values():
        assert fits(catalog.reserved[node.id], node.capacity) is None
        assert all(len(addresses) == 1 for addresses in catalog.ports_taken[node.id].values())


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(COMMANDS)), st.binary(max_size=200))
def test_random_bytes_are_a_rejection_and_change_nothing(kind: str, payload: bytes) -> None:
    log = Log(make_node("n1"))
    tables = log.catalog.nodes, log.catalog.tasks
    before = tuple(map(dict, tables))
    applied = log.catalog.apply(Entry(2, 1, kind, COMMANDS[kind][0], payload, 0, 0.0, RequestId("")))
    if applied.outcome is not None:
        assert tuple(map(dict, tables)) == before
    log.catalog.check()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(COMMAND_STRATEGY, st.just("r")), max_size=10), st.data())
def test_a_damaged_snapshot_is_refused_or_consistent(steps: list[tuple[Any, str]], data: st.DataObject) -> None:
    log = Log(make_node("n1"))
    for command, _ in steps:
        log.apply(command)
    good = bytearray(log.catalog.snapshot())
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] ^= data.draw(st.integers(1, 255))
    catalog = Catalog()
    try:
        catalog.restore(bytes(good))
    except BadMessage:
        assert catalog.applied_index == 0
