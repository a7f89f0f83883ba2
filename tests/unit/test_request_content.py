"""What a request asks for, as every program sees it: one that knows more fields of a task, or fewer, keeps the same table."""

from __future__ import annotations

import hashlib

import msgspec

from swarm.catalog.requests import Requests
from swarm.model.command import Submit, SubmitQueued
from swarm.model.entry import Entry
from swarm.model.ids import RequestId, TaskId
from swarm.model.task import TaskSpec
from swarm.wire.codec import encode
from tests.catalog_kit import make_spec

TASK = TaskId("t" * 32)
SPEC = make_spec("a")


class LaterSpec(TaskSpec, frozen=True, array_like=True, gc=False):
    """A later program's: one more field, with a default."""

    colour: str = ""


def later(colour: str) -> LaterSpec:
    return LaterSpec(**msgspec.structs.asdict(SPEC), colour=colour)


def entry(kind: str, payload: bytes) -> Entry:
    return Entry(5, 1, kind, 1, payload, 0, 1.0, RequestId("r" * 8))


def queued(spec: TaskSpec, known_since_utc: float = 7.5) -> Entry:
    return entry("task.submit_queued", encode(SubmitQueued(TASK, spec, known_since_utc)))


def direct(spec: TaskSpec) -> Entry:
    return entry("task.submit", encode(Submit(TASK, spec)))


def content(of: Entry) -> bytes:
    """As it is kept, and stands in snapshots."""
    requests = Requests()
    requests.remember(of, 1.0, "", None)
    return requests.records[0].content


def test_a_queued_submit_is_hashed_as_the_direct_one_whenever_it_was_queued() -> None:
    plain = [TASK, msgspec.to_builtins(SPEC, builtin_types=(bytes,))]
    expected = hashlib.sha256(b"task.submit\x001\x00" + encode(plain)).digest()[:16]
    assert content(direct(SPEC)) == content(queued(SPEC)) == content(queued(SPEC, 8.5)) == expected
    assert content(queued(make_spec("b"))) != expected


def test_a_later_programs_field_is_part_of_what_was_asked_here_too() -> None:
    assert content(queued(later("red"))) == content(direct(later("red")))
    assert len({content(queued(spec)) for spec in (SPEC, later(""), later("red"), later("blue"))}) == 4


def test_a_field_that_an_earlier_program_did_not_know_is_not_added() -> None:
    plain = [TASK, msgspec.to_builtins(SPEC, builtin_types=(bytes,))[:-1]]
    early, late = entry("task.submit", encode(plain)), entry("task.submit_queued", encode([*plain, 7.5]))
    assert content(early) == content(late) != content(queued(SPEC))


def test_a_malformed_queued_submit_has_a_content_of_its_own() -> None:
    assert content(entry("task.submit_queued", b"\xff")) != content(entry("task.submit", b"\xff"))
