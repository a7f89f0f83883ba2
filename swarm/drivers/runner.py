"""The runner's loop: feeds the core from catalog, engine and leader, and carries its effects out.

Inputs come from many tasks (an operation ended, an event, a list, an answer of the leader) and wait in one queue; one loop takes
them in order, so the core sees one at a time. The engine is watched by its event stream; right after each connection, and every
half minute, it is listed: events are hints, the list is the truth. A stream that ends is an engine that is down; a silent one is
asked every ten seconds.

Promises: a pause of this process is told to the core before any other input; a report that cannot be delivered is dropped, since
the core sends it again; an engine that is down, hung or full delays nothing but its own operations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, assert_never

import trio

from swarm.drivers.holdings import CatalogView, Holdings
from swarm.drivers.replica_apply import Changes
from swarm.errors import NotFound, OperatorError, PeerError, Unavailable
from swarm.model.command import Report, Reports
from swarm.model.container import ContainerPlan, ContainerSeen, EngineTrouble
from swarm.model.ids import RequestId
from swarm.model.liveness import EngineState
from swarm.model.removal import Removal
from swarm.ports import Clock, Engine, EngineError
from swarm.runner.core import Runner
from swarm.runner.effects import (
    AbandonOperation,
    Effect,
    Inspect,
    NeedBarrier,
    Notice,
    Operation,
    Remove,
    Run,
    SendReports,
    Start,
    StartOperation,
    Stop,
)
from swarm.wire.codec import encode

STALL_S = 0.5
SLEEP_S_MAX = 1.0
INPUTS_PER_TURN_MAX = 64
LIST_INTERVAL_S = 30.0
PING_INTERVAL_S = 10.0
RECONNECT_S, RECONNECT_S_MAX = 0.1, 2.0
FULL_S = 30.0
"""How long a node whose engine's disk was full takes no new work."""
REPORT_TIMEOUT_S = 5.0
REPORTS_IN_FLIGHT_MAX = 16
BARRIER_TIMEOUT_S = 3.0
SAVE_INTERVAL_S = 0.2
FOLLOW_POLL_S = 0.2

Unseal = Callable[[ContainerPlan], Awaitable[dict[str, str]]]
"""Opens a plan's registry credentials. Raises `PeerError` when this node cannot."""


class ReplicaView(Protocol):
    """What the runner needs of the consensus driver."""

    @property
    def current_at(self) -> float: ...
    def subscribe(self, callback: Callable[[Changes], None]) -> None: ...
    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = ...) -> Any: ...
    async def read_barrier(self, timeout_s: float = ...) -> int: ...


class Memory(Protocol):
    """Where this node keeps what it held, for its next start."""

    async def save(self, data: bytes) -> None:
        """Replace the former content, durably."""


class RunnerDriver:
    """Owns the core while `run` runs. `notice` is called with (kind, subject, text) for people."""

    def __init__(
        self,
        core: Runner,
        engine: Engine,
        replica: ReplicaView,
        catalog: CatalogView,
        clock: Clock,
        *,
        request_id: Callable[[], RequestId],
        unseal: Unseal,
        notice: Callable[[str, str, str], None],
        memory: Memory | None = None,
    ) -> None:
        self._core, self._engine, self._replica, self._clock = core, engine, replica, clock
        self._request_id, self._unseal, self._notice, self._memory = request_id, unseal, notice, memory
        self._holdings = Holdings(catalog, core.node_id)
        self._inputs: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wake = trio.Event()
        self._operations: dict[int, trio.CancelScope] = {}
        self._reports_in_flight = 0
        self._barrier_asked = 0
        self._connected = False
        self._hung = False
        self._full_until = 0.0
        self._engine_text = ""
        self._due = 0.0
        self._saved: object = None
        self._unsaved = trio.Event()
        replica.subscribe(self._on_changes)

    # ---- what others use ----------------------------------------------------------------------------------------------------

    @property
    def engine_state(self) -> tuple[EngineState, str]:
        """The engine's state and, where it is not up, why: for samples and people."""
        state = self._state(self._clock.now())
        return state, "" if state is EngineState.UP else self._engine_text

    @property
    def containers(self) -> int:
        """How many of our containers run here."""
        return self._core.running

    def tell_removal(self, removal: Removal) -> None:
        """What this node knows of its own removal changed. One that was taken back leaves nothing held: it is read again."""
        self._holdings.stale = True
        self._feed(self._core.on_removal, removal)

    def reconnected(self) -> None:
        """This node was out of the cluster's reach and is back: what it knows may be old."""
        self._feed(self._core.on_reconnect)

    async def logs(
        self, assignment_id: str, *, follow: bool = False, tail: int | None = None, since_utc: float = 0.0
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """(`stdout` or `stderr`, bytes) of an assignment that ran here. Following outlives restarts, until the assignment ends.
        Raises `NotFound` when no container of it is here, `Unavailable` when the engine does not answer. Close it."""
        container_id = self._core.container_of(assignment_id)
        if container_id is None:
            raise NotFound(
                f"cannot read the logs of {assignment_id}: it has no container on node {self._core.node_name}",
                cause="it has not started yet, or its container was removed",
            )
        while True:
            ended_utc = self._clock.utc()
            try:
                chunks = self._engine.logs(container_id, follow=follow, tail=tail, since_utc=since_utc)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield chunk
                        ended_utc = self._clock.utc()
            except EngineError as error:
                raise Unavailable(f"cannot read the logs of {assignment_id}", cause=error.message) from None
            if not follow or not await self._runs_again(assignment_id):
                return
            tail, since_utc = None, ended_utc

    async def _runs_again(self, assignment_id: str) -> bool:
        """Wait for the next start of a container whose log ended; False when there will be none."""
        while True:
            copy = self._core.copies.get(assignment_id)
            if copy is None or not copy.wanted or copy.container is None:
                return False
            if copy.alive:
                return True
            await trio.sleep(FOLLOW_POLL_S)

    # ---- the loop -----------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; containers run on."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._look_after)
            if self._memory is not None:
                nursery.start_soon(self._save)
            task_status.started()
            await self._loop(nursery)

    async def _loop(self, nursery: trio.Nursery) -> None:
        self._due = self._clock.now()
        while True:
            now = self._clock.now()
            if now - self._due > STALL_S:
                self._core.on_stall(now - self._due, now)
            self._take_news(now)
            for _ in range(min(INPUTS_PER_TURN_MAX, len(self._inputs))):
                call, arguments = self._inputs.popleft()
                call(*arguments, self._clock.now())
            if self._core.next_deadline <= now:
                self._core.tick(now)
            for effect in self._core.take_effects():
                self._carry_out(effect, nursery)
            if self._core.held is not self._saved:
                self._unsaved.set()
            now = self._clock.now()
            sleep_s = 0.0 if self._inputs else min(SLEEP_S_MAX, max(0.0, self._core.next_deadline - now))
            self._due = now + sleep_s
            with trio.move_on_after(sleep_s):
                await self._wake.wait()
            self._wake = trio.Event()

    def _take_news(self, now: float) -> None:
        """When the catalog was last current, and what the log changed for this node."""
        if self._replica.current_at > self._core.fence.current_at:
            self._core.on_current(self._replica.current_at)
        if self._holdings.stale and not self._core.disowned:
            applied_index, held = self._holdings.held()
            self._core.on_assignments(applied_index, held, now)
        state = self._state(now)
        if state is not self._core.engine:
            self._core.on_engine(state, now)

    def _feed(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queue an input; `now` is added when it is taken."""
        self._inputs.append((call, arguments))
        self._wake.set()

    def _on_changes(self, changes: Changes) -> None:
        self._holdings.on_changes(changes)
        self._wake.set()

    # ---- effects ------------------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect, nursery: trio.Nursery) -> None:
        match effect:
            case StartOperation(number, operation):
                self._operations[number] = scope = trio.CancelScope()
                nursery.start_soon(self._operate, number, operation, scope)
            case AbandonOperation(number):
                if number in self._operations:
                    self._operations[number].cancel()
            case SendReports(reports):
                if self._reports_in_flight < REPORTS_IN_FLIGHT_MAX:
                    self._reports_in_flight += 1
                    nursery.start_soon(self._report, reports)
            case NeedBarrier(number):
                if self._barrier_asked != number:
                    self._barrier_asked = number
                    nursery.start_soon(self._ask_barrier, number)
            case Notice(kind, subject, text):
                self._notice(kind, subject, text)
            case _:
                assert_never(effect)

    async def _operate(self, number: int, operation: Operation, scope: trio.CancelScope) -> None:
        """One engine operation. Abandoned, it says nothing: what it made is seen by events and lists."""
        result: ContainerSeen | EngineError | None = None
        try:
            with scope:
                try:
                    result = await self._result_of(operation)
                except EngineError as error:
                    result = error
        finally:
            del self._operations[number]
        if scope.cancelled_caught:
            return
        if isinstance(result, EngineError) and result.trouble is EngineTrouble.NO_SPACE:
            self._full_until, self._engine_text = self._clock.now() + FULL_S, result.message
        self._feed(self._core.on_operation_done, number, result)

    async def _result_of(self, operation: Operation) -> ContainerSeen | None:
        match operation:
            case Run(plan):
                return await self._run_container(plan)
            case Start(container_id):
                await self._engine.start(container_id)
                return await self._engine.inspect(container_id)
            case Stop(container_id, signal, grace_s):
                await self._engine.stop(container_id, signal=signal, grace_s=grace_s)
                return await self._engine.inspect(container_id)
            case Remove(container_id):
                await self._engine.remove(container_id)
                return None
            case Inspect(container_id):
                return await self._engine.inspect(container_id)
            case _:
                assert_never(operation)

    async def _run_container(self, plan: ContainerPlan) -> ContainerSeen:
        """Credentials that do not open matter only if the image is not here."""
        if not plan.spec.registry_auth:
            return await self._engine.run(plan, None)
        trouble = ""
        credentials = None
        try:
            credentials = await self._unseal(plan)
        except PeerError as error:
            trouble = f"its registry credentials cannot be opened here: {error}"
        try:
            return await self._engine.run(plan, credentials)
        except EngineError as error:
            if not trouble or error.trouble is not EngineTrouble.NO_IMAGE:
                raise
            raise EngineError(error.trouble, f"{error.message}; {trouble}") from None

    async def _report(self, reports: tuple[Report, ...]) -> None:
        command = Reports(self._core.node_id, reports)
        try:
            with trio.move_on_after(2 * REPORT_TIMEOUT_S):
                await self._replica.submit(command, request_id=self._request_id(), timeout_s=REPORT_TIMEOUT_S)
        except (OperatorError, PeerError):
            pass  # no leader, or an unknown outcome: the core sends again what the log does not show
        finally:
            self._reports_in_flight -= 1

    async def _ask_barrier(self, number: int) -> None:
        """Begins after the fence went down for the `number`th time; that is what makes the answer fresh."""
        try:
            index = await self._replica.read_barrier(timeout_s=BARRIER_TIMEOUT_S)
        except (OperatorError, PeerError):
            self._barrier_asked = 0
            return
        self._feed(self._core.on_fresh, number, index)

    # ---- the engine ---------------------------------------------------------------------------------------------------------

    def _state(self, now: float) -> EngineState:
        if not self._connected:
            return EngineState.DOWN if self._engine_text else EngineState.UNKNOWN
        if self._hung:
            return EngineState.HUNG
        return EngineState.FULL if now < self._full_until else EngineState.UP

    async def _watch(self) -> None:
        """Keep an event stream to the engine; each ends the state it was in."""
        wait_s = RECONNECT_S
        while True:
            try:
                async with aclosing(self._engine.events(self._core.cluster_id)) as events:
                    async for event in events:
                        if event.action == "connected":
                            await self._list(connecting=True)
                            wait_s = RECONNECT_S
                        else:
                            self._feed(self._core.on_event, event)
                self._engine_text = "the engine closed its event stream"
            except EngineError as error:
                self._engine_text = error.message
            self._connected = False
            self._wake.set()
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, RECONNECT_S_MAX)

    async def _list(self, *, connecting: bool = False) -> None:
        """List everything of ours; the engine is up from the moment it was asked, so that the core takes the list."""
        asked_at = self._clock.now()
        seen = await self._engine.list(self._core.cluster_id)
        if connecting:
            self._connected, self._hung, self._engine_text = True, False, ""
        self._feed(self._listed, seen, asked_at)

    def _listed(self, seen: Any, asked_at: float, now: float) -> None:
        state = self._state(now)
        if state is not self._core.engine:
            self._core.on_engine(state, now)
        self._core.on_containers(seen, asked_at, now)

    async def _look_after(self) -> None:
        """Ask a silent engine whether it still answers, and list it now and then."""
        listed_at = self._clock.now()
        while True:
            await trio.sleep(PING_INTERVAL_S if not self._hung else SLEEP_S_MAX)
            if not self._connected:
                continue
            try:
                await self._engine.info()
                if self._hung or self._clock.now() >= listed_at + LIST_INTERVAL_S:
                    self._hung = False
                    await self._list()
                    listed_at = self._clock.now()
            except EngineError as error:
                self._hung, self._engine_text = True, error.message
            self._wake.set()

    # ---- memory -------------------------------------------------------------------------------------------------------------

    async def _save(self) -> None:
        """Keep what is held on disk, at most some times a second."""
        assert self._memory is not None
        while True:
            await self._unsaved.wait()
            self._unsaved = trio.Event()
            before, self._saved = self._saved, self._core.held
            if self._saved != before:  # cheap: equal records are the same objects
                try:
                    await self._memory.save(encode(self._core.holdings()))
                except OSError as error:
                    self._notice("memory", self._core.node_name, f"cannot keep what this node holds: {error}")
            await trio.sleep(SAVE_INTERVAL_S)
