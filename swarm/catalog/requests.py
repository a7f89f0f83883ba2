"""Request ids: the same request, sent twice, is applied once (PROTOCOLS S24).

A client makes the id before its first attempt and repeats it when the outcome is unknown. The first result is kept with a
hash of what was asked; the same id with other content is refused. A submit asks for the same whether it waited in a node's queue
or not. Ids are kept for 24 h of log time and at most 100,000, so that the table stays bounded and every replica forgets the same
one at the same entry.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from swarm.catalog.checks import conflict
from swarm.errors import BadMessage
from swarm.model.command import KIND_OF, Submit, SubmitQueued
from swarm.model.entry import Entry
from swarm.model.ids import RequestId
from swarm.model.outcome import Rejected
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import PAYLOAD_BYTES_MAX

KEPT_S = 24 * 3600.0
KEPT_MAX = 100_000
CLEAR_STEP = 1000
SUBMIT_VERSION, SUBMIT_FIELDS = 1, 2
"""A queued submit counts as the direct one of this version; what it has in common with that are its first fields. In the hashes
of every replica: never changes."""


class RequestRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request id and what it gave."""

    request_id: RequestId
    content: bytes
    index: int
    time_utc: float
    value: str
    rejected: Rejected | None


class Requests:
    """The bounded table. `records` is in order of the log."""

    def __init__(self) -> None:
        self._by_id: dict[RequestId, RequestRecord] = {}
        self._order: deque[RequestRecord] = deque()

    def extend(self, records: Iterable[RequestRecord]) -> None:
        """Take records of a snapshot, oldest first; an id that is there already is not taken again."""
        for record in records:
            if self._by_id.setdefault(record.request_id, record) is record:
                self._order.append(record)

    @property
    def records(self) -> tuple[RequestRecord, ...]:
        """Everything kept, oldest first. O(n)."""
        return tuple(self._order)

    def earlier(self, entry: Entry) -> tuple[str, Rejected | None, bool] | None:
        """(value, rejection, True) of the first time this id was applied, ("", a conflict, False) if that was another request,
        or None."""
        record = self._by_id.get(entry.request_id)
        if record is None:
            return None
        if record.content != _content(entry):
            rejected = conflict(
                f"cannot apply request {entry.request_id!r}: the id belongs to another request",
                f"entry {record.index} used it with other content",
                "make a new request id for each new request",
            )
            return "", rejected, False
        return record.value, record.rejected, True

    def remember(self, entry: Entry, time_utc: float, value: str, rejected: Rejected | None) -> None:
        """Keep the result of a first application. The entry must carry a request id."""
        record = RequestRecord(entry.request_id, _content(entry), entry.index, time_utc, value, rejected)
        self._by_id[record.request_id] = record
        self._order.append(record)

    def known_since(self, time_utc: float) -> float:
        """Since when every request id is still known, at this moment of log time. Never too early."""
        full = len(self._order) >= KEPT_MAX
        return max(time_utc - KEPT_S, self._order[0].time_utc if full else time_utc - KEPT_S)

    def forget_old(self, time_utc: float) -> None:
        """Drop what is over age or over number at this moment of log time."""
        while self._order and (len(self._order) > KEPT_MAX or self._order[0].time_utc < time_utc - KEPT_S):
            del self._by_id[self._order.popleft().request_id]

    def clear_steps(self) -> Iterator[None]:
        """Let go of everything, some a step."""
        while self._order:
            for _ in range(min(CLEAR_STEP, len(self._order))):
                del self._by_id[self._order.popleft().request_id]
            yield


def _content(entry: Entry) -> bytes:
    """Of what was asked. When a queued submit was left with its node is no part of that, nor that it was: several nodes may have
    it, and one that has a leader submits it at once. Every program computes the same: from what stands in the entry, not from
    what this one knows of a task's fields."""
    kind, version, payload = entry.kind, entry.version, entry.payload
    if kind == KIND_OF[SubmitQueued]:
        try:
            items = decode_untrusted(payload, list[Any], bytes_max=PAYLOAD_BYTES_MAX)
        except BadMessage:
            pass  # refused as malformed, under its own content
        else:
            kind, version, payload = KIND_OF[Submit], SUBMIT_VERSION, encode(items[:SUBMIT_FIELDS])
    head = f"{kind}\0{version}\0".encode()
    return hashlib.sha256(head + payload).digest()[:16]
