"""A snapshot is of one moment, whatever happens to the tables while it is made; and it is read back in steps."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from swarm.catalog import Catalog
from swarm.catalog.requests import Requests
from swarm.catalog.snapshot import SLICE_RECORDS, Reading, slices
from swarm.catalog.state import CLEAR_STEP, State
from swarm.errors import BadMessage
from swarm.model.assignment import Assignment, assignment_id
from swarm.model.ids import TaskId
from swarm.model.phase import Desired, Phase
from swarm.model.task import Task
from tests.catalog_kit import make_node, make_spec

NODE = make_node("a")


def add(state: State, rng: random.Random) -> None:
    task_id = TaskId(f"{rng.getrandbits(128):032x}")
    state.put_task(Task(task_id, make_spec(task_id[:8]), Desired.RUNNING, 1, 1.0))
    if rng.random() < 0.7:
        name = assignment_id(task_id, 1)
        state.put_assignment(Assignment(name, task_id, 1, NODE.id, Desired.RUNNING, Phase.ASSIGNED, 1, 1))
        state.put_task(replace(state.tasks[task_id], assignment=name, attempts=1))


def change(state: State, rng: random.Random) -> None:
    task = state.tasks[rng.choice(list(state.tasks))]
    current = state.assignments.get(task.assignment)
    match rng.randrange(4):
        case 0:
            add(state, rng)
        case 1:
            state.drop_task(task)
        case 2:
            state.put_task(replace(task, revision=task.revision + 1))
        case _ if current is not None and not current.ended:
            state.put_assignment(replace(current, phase=Phase.LOST))
            following = assignment_id(task.id, task.attempts + 1)
            state.drop_assignment(current.id)
            state.put_assignment(
                Assignment(following, task.id, task.attempts + 1, NODE.id, Desired.RUNNING, Phase.ASSIGNED, 2, 1)
            )
            state.put_task(replace(task, assignment=following, attempts=task.attempts + 1))


def filled(rng: random.Random, count: int) -> State:
    state = State()
    state.put_node(NODE)
    for _ in range(count):
        add(state, rng)
    return state


@pytest.mark.parametrize("seed", range(12))
def test_slices_are_of_the_moment_of_the_first_whatever_changes_in_between(seed: int) -> None:
    rng = random.Random(seed)
    state = filled(rng, rng.choice([1, 50, SLICE_RECORDS, 3 * SLICE_RECORDS + 7]))
    before = b"".join(slices(state, Requests()))
    making = slices(state, Requests())
    made = [next(making)]
    for piece in making:
        made.append(piece)
        for _ in range(rng.choice([1, 30])):
            change(state, rng)
            if not state.tasks:
                add(state, rng)
    assert b"".join(made) == before
    assert b"".join(slices(state, Requests())) != before
    state.check()


def test_two_moments_at_once_are_each_their_own() -> None:
    rng = random.Random(1)
    state = filled(rng, 500)
    first = slices(state, Requests())
    begun = next(first)
    early = b"".join(slices(state, Requests()))
    for _ in range(50):
        change(state, rng)
    late = b"".join(slices(state, Requests()))
    second = slices(state, Requests())
    also = next(second)
    for _ in range(50):
        change(state, rng)
    assert begun + b"".join(first) == early
    assert also + b"".join(second) == late


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_snapshot_is_read_back_from_pieces_cut_anywhere(size: int) -> None:
    whole = b"".join(slices(filled(random.Random(2), 30 if size == 1 else 450), Requests()))
    catalog = Catalog()
    restoring = catalog.restoring()
    for start in range(0, len(whole), size):
        for _ in restoring.feed(whole[start : start + size]):
            assert not catalog.nodes, "nothing changes before the last step"
    for _ in restoring.finish():
        assert not catalog.nodes
    assert catalog.snapshot() == whole
    catalog.check()


def restored_over(catalog: Catalog, whole: bytes) -> Iterator[None]:
    """Become that snapshot; what is left to do is to let go of what was before."""
    restoring = catalog.restoring()
    for _ in itertools.chain(restoring.feed(whole), restoring.finish()):
        pass
    return restoring.clear()


def test_what_was_before_a_restore_is_let_go_some_records_a_step() -> None:
    catalog = Catalog()
    catalog.restore(b"".join(slices(filled(random.Random(4), 3 * CLEAR_STEP), Requests())))
    tables = [catalog.tasks, catalog.assignments, catalog.by_node[NODE.id], catalog.placed[NODE.id]]
    whole = b"".join(slices(filled(random.Random(5), 20), Requests()))
    clearing = restored_over(catalog, whole)
    left = [len(table) for table in tables]
    assert min(left) > CLEAR_STEP and catalog.snapshot() == whole, "the change itself frees nothing"
    for _ in clearing:
        now = [len(table) for table in tables]
        assert all(before - after <= CLEAR_STEP for before, after in zip(left, now, strict=True))
        left = now
    assert left == [0, 0, 0, 0] and catalog.snapshot() == whole
    catalog.check()


def test_a_restore_takes_nothing_from_a_moment_that_is_still_read() -> None:
    catalog = Catalog()
    before = b"".join(slices(filled(random.Random(6), 500), Requests()))
    catalog.restore(before)
    reading = catalog.backup_slices()
    begun = next(reading)
    for _ in restored_over(catalog, b"".join(slices(filled(random.Random(7), 20), Requests()))):
        pass
    other = Catalog()
    other.restore(before)
    assert begun + b"".join(reading) == b"".join(other.backup_slices())


def test_a_snapshot_cut_off_gives_nothing() -> None:
    whole = b"".join(slices(filled(random.Random(3), 20), Requests()))
    for end in (0, 3, 40, len(whole) - 1):
        reading, state = Reading(), State()
        for _ in reading.feed(whole[:end]):
            pass
        with pytest.raises(BadMessage, match="cut off"):
            for _ in reading.finish(state):
                pass
