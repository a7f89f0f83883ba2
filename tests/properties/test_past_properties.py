"""Whatever was applied, the past shows it: the state at any index equals the catalog as it was there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.adapters.past import tables_of
from swarm.errors import NotFound
from swarm.model.archived import Moment
from swarm.model.command import SetReason
from swarm.model.ids import TaskId
from swarm.schema.past import difference
from tests.archive_kit import KeptLog
from tests.properties.test_catalog_properties import STEP, sharpened

HAPPENING = st.sampled_from(["", "", "write", "write", "base", "restart", "reread"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(STEP, HAPPENING), min_size=1, max_size=40), st.data())
def test_the_state_at_an_index_equals_the_catalog_as_it_was(
    steps: list[tuple[tuple[Any, str], str]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        kept = KeptLog(Path(folder))
        for (command, request_id), happening in steps:
            if request_id == "sharp":
                command, request_id = sharpened(command, kept.log.catalog), ""
            kept.log.time_utc += 1
            kept.apply(command, request_id)
            if happening == "write":
                kept.write()
            elif happening == "base":
                kept.offer_base()
            elif happening == "restart":
                kept.begin_anew()
            elif happening == "reread":
                kept.write(first=max(1, kept.written - 5))
        kept.write()
        past = kept.past()
        assert past.gaps() == []
        last = len(kept.records)
        for index in {1, last, data.draw(st.integers(1, last)), data.draw(st.integers(1, last))}:
            assert past.rebuild(index).digest() == kept.digests[index]


EVENTS = st.sampled_from(["", "", "", "tick", "tick", "write", "drop", "base"])


@settings(deadline=None, max_examples=150)
@given(st.lists(EVENTS, min_size=1, max_size=40))
def test_a_moment_finds_the_last_entry_before_it_or_an_error_where_that_one_or_the_next_is_missing(events: list[str]) -> None:
    """Moments within blocks, at their borders, among entries of one time, before the first and after the last."""
    with TemporaryDirectory() as folder:
        kept = KeptLog(Path(folder))
        known = set[int]()

        def write() -> None:
            known.update(range(kept.written + 1, len(kept.records) + 1))
            kept.write()

        for event in events:
            kept.log.time_utc += event == "tick"
            kept.apply(SetReason(TaskId("none"), "x"))
            if event == "write":
                write()
            elif event == "drop":
                kept.written = len(kept.records)  # they never reach the archive: the daemon was away
            elif event == "base":
                kept.offer_base()
        kept.apply(SetReason(TaskId("none"), "newest"))
        write()
        known.update(base.index for base in kept.past()._bases)
        times = {record.entry.index: record.entry.time_utc for record in kept.records}
        for utc in sorted({time + shift for time in times.values() for shift in (-0.5, 0.0, 0.5)}):
            true = max((index for index, time in times.items() if time <= utc), default=0)
            found = index_at(kept, utc)
            is_known = true in known and (true + 1 in known or true == len(times))
            assert found == (true if is_known else None), (utc, sorted(known), times)


def index_at(kept: KeptLog, utc: float) -> int | None:
    """None where the archive says that it cannot tell."""
    try:
        return kept.past().index_of(Moment(utc=utc))
    except NotFound:
        return None


@settings(deadline=None, max_examples=40)
@given(st.lists(STEP, min_size=1, max_size=40), st.data())
def test_what_is_added_there_is_removed_on_the_way_back(steps: list[tuple[Any, str]], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        kept = KeptLog(Path(folder))
        for command, _ in steps:
            kept.apply(sharpened(command, kept.log.catalog))
        kept.write()
        ends = [data.draw(st.integers(1, len(kept.records))) for _ in range(2)]
        one, other = (tables_of(kept.past().rebuild(index)) for index in ends)
        there, back = difference(one, other, limit=1000), difference(other, one, limit=1000)
        assert there["tasks"]["added"] == back["tasks"]["removed"]
        assert there["nodes"]["removed"] == back["nodes"]["added"]
        for kind in ("moved", "changed"):
            turned = [
                row | {"from_node": row["to_node"], "to_node": row["from_node"], "name": other.tasks[row["id"]].spec.name}
                | {"fields": {name: pair[::-1] for name, pair in row["fields"].items()}}
                for row in back["tasks"][kind]
            ]  # fmt: skip
            key = lambda row: row["id"]  # noqa: E731
            assert sorted(there["tasks"][kind], key=key) == sorted(turned, key=key)
        assert difference(one, one, limit=10)["totals"] == {
            "tasks": {"added": 0, "removed": 0, "moved": 0, "changed": 0}, "nodes": {"added": 0, "removed": 0, "changed": 0},
        }  # fmt: skip
