"""Submits left with a node that has no leader: kept on its disk, and submitted once there is one.

A submit may be left with several nodes under one request id, and with one that has a leader and submits it at once. It is applied
once; the others then hear that this was so, and forget theirs without a word. Credentials are sealed anew by each node, so that
such a repetition is refused as another request: a refusal counts once the catalog here is as new as the refusal and does not
show the task. The log remembers ids for a bounded time, so a queued submit is given up before that time can be over, and the log
itself refuses one of which it could have forgotten (`SubmitQueued.known_since_utc`).

Promises kept here: what was acknowledged is on disk before that; nothing is forgotten before it is applied here or removed by
somebody; what was refused or given up stays, with its reason, until it is removed; the queue is bounded in number and bytes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import trio

from swarm.errors import (
    Conflict,
    HeldBack,
    NotFound,
    OperatorError,
    Overloaded,
    PeerError,
    Unavailable,
    UnknownOutcome,
)
from swarm.model.command import SubmitQueued
from swarm.model.ids import ClusterId, RequestId, TaskId
from swarm.model.outcome import Applied
from swarm.model.queued import REPEATED_WITHIN_S, QueuedSubmit
from swarm.model.task import Task, TaskSpec
from swarm.ports import Clock
from swarm.wire.codec import encode

LOG = logging.getLogger("swarm.queue")
QUEUED_MAX = 1_000
QUEUED_BYTES_MAX = 16 * 1024 * 1024
TRY_S = 5.0
CATCH_UP_S = 3.0
PAUSE_S = 1.0
"""Between attempts while there is no leader."""


class QueueFiles(Protocol):
    """Where queued submits are kept. `save` and `drop` are durable when they return and raise OSError."""

    @property
    def damaged(self) -> int: ...
    def load(self) -> list[QueuedSubmit]: ...
    async def save(self, record: QueuedSubmit) -> None: ...
    async def drop(self, request_id: RequestId) -> None: ...


class _Replica(Protocol):
    async def submit(self, command: Any, *, request_id: RequestId, timeout_s: float = 10.0) -> Applied: ...
    async def read_barrier(self, timeout_s: float = 3.0) -> int: ...
    async def wait_applied(self, index: int) -> None: ...


class _Catalog(Protocol):
    @property
    def tasks(self) -> Mapping[TaskId, Task]: ...


class SubmitQueue:
    """One node's queue. `run` is its life; the rest may be called before and while it runs."""

    def __init__(
        self, replica: _Replica, catalog: _Catalog, files: QueueFiles, clock: Clock, *, cluster_id: ClusterId
    ) -> None:
        """Loads what is on disk: blocking."""
        self._replica = replica
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._cluster_id = cluster_id
        self._saving = trio.Lock()
        """Held while a new record is saved, so that one request is not kept twice."""
        self._busy = trio.Lock()
        """Held while a record is tried or removed: nobody removes what is on its way."""
        self._wake = trio.Event()
        self.counters: Counter[str] = Counter()
        self._refused: dict[RequestId, OperatorError] = {}
        """Refused while the catalog here was behind: not sent again, and ended once it shows whether the task is there."""
        loaded = [record for record in files.load() if record.cluster_id == cluster_id]
        self._records = {record.request_id: record for record in sorted(loaded, key=_order)}

    @property
    def records(self) -> Sequence[QueuedSubmit]:
        """Everything kept, ended ones included, oldest first."""
        return tuple(self._records.values())

    def problems(self) -> list[str]:
        """For `swarm status`."""
        ended = [record.spec.name for record in self._records.values() if record.ended]
        found = []
        if ended:
            names = ", ".join(ended[:3]) + (", ..." if len(ended) > 3 else "")
            found.append(f"{len(ended)} queued tasks were not submitted ({names}): see swarm task queue ls on this node")
        if self._files.damaged:
            found.append(f"{self._files.damaged} queued tasks on this node's disk are damaged (queue/*.damaged) and lost")
        return found

    # ---- putting in and taking out

    async def put(self, request_id: RequestId, task_id: TaskId, spec: TaskSpec, *, maybe_done: bool) -> QueuedSubmit:
        """Keep it; durable when this returns. The same request again gives the first one's record. Raises `Conflict` (the id is
        another task's), `Overloaded` (full), `Unavailable` (the disk refuses)."""
        record = QueuedSubmit(self._cluster_id, request_id, task_id, spec, self._clock.utc(), maybe_done)
        with trio.CancelScope(shield=True):  # what is on disk and what is in memory never part; a write takes well below a second
            async with self._saving:
                known = self._records.get(request_id)
                if known is not None:
                    return self._same(known, spec)
                self._check_room(record)
                await self._save(record)
        self.counters["queue_put"] += 1
        self._wake.set()
        return record

    def _same(self, known: QueuedSubmit, spec: TaskSpec) -> QueuedSubmit:
        if not known.spec.asks_same(spec):
            raise Conflict(
                f"this request id was used for another task: '{known.spec.name}' ({known.spec.image}), which is queued here",
                cause="the one asked for here is another", hint="use another request id, or none, for another task",
            )  # fmt: skip
        if known.ended:
            raise Conflict(f"task '{spec.name}' was not submitted: {known.ended}", hint="submit it under a new request id")
        return known

    def _check_room(self, record: QueuedSubmit) -> None:
        size = sum(len(encode(each)) for each in self._records.values()) + len(encode(record))
        if len(self._records) < QUEUED_MAX and size <= QUEUED_BYTES_MAX:
            return
        raise Overloaded(
            f"the queue of this node is full ({len(self._records)} tasks)",
            hint="leave it with another node, or remove some: swarm task queue ls, swarm task queue rm",
        )

    async def _save(self, record: QueuedSubmit) -> None:
        try:
            await self._files.save(record)
        except OSError as error:
            cause = error.strerror or str(error)
            raise Unavailable("the task was not queued: this node's disk refuses", cause=cause) from None
        self._records[record.request_id] = record

    async def remove(self, reference: str) -> QueuedSubmit:
        """Take one out, by name, task id (or its beginning) or request id. Raises `NotFound`. What an earlier attempt did is not
        undone: `maybe_done` in the record says that there was one."""
        async with self._busy:
            record = self.find(reference)
            with trio.CancelScope(shield=True):
                await self._forget(record)
            return record

    def find(self, reference: str) -> QueuedSubmit:
        """Raises `NotFound`."""
        for record in self._records.values():
            if reference in (record.spec.name, record.task_id, record.request_id):
                return record
        begun = [record for record in self._records.values() if reference and record.task_id.startswith(reference)]
        if len(begun) == 1:
            return begun[0]
        raise NotFound(f"no task '{reference}' is queued on this node", hint="swarm task queue ls shows what is")

    async def _forget(self, record: QueuedSubmit) -> None:
        self._records.pop(record.request_id, None)
        self._refused.pop(record.request_id, None)
        try:
            await self._files.drop(record.request_id)
        except OSError as error:
            LOG.warning("a queued task's file cannot be removed (%s): it is tried again after a restart, applied once", error)

    # ---- submitting

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Submit what waits, whenever there is a leader."""
        task_status.started()
        while True:
            waiting = [record for record in self._records.values() if not record.ended]
            if not waiting:
                await self._wake.wait()
            self._wake = trio.Event()
            for record in waiting:
                async with self._busy:
                    if record.request_id in self._records and not await self._try(record):
                        break
            with trio.move_on_after(PAUSE_S):
                await self._wake.wait()

    async def _try(self, record: QueuedSubmit) -> bool:
        """Whether to go on with the next one: false when there is no leader."""
        if self._is_done(record):
            await self._forget(record)
            return True
        if record.request_id in self._refused:
            await self._settle_refused(record)
            return True
        if self._clock.utc() >= record.expires_utc:
            await self._end(record, "no leader was found before it expired; whether an earlier attempt was carried out, "
                            "swarm task ls shows" if record.maybe_done else "no leader was found before it expired")  # fmt: skip
            return True
        command = SubmitQueued(record.task_id, record.spec, record.queued_utc - REPEATED_WITHIN_S)
        try:
            await self._replica.submit(command, request_id=record.request_id, timeout_s=TRY_S)
        except UnknownOutcome:
            await self._note_maybe_done(record)
            return False
        except (Unavailable, Overloaded, HeldBack):
            return False
        except OperatorError as error:
            self._refused[record.request_id] = error
            await self._settle_refused(record)
            return True
        self.counters["queue_submitted"] += 1
        await self._forget(record)
        return True

    async def _settle_refused(self, record: QueuedSubmit) -> None:
        """Forget it if its task is there, end it if the catalog here is new enough to say that it is not, else leave it."""
        error = self._refused[record.request_id]
        if not self._is_done(record) and not await self._catch_up():
            return
        if self._is_done(record):
            self.counters["queue_submitted"] += 1
            await self._forget(record)
        else:
            del self._refused[record.request_id]
            await self._end(record, f"{error.message}: {error.cause}" if error.cause else error.message)

    async def _catch_up(self) -> bool:
        """Whether the catalog here is as new as the leader's was a moment ago."""
        with trio.move_on_after(CATCH_UP_S):
            try:
                await self._replica.wait_applied(await self._replica.read_barrier(CATCH_UP_S))
            except (Unavailable, PeerError):
                return False
            return True
        return False

    def _is_done(self, record: QueuedSubmit) -> bool:
        """Its task is there: an attempt whose answer was lost, or another node's."""
        task = self._catalog.tasks.get(record.task_id)
        return task is not None and task.spec.asks_same(record.spec)

    async def _note_maybe_done(self, record: QueuedSubmit) -> None:
        """Whoever takes it out later is told that it may have been carried out, also after a restart."""
        if record.maybe_done:
            return
        noted = msgspec.structs.replace(record, maybe_done=True)
        self._records[record.request_id] = noted
        try:
            await self._files.save(noted)
        except OSError as error:
            LOG.warning("that a queued task may have been submitted cannot be written (%s)", error)

    async def _end(self, record: QueuedSubmit, why: str) -> None:
        """It stays, with the reason, until somebody removes it."""
        self.counters["queue_ended"] += 1
        LOG.warning("queued task %s was not submitted: %s", record.spec.name, why)
        ended = msgspec.structs.replace(record, ended=why)
        self._records[record.request_id] = ended
        try:
            await self._files.save(ended)
        except OSError as error:
            LOG.warning("that cannot be written (%s): it is tried again after a restart", error)


def _order(record: QueuedSubmit) -> tuple[float, str]:
    return record.queued_utc, record.request_id
