"""`swarm history | state | diff`: what happened, how things were, and what changed between two moments."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from swarm.cli.asking import (
    clean,
    client,
    connected,
    print_json,
    print_table,
    printing,
    shown_size,
    shown_time,
    shown_value,
    warn_if_stale,
)
from swarm.cli.task import row as task_row
from swarm.errors import UsageError
from swarm.schema.moments import moment_text, read_moment

REQUEST_SHOWN = 12
SIZES = ("memory", "memory_reserved")
"""Fields in bytes."""


def moment(text: str) -> str:
    """A moment as typed here, in the form the API reads. Says which day a time of day is of, where it is not today's."""
    if not text:
        return ""
    now_utc = time.time()
    if note := day_note(text, now_utc=now_utc):
        print(note, file=sys.stderr)
    return moment_text(read_moment(text, now_utc=now_utc, local=True))


def day_note(text: str, *, now_utc: float) -> str:
    """What to say of a time of day that is read as yesterday's; empty for any other moment."""
    utc = read_moment(text, now_utc=now_utc, local=True).utc
    if utc is None or ":" not in text or "-" in text or time.localtime(utc)[:3] == time.localtime(now_utc)[:3]:
        return ""
    return f"note: {clean(text.strip())} has not been today yet: read as {shown_time(utc)}"


@click.command()
@click.argument("task", default="")
@click.option("--since", default="", metavar="MOMENT", help="Only from this time on (10:30, 2h, a date), or after this index.")
@click.option("--before", type=int, default=0, metavar="INDEX", help="Only what came before this index: the page before.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True,
    help="The newest so many, or fewer: the rows of one entry stay together.",
)  # fmt: skip
@printing
@connected
def history(task: str, since: str, before: int, limit: int, output: str, socket_path: str, address: str) -> None:
    """Who did what when, newest last: of TASK (its name or id, also of one that is gone; a node's works too) or of everything."""
    query = {"about": task or None, "since": moment(since) or None, "before": before or None, "limit": limit}
    with client(socket_path, address) as node:
        answer = node.get("/v1/history", query)
    warn_if_stale(answer)
    found = answer.content
    if output == "json":
        print_json(found)
        return
    print_table(["INDEX", "TIME", "KIND", "BY", "WHAT", "REQUEST"], [history_row(each) for each in found["rows"]])
    first, kept = (found["rows"][0]["index"] if found["rows"] else 0), found["kept"]
    if found["more"]:
        print(f"there is more: --before {first}", file=sys.stderr)
    elif kept["first_index"] not in (None, 1) and not since:
        print(f"nothing older than index {kept['first_index']} ({shown_time(kept['first_utc'])}) is kept here", file=sys.stderr)
    for begin, end in kept["gaps"]:
        print(f"warning: this node missed the entries {begin} to {end}; another node may have them", file=sys.stderr)


def history_row(row: dict[str, Any]) -> list[str]:
    by = row["by_node"] or row["by"]
    cells = [str(row["index"]), shown_time(row["time_utc"]), row["kind"], by, row["text"]]
    return [*cells, (row["request_id"] or "")[:REQUEST_SHOWN]]


@click.command()
@click.option("--at", default="", metavar="TIME", help="10:30 (the newest there was), 2h (ago), or a date; local time.")
@click.option("--index", type=int, default=0, metavar="N", help="Right after this entry of the log.")
@click.option("--task", default="", metavar="TASK", help="Only this task.")
@printing
@connected
def state(at: str, index: int, task: str, output: str, socket_path: str, address: str) -> None:
    """Tasks and nodes as the log had them at a moment."""
    if at and index:
        raise UsageError("both --at and --index are given", hint="give one of them")
    if not at and not index:
        raise UsageError("which state is not said", hint="give one of --at and --index")
    query = {"at": moment(at) or None, "index": index or None, "about": task or None}
    with client(socket_path, address) as node:
        answer = node.get("/v1/state", query)
    warn_if_stale(answer)
    found = answer.content
    if output == "json":
        print_json(found)
        return
    print(f"index {found['index']}, {shown_time(found['time_utc'])}\n")
    print_table(["ID", "NAME", "IMAGE", "DESIRED", "PHASE", "NODE", "ATTEMPT", "REASON"], [task_row(t) for t in found["tasks"]])
    say_if_cut(found["tasks"], found["tasks_total"], "tasks")
    if task:
        return
    print()
    titles = ["NAME", "ADDRESS", "ROLE", "AVAILABILITY", "VERDICT", "TASKS", "CPUS", "MEMORY"]
    print_table(titles, [node_row(each) for each in found["nodes"]])
    say_if_cut(found["nodes"], found["nodes_total"], "nodes")


def node_row(node: dict[str, Any]) -> list[str]:
    cpus = f"{node['cpus_reserved']:g}/{node['cpus']:g}"
    memory = f"{shown_size(node['memory_reserved'])}/{shown_size(node['memory'])}"
    names = [node["name"], node["address"], node["role"], node["availability"], node["verdict"]]
    return [*names, str(node["tasks"]), cpus, memory]


def say_if_cut(rows: list[Any], total: int, what: str) -> None:
    if len(rows) < total:
        print(f"warning: {len(rows)} of {total} {what} are shown", file=sys.stderr)


@click.command()
@click.argument("begin", metavar="A")
@click.argument("end", metavar="B", default="now")
@printing
@connected
def diff(begin: str, end: str, output: str, socket_path: str, address: str) -> None:
    """What changed from A to B: each an index, a time (10:30, a date, 2h for so long ago) or `now`, which B is by default."""
    with client(socket_path, address) as node:
        answer = node.get("/v1/diff", {"from": moment(begin), "to": moment(end)})
    warn_if_stale(answer)
    found = answer.content
    if output == "json":
        print_json(found)
        return
    ends = [f"index {found[which]['index']} ({shown_time(found[which]['time_utc'])})" for which in ("from", "to")]
    print(" -> ".join(ends))
    lines = [line for what in ("task", "node") for line in lines_of(what, found[f"{what}s"])]
    for line in lines or ["nothing changed"]:
        print(clean(line))
    for what in ("tasks", "nodes"):
        for kind, rows in found[what].items():
            say_if_cut(rows, found["totals"][what][kind], f"{what} {kind}")


def lines_of(what: str, rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """`+` added, `-` removed, `>` moved, `~` changed."""
    lines = [f"+ {what} {each['name']}{where(each)}" for each in rows["added"]]
    lines += [f"- {what} {each['name']}{where(each)}" for each in rows["removed"]]
    for each in rows.get("moved", ()):
        lines.append(f"> {what} {each['name']}: {each['from_node']} -> {each['to_node']}{fields_of(each, ('node', 'node_id'))}")
    return lines + [f"~ {what} {each['name']}{fields_of(each, ('node_id',))}" for each in rows["changed"]]


def where(row: dict[str, Any]) -> str:
    """Of a task: its phase and place."""
    return f" ({row['phase']}{' on ' + row['node'] if row['node'] else ''})" if "phase" in row else ""


def fields_of(row: dict[str, Any], without: tuple[str, ...]) -> str:
    """What else differs. Times of starts say nothing that phases and attempts do not."""
    left_out = (*without, "started_utc")
    fields = [(name, old, new) for name, (old, new) in row["fields"].items() if name not in left_out]
    parts = [f"{name} {shown(name, old)} -> {shown(name, new)}" for name, old, new in fields]
    return ": " + ", ".join(parts) if parts else ""


def shown(name: str, value: Any) -> str:
    """A field of a task or a node as other commands show it."""
    if value is None:
        return "-"
    if name in SIZES:
        return shown_size(value)
    if isinstance(value, bool | dict | list):
        return shown_value(value) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)
