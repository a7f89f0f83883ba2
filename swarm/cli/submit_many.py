"""`swarm task submit --file` with several tasks: checked whole, sent in batches, and waited for together.

Nothing is sent before every document is known to be good. Each task is then taken or refused by itself. The request id of the
whole names every batch and every task, so that the same file with the same id takes nothing twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from swarm.cli.asking import StillWaiting, TaskFailed, clean, print_json
from swarm.client.client import Client, Interrupted, new_request_id
from swarm.errors import Conflict, OperatorError, UsageError
from swarm.schema.document import build_spec, explain_at

BATCH_ITEMS = 2_000
BATCH_BYTES = 3 * 1024 * 1024
ID_CHARS_MAX = 56
PAGE_IDS = 20_000
LOOK_S = 1.0
SHOWN_MAX = 10
_AGAIN = (6, 7, 8)
"""Exit codes that say: ask again (unavailable, unknown outcome, overloaded)."""
Item = dict[str, Any]


def check_all(documents: list[tuple[dict[str, Any], str]]) -> None:
    """The node's own check of every document, and of their names together. Raises `UsageError` with file and document."""
    names: dict[str, str] = {}
    for document, place in documents:
        try:
            if "image" not in document:
                raise UsageError("no image is named", hint="add a field like image: redis:7")
            spec = build_spec(document, name_default="")
        except OperatorError as error:
            raise explain_at(error, place) from None
        first = names.setdefault(spec.name, place) if spec.name else place
        if first != place:
            raise UsageError(f"{place}: the name '{spec.name}' is given twice", cause=f"it is that of {first}")


def batches_of(items: list[Item]) -> Iterator[list[Item]]:
    """Runs of items that fit into one request each; the same for the same items."""
    batch: list[Item] = []
    size = 0
    for item in items:
        own = len(json.dumps(item))
        if batch and (len(batch) >= BATCH_ITEMS or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += own
    yield batch


def submit_all(node: Client, items: list[Item], request_id: str) -> list[dict[str, Any]]:
    """What became of each, in order. An error that leaves something to go on with says how, with the id."""
    whole = request_id or new_request_id()
    if len(whole) > ID_CHARS_MAX:
        raise UsageError("the request id is too long", cause=f"at most {ID_CHARS_MAX} characters for several tasks")
    rows: list[dict[str, Any]] = []
    for number, batch in enumerate(batches_of(items)):
        try:
            answer = node.write("POST", "/v1/tasks/batch", {"tasks": batch}, request_id=f"{whole}-{number}")
        except Interrupted:
            said = f"{taken_of(rows)} of {len(items)} tasks were submitted; what became of the others is unknown"
            raise Interrupted(said, request_id=whole) from None
        except OperatorError as error:
            say_refused(rows)
            error.hint = _hint(error, rows, len(items), whole)
            raise
        rows += answer.content["tasks"]
    return rows


def _hint(error: OperatorError, rows: list[dict[str, Any]], total: int, request_id: str) -> str:
    """What to do after an error in the middle: how many are submitted by then, and how to go on where that may help."""
    again = f"go on with the same file and the same id, nothing is taken twice: --request-id {request_id}"
    taken = f"{taken_of(rows)} of {total} tasks were submitted" if rows else ""
    if error.exit_code in _AGAIN:
        return "; ".join(filter(None, (taken, again)))
    helps = again if rows and not isinstance(error, (UsageError, Conflict)) else ""
    return "; ".join(filter(None, (error.hint, taken, helps)))


def taken_of(rows: list[dict[str, Any]]) -> int:
    """How many were not refused."""
    return sum(row["outcome"] != "refused" for row in rows)


def report(rows: list[dict[str, Any]], output: str, *, detach: bool) -> None:
    """The rows, where they are the command's answer; refused ones on standard error in any case."""
    if output == "json":
        print_json(rows)
    elif detach:
        for row in rows:
            if row["outcome"] != "refused":
                print(f"{row['name']} {row['id']}")
    say_refused(rows)


def say_refused(rows: list[dict[str, Any]]) -> None:
    """The first of them on standard error, and how many more there are."""
    refused = [row for row in rows if row["outcome"] == "refused"]
    for row in refused[:SHOWN_MAX]:
        said = ": ".join(row[each] for each in ("name", "error", "cause") if row[each])
        print(clean(f"refused: {said}" + (f"; {row['hint']}" if row["hint"] else "")), file=sys.stderr)
    if len(refused) > SHOWN_MAX:
        print(f"refused: and {len(refused) - SHOWN_MAX:,} more; -o json shows all", file=sys.stderr)


def raise_if_refused(rows: list[dict[str, Any]]) -> None:
    """Raises `Conflict` when some were, and says what became of the others."""
    taken = taken_of(rows)
    refused = len(rows) - taken
    if refused:
        others = f"the other {taken} {'is' if taken == 1 else 'are'} submitted" if taken else "none is submitted"
        raise Conflict(
            f"{refused} of {len(rows)} tasks {'was' if refused == 1 else 'were'} refused; {others}",
            hint="correct those and submit them by themselves under a new request id",
        )


def phases_of(node: Client, ids: list[str]) -> dict[str, Any]:
    """How many are in which phase, and examples; asked in pages."""
    counts: Counter[str] = Counter()
    examples: dict[str, Any] = {}
    for first in range(0, len(ids), PAGE_IDS):
        page = node.write("POST", "/v1/tasks/phases", {"ids": ids[first : first + PAGE_IDS]}, {"stale": 1}).content
        counts.update(page["counts"])
        examples = page["examples"] | examples
    return {"counts": counts, "examples": examples}


def wait_for_all(node: Client, ids: list[str], timeout_s: float, stay_up_s: float) -> str:
    """Until each runs or has ended, and that stayed so for `stay_up_s`; progress on standard error. The last word for people.

    Raises `TaskFailed` when some failed, `StillWaiting` when nothing has changed for `timeout_s`.
    """
    said, since = "", time.monotonic()
    all_since = 0.0
    while True:
        found = phases_of(node, ids)
        counts = found["counts"]
        now = ", ".join(f"{count} {phase}" for phase, count in sorted(counts.items()))
        done = sum(counts.get(phase, 0) for phase in ("running", "succeeded"))
        over = sum(counts.get(phase, 0) for phase in ("failed", "stopped", "lost", "gone"))
        if done + over == len(ids):
            all_since = all_since if now == said and all_since else time.monotonic()
            if time.monotonic() - all_since >= stay_up_s:
                break
        else:
            all_since = 0.0
        if now != said:
            said, since = now, time.monotonic()
            print(f"{done} of {len(ids)} run: {now}", file=sys.stderr, flush=True)
        if timeout_s and not all_since and time.monotonic() - since > timeout_s:
            raise StillWaiting(
                f"{len(ids) - done - over} of {len(ids)} tasks do not run yet: {now}", cause=_example(found, "pending"),
                hint="they stay submitted and run when they can; swarm task ls shows them",
            )  # fmt: skip
        time.sleep(min(LOOK_S, stay_up_s) if all_since else LOOK_S)
    if over:
        raise TaskFailed(f"{over} of {len(ids)} tasks failed: {now}", cause=_example(found, "failed"), hint="swarm task ls")
    return f"{len(ids)} tasks: {now}"


def _example(found: dict[str, Any], phase: str) -> str:
    rows = found["examples"].get(phase, [])
    return f"{rows[0]['name']}: {rows[0]['reason']}" if rows and rows[0]["reason"] else ""
