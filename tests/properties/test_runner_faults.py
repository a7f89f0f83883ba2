"""Whatever engine, log and daemon do to each other for a while: once they are well again, what runs is what was asked for."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.model.container import ContainerStatus
from swarm.model.phase import Desired, Phase
from swarm.model.task import RestartKind
from tests.fakes.runner_bench import Bench, Faults, job

ACTIONS = (
    "assign", "stop", "forget", "exit", "remove by hand", "restart daemon", "restart daemon without memory", "crash engine",
    "recover engine", "lose leader", "find leader", "stall", "wait", "reconnect", "power cut",
)  # fmt: skip
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.floats(0.0, 9.0)), max_size=25)
chance = st.sampled_from([0.0, 0.1, 0.5])


def act(bench: Bench, action: str, pick: int) -> None:
    live = sorted(bench.records)
    chosen = live[pick % len(live)] if live else ""
    box = bench.containers.of(chosen) if chosen else None
    match action:
        case "assign":
            task = f"t{pick}"
            attempts = [record.attempt for record, _ in bench.records.values() if record.task_id == task]
            held = [record for record, _ in bench.records.values() if record.task_id == task and not record.ended]
            if not held:
                kind = (RestartKind.ALWAYS, RestartKind.NO)[pick % 2]
                number = bench.applied_index if not attempts else max(attempts) + 1000
                bench.assign(job(f"web{pick}", kind), task=task, attempt=number)
        case "stop" if chosen:
            bench.order_stop(chosen)
        case "forget" if chosen:
            bench.forget(chosen)
        case "exit" if box is not None:
            bench.containers.end(box.container_id, pick % 3)
        case "remove by hand" if box is not None:
            bench.containers.end(box.container_id, 137)
            bench.containers.remove(box.container_id)
        case "restart daemon":
            bench.boot(remember=True)
        case "restart daemon without memory":
            bench.boot(remember=False)
        case "power cut":
            bench.power_cut()
            bench.boot(rebooted=True, remember=True)
        case "crash engine":
            bench.crash_engine()
        case "recover engine":
            bench.recover_engine()
        case "lose leader" | "find leader":
            bench.leader = action == "find leader"
        case "stall":
            bench.now += 7
            bench.core.on_stall(7, bench.now)
        case "reconnect":
            bench.core.on_reconnect(bench.now)
        case _:
            pass


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), script=steps, lose=chance, never=chance, slow=chance, drop=chance)
def test_after_healing_exactly_what_is_wanted_runs(
    seed: int, script: list[tuple[str, int, float]], lose: float, never: float, slow: float, drop: float
) -> None:
    bench = Bench(seed)
    other = bench.containers.add("other", {"app": "somebody's"})
    bench.containers.start(other.container_id)
    bench.containers.touched.clear()
    bench.faults = Faults(lose, never, slow, drop)
    for action, pick, wait_s in script:
        act(bench, action, pick)
        bench.run(wait_s)
    bench.faults, bench.leader = Faults(), True
    bench.recover_engine()
    bench.run(200)
    bench.boot(remember=True)
    bench.run(100)
    for key, (record, spec) in bench.records.items():
        box = bench.containers.of(key)
        alive = box is not None and box.status is ContainerStatus.RUNNING
        wanted = record.desired is Desired.RUNNING and not record.ended
        assert alive == wanted, (record, box)
        assert (record.phase is Phase.RUNNING) == wanted, record
        if spec.restart.kind is RestartKind.NO and box is not None:
            assert box.starts <= 1, "a job ran twice"
    claimed = {bench.containers.of(key).container_id for key in bench.records if bench.containers.of(key)}  # type: ignore[union-attr]
    assert set(bench.containers.boxes) - claimed == {other.container_id}, "something was left behind"
    assert other.container_id not in bench.containers.touched, "somebody else's container was touched"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), restarts=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=6), lose=chance, drop=chance)
def test_no_restart_of_the_daemon_or_the_engine_restarts_a_container(
    seed: int, restarts: list[float], lose: float, drop: float
) -> None:
    bench = Bench(seed)
    bench.run(1)
    keys = [bench.assign(job(f"web{number}"), task=f"t{number}") for number in range(3)]
    bench.run(5)
    bench.faults = Faults(lose_reply=lose, drop_event=drop)
    for number, wait_s in enumerate(restarts):
        if number % 2:
            bench.crash_engine()
            bench.run(wait_s)
            bench.recover_engine()
        else:
            bench.boot(remember=bool(number % 4))
        bench.run(wait_s)
    boxes = [bench.containers.of(key) for key in keys]
    assert [box.starts for box in boxes if box is not None] == [1, 1, 1]
    assert all(bench.record(key).restarts == 0 for key in keys)
