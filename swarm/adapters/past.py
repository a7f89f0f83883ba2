"""Answers questions about the past from the archive: a process of its own, run for one question.

Rebuilding a state applies thousands of entries to a catalog that may be as large as the daemon's own. In a process of its own
it takes no turn of the daemon's loop, its memory is bounded by the kernel and gone with it, and a crash ends one answer. The
question comes as JSON on standard input, the answer leaves as JSON on standard output: `{"ok": ...}` or `{"error": ...}`.

    state at N:  the newest base at or below N, and every entry from there to N, applied by the catalog itself

Promises: an answer is exact or an error that says what can be shown; nothing sealed is in any shape; the archive is only read.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swarm.adapters import archive_file as files
from swarm.catalog import Catalog
from swarm.errors import BadMessage, NotFound, OperatorError, UnknownEntry, UsageError
from swarm.model.archived import Archived, Base, Moment, Question
from swarm.model.command import COMMANDS
from swarm.model.entry import Entry
from swarm.model.outcome import Event
from swarm.schema.past import Tables, difference, history_row, node_row, task_row
from swarm.schema.quantities import shown as text
from swarm.wire.codec import decode_untrusted
from swarm.wire.limits import PAYLOAD_BYTES_MAX

MEMORY_BYTES_MAX = 4 * 1024**3
"""A catalog of 100,000 tasks takes some 500 MB here."""
NICE = 10
OOM_SCORE = 500
_OF_NODES = ("assignment.reports", "node.declare", "secret.ack")
"""Kinds that a node says of itself; its id is the payload's `node_id`."""
_PREFIX_CHARS_MIN = 6
CLOCKS_S = 60.0
"""By how much the asker's clock may be ahead of this host's."""


class Past:
    """The archive in one folder, as it is now."""

    def __init__(self, folder: Path, cluster_id: str) -> None:
        self._folder = folder
        self._cluster_id = cluster_id
        self._blocks = [block for path in files.listed(folder, files.ENTRIES) for block in files.heads(path, cluster_id)]
        found = [files.read_base_untrusted(path, cluster_id) for path in files.listed(folder, files.BASE)]
        self._bases = [base for base in found if base is not None]

    # ---- what there is ----------------------------------------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The newest index that can be shown; 0 when there is none."""
        return max(
            self._blocks[-1].last if self._blocks else 0, self._bases[-1].index if self._bases else 0
        )

    def gaps(self) -> list[tuple[int, int]]:
        """Runs of entries that are missing behind the first one kept."""
        pairs = zip(self._blocks, self._blocks[1:], strict=False)
        return [(a.last + 1, b.first - 1) for a, b in pairs if b.first > a.last + 1]

    def kept(self) -> dict[str, Any]:
        """What can be shown, for people and programs."""
        first = self._blocks[0] if self._blocks else None
        oldest = self._oldest()
        return {
            "first_index": first.first if first else None,
            "first_utc": first.first_utc if first else None,
            "last_index": self.newest or None,
            "oldest_state_index": oldest[0] if oldest else None,
            "oldest_state_utc": oldest[1] if oldest else None,
            "gaps": [list(gap) for gap in self.gaps()],
        }

    def _oldest(self) -> tuple[int, float] | None:
        """Index and time of the oldest state that can be rebuilt."""
        if self._blocks and self._blocks[0].first == 1:
            return 1, self._blocks[0].first_utc
        return (self._bases[0].index, self._bases[0].time_utc) if self._bases else None

    # ---- answers ----------------------------------------------------------------------------------------------------------

    def answer(self, question: Question) -> dict[str, Any]:
        """Raises `OperatorError`."""
        match question.what:
            case "history":
                return self.history(question)
            case "state":
                return self.state(question)
            case "diff":
                return self.diff(question)
            case other:
                raise UsageError(f"nothing is known about {other!r}", cause="history, state or diff is expected")

    def history(self, question: Question) -> dict[str, Any]:
        """The newest rows that fit, oldest of them first. Reads backwards and stops when it has enough."""
        rows: list[list[dict[str, Any]]] = []
        count, more, damaged = 0, False, 0
        for block in reversed(self._blocks):
            if self._is_before(block.last, block.last_utc, question.since) or more:
                break
            if question.before and block.first >= question.before:
                continue
            try:
                records = files.read_block(block)
            except (BadMessage, FileNotFoundError):
                damaged += 1
                continue
            for record in reversed(records):
                entry = record.entry
                if (question.before and entry.index >= question.before) or count > question.limit:
                    continue
                if self._is_before(entry.index, entry.time_utc, question.since):
                    break
                found = rows_of(record, question.about)
                more = count + len(found) > question.limit and count > 0
                if more:
                    break
                count += len(found)
                rows.append(found)
        flat = [row for found in reversed(rows) for row in found]
        self._name_removed(flat, question.removed)
        return {"rows": flat, "more": more, "blocks_damaged": damaged, "kept": self.kept()}

    def _name_removed(self, rows: list[dict[str, Any]], removed: Mapping[str, int]) -> None:
        """Where a node that is gone is said to have brought something: its name, as `by_node`, where its removal is kept."""
        names: dict[str, str] = {}
        for row in rows:
            node_id = row["by_node_id"]
            if node_id in removed:
                if node_id not in names:
                    names[node_id] = self._name_at(removed[node_id], node_id)
                row["by_node"] = names[node_id] or None

    def _name_at(self, index: int, node_id: str) -> str:
        """As the entry that removed this node names it; empty where that is not kept."""
        with contextlib.suppress(BadMessage, OSError):
            blocks = [block for block in self._blocks if block.first <= index <= block.last]
            records = [record for block in blocks for record in files.read_block(block) if record.entry.index == index]
            events = [event for record in records for event in record.events]
            return next((str(each.fields["name"]) for each in events if "name" in each.fields and node_id in each.subjects), "")
        return ""

    def _is_before(self, index: int, time_utc: float, since: Moment) -> bool:
        return (since.index is not None and index <= since.index) or (since.utc is not None and time_utc < since.utc)

    def state(self, question: Question) -> dict[str, Any]:
        """Tasks and nodes as they were; of those that are asked about, with the nodes they were on. Raises `NotFound`."""
        tables = tables_of(self.rebuild(self.index_of(question.at)))
        tasks = sorted(tables.tasks.values(), key=lambda task: (task.created_index, task.id))
        chosen = [task for task in tasks if is_about(question.about, (task.id,), task.spec.name)]
        if question.about and not chosen:
            when = f"index {tables.index}, {_shown(tables.time_utc)} UTC"
            raise NotFound(f"there was no task {text(question.about[0])} then", cause=f"at {when}", hint="see swarm history")
        places = {each.node_id for task in chosen if (each := tables.assignments.get(task.assignment)) is not None}
        nodes = sorted(tables.nodes.values(), key=lambda node: (node.name, node.id))
        nodes = [node for node in nodes if not question.about or node.id in places]
        return {
            "index": tables.index,
            "time_utc": tables.time_utc,
            "tasks": [task_row(tables, task) for task in chosen[: question.limit]],
            "tasks_total": len(chosen),
            "nodes": [node_row(tables, node) for node in nodes[: question.limit]],
            "nodes_total": len(nodes),
            "kept": self.kept(),
        }

    def diff(self, question: Question) -> dict[str, Any]:
        """What changed on the way from one moment to another, in either direction."""
        start, end = self.index_of(question.at), self.index_of(question.to)
        catalog = self.rebuild(min(start, end))
        earlier = tables_of(catalog)
        later = tables_of(self.rebuild(max(start, end), catalog))
        before, after = (earlier, later) if start <= end else (later, earlier)
        return difference(before, after, limit=question.limit) | {"kept": self.kept()}

    # ---- from moments to states -------------------------------------------------------------------------------------------

    def index_of(self, moment: Moment) -> int:
        """The index that stands for a moment. Raises `NotFound`."""
        if moment.index is not None:
            if not 0 < moment.index <= self.newest:
                raise NotFound(f"there is no index {moment.index} here", cause=f"the newest is {self.newest}", hint=self.hint())
            return moment.index
        if moment.utc is None:
            return self._or_nothing(self.newest)
        if moment.utc > max(time.time(), self._blocks[-1].last_utc if self._blocks else 0.0) + CLOCKS_S:
            raise UsageError(f"{_shown(moment.utc)} UTC is yet to come", hint=self.hint())
        return self._or_nothing(self._index_at(moment.utc), f"nothing from {_shown(moment.utc)} UTC is kept on this node")

    def _or_nothing(self, index: int, problem: str = "nothing is kept on this node yet") -> int:
        if not index:
            raise NotFound(problem, hint=self.hint())
        return index

    def _index_at(self, utc: float) -> int:
        """The last index not younger than a time; 0 when none is kept. Raises `NotFound` where what came next is missing."""
        index, after = self._entries_around(utc)
        index = max([index, *(base.index for base in self._bases if base.time_utc <= utc)])
        later = min((base.index for base in self._bases if base.time_utc > utc), default=0)
        following = min(filter(None, (after, later)), default=0)
        if index and following > index + 1:
            missing = f"the entries {index + 1} to {after - 1 if after else later} are missing"
            raise NotFound(f"what was in force then is not known here: {missing}", hint="ask another node")
        return index

    def _entries_around(self, utc: float) -> tuple[int, int]:
        """The last kept entry not younger than a time, and the first one that is; 0 for none. Times never fall along a log."""
        index = 0
        for block in self._blocks:
            if block.first_utc > utc:
                return index, block.first
            if block.last_utc > utc:
                index = max(each.index for each in self._entries_of(block) if each.time_utc <= utc)
                return index, index + 1
            index = block.last
        return index, 0

    def _entries_of(self, block: files.Block) -> list[Entry]:
        """Raises `NotFound` when it is damaged, or pruned meanwhile."""
        try:
            return [each.entry for each in files.read_block(block)]
        except (BadMessage, OSError) as error:
            raise NotFound(
                f"the entries {block.first} to {block.last} cannot be read on this node", cause=str(error), hint=self.hint()
            ) from None

    def rebuild(self, index: int, catalog: Catalog | None = None) -> Catalog:
        """The catalog at an index: from `catalog` (as it was at an earlier one) on, where that is nearer. Raises `NotFound`."""
        bases = [base for base in reversed(self._bases) if base.index <= index]
        for base in (*bases, None):
            begun = catalog.applied_index if catalog is not None else -1
            if catalog is None or (base is not None and base.index > begun):
                started = self._from_base(base)
            else:
                started = catalog
            if started is not None and self._apply(started, index):
                return started
        raise NotFound(f"the state at index {index} is not kept on this node", hint=self.hint())

    def _from_base(self, base: Base | None) -> Catalog | None:
        """A catalog that stands where a base stands (an empty one without any); None when the base cannot be read."""
        catalog = Catalog()
        if base is None:
            return catalog
        with contextlib.suppress(BadMessage, FileNotFoundError):  # one of a newer program too: perhaps an older base will do
            catalog.restore(files.read_base_data_untrusted(files.base_path(self._folder, base.index), self._cluster_id))
            return catalog
        return None

    def _apply(self, catalog: Catalog, index: int) -> bool:
        """Bring a catalog up to an index; False when entries on the way are missing or damaged."""
        for block in self._blocks:
            if block.last <= catalog.applied_index or block.first > index or catalog.applied_index >= index:
                continue
            if block.first > catalog.applied_index + 1:
                return False
            try:
                records = files.read_block(block)
            except (BadMessage, FileNotFoundError):
                return False
            for record in records:
                if catalog.applied_index < record.entry.index <= index:
                    self._apply_one(catalog, record)
        return catalog.applied_index == index

    def _apply_one(self, catalog: Catalog, record: Archived) -> None:
        try:
            catalog.apply(record.entry)
        except UnknownEntry as error:
            raise NotFound("that state was made by a newer swarm", cause=str(error), hint="upgrade this node") from None

    def hint(self) -> str:
        """What can be shown."""
        oldest = self._oldest()
        if oldest is None:
            return "no state is kept on this node yet; ask another node"
        when = f"{_shown(oldest[1])} UTC"
        return f"the oldest state that this node can show is index {oldest[0]}, {when}; another node may have kept more"


def _shown(utc: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(utc))


def tables_of(catalog: Catalog) -> Tables:
    """The records of a catalog, which may change after this. O(records), copies none."""
    return Tables(
        index=catalog.applied_index,
        time_utc=catalog.time_utc,
        tasks=dict(catalog.tasks),
        assignments=dict(catalog.assignments),
        nodes=dict(catalog.nodes),
        reserved=dict(catalog.reserved),
        configuration=catalog.configuration,
    )


def rows_of(record: Archived, about: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each event of an entry, and one for what was refused of it."""
    events: list[Event | None] = []
    events += [each for each in record.events if is_about(about, each.subjects, str(each.fields.get("name", "")))]
    if record.refused and not about:
        events.append(None)
    by, by_node = who(record) if events else ("", "")
    return [history_row(record, each, by=by, by_node=by_node) for each in events]


def is_about(about: Sequence[str], subjects: Sequence[str], name: str) -> bool:
    """Whether something is what was asked for: by a name, an id, or the beginning of one."""
    return not about or any(
        each == name or each in subjects or (len(each) >= _PREFIX_CHARS_MIN and any(s.startswith(each) for s in subjects))
        for each in about
    )


def who(record: Archived) -> tuple[str, str]:
    """Who brought an entry: a `request` (of a person or a program), a `node` of itself (with its id), or the `leader`."""
    entry = record.entry
    if entry.kind in _OF_NODES:
        with contextlib.suppress(BadMessage):
            command: Any = decode_untrusted(entry.payload, COMMANDS[entry.kind][1], bytes_max=PAYLOAD_BYTES_MAX)
            return "node", str(command.node_id)
    if entry.kind == "node.admit" or (record.events and record.events[0].kind == "cluster.recovered"):
        return "node", record.events[0].subjects[0] if record.events and record.events[0].subjects else ""
    return ("request" if entry.request_id else "leader"), ""


def reply(folder: Path, cluster_id: str, packed: bytes) -> bytes:
    """One question to one answer, both JSON."""
    try:
        question = msgspec.json.decode(packed, type=Question)
        return msgspec.json.encode({"ok": Past(folder, cluster_id).answer(question)})
    except OperatorError as error:
        said = {"code": error.code, "message": error.message, "cause": error.cause, "hint": error.hint}
    except MemoryError:
        said = {"code": "overloaded", "message": "the answer does not fit into memory", "cause": "", "hint": "ask for less"}
    return msgspec.json.encode({"error": said})


def _be_modest() -> None:
    """Nothing here is worth a turn of the daemon's."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))


def main(arguments: Iterator[str]) -> None:
    """`python -m swarm.adapters.past FOLDER CLUSTER`."""
    _be_modest()
    folder, cluster_id = Path(next(arguments)), next(arguments)
    sys.stdout.buffer.write(reply(folder, cluster_id, sys.stdin.buffer.read()))


if __name__ == "__main__":
    main(iter(sys.argv[1:]))
