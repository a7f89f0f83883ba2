"""`swarm backup save | inspect | restore | ls`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from swarm.cli.asking import (
    client,
    connected,
    print_fields,
    print_json,
    print_table,
    printing,
    reading,
    shown_size,
    shown_time,
    stale_query,
    warn_if_stale,
)
from swarm.errors import BadMessage, Conflict, NotFound, OperatorError, Unavailable, UsageError
from swarm.schema.node_config import DATA_DEFAULT

INSIDE = "it holds every task with its environment variables: keep it as you keep those. No keys, secrets or tokens are in it"
STDOUT = "-"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@reading
@connected
def save(file: str, force: bool, stale: bool, socket_path: str, address: str) -> None:
    """Save the cluster's catalog, as the asked node has it, into FILE (mode 0600); `-` is standard output."""
    from swarm.wire.kept import parse_untrusted

    check_place(file, force=force)
    with client(socket_path, address) as node:
        answer = node.get("/v1/backup", stale_query(stale))
    try:
        header, _ = parse_untrusted(answer.content)
    except BadMessage as problem:
        raise Unavailable(f"the backup did not arrive whole: {problem}", hint="try again, or ask another node") from None
    write_backup(file, answer.content)
    warn_if_stale(answer, stale)
    age_s = max(0.0, time.time() - header.meta.time_utc)
    told = sys.stderr if file == STDOUT else sys.stdout
    print(f"{file}: cluster {header.cluster_id}, as {header.node_name} has it", file=told)
    print(f"up to entry {header.meta.index}, the newest there, which is {age_s:.0f} s old", file=told)
    print(f"{header.nodes} nodes, {header.tasks} tasks, {shown_size(len(answer.content))}", file=told)
    print(f"note: {INSIDE}", file=sys.stderr)


def check_place(file: str, *, force: bool) -> None:
    """Raise an `OperatorError` for a place that a backup cannot go to, before anybody is asked for one."""
    if file == STDOUT:
        if sys.stdout.isatty():
            raise UsageError("a backup is not for a terminal", hint="name a file, or put the output into one: > FILE")
    elif os.path.exists(file) and not force:
        raise Conflict(f"{file} is there already", hint="choose another name, or --force")
    elif not os.path.isdir(folder := os.path.dirname(os.path.abspath(file))):
        raise NotFound(f"cannot write {file}", cause=f"there is no folder {folder}", hint="make it, or choose another place")


def write_backup(file: str, content: bytes) -> None:
    """Raises `OperatorError`, with nothing left in a file's place."""
    from swarm.adapters.kept_snapshots import write_whole

    try:
        if file == STDOUT:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            write_whole(Path(file), content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OperatorError(
            f"cannot write {file}", cause=error.strerror or str(error), hint="choose another place"
        ) from None


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@printing
def inspect(file: str, output: str) -> None:
    """Check a backup to its last byte, and show what is in it. Needs no daemon."""
    from swarm.api.backup import header_shape
    from swarm.node.restore import read_backup

    header, data, contents = read_backup(file)
    found: dict[str, Any] = {
        **header_shape(header), "bytes": len(data), "node_names": list(contents.nodes), "task_names": list(contents.tasks),
        "tasks_to_run": contents.tasks_to_run, "tasks_ended": contents.tasks_ended,
        "pinned": [{"task": task, "node": node} for task, node in contents.pinned],
        "with_credentials": list(contents.with_credentials),
    }  # fmt: skip
    if output == "json":
        print_json(found)
        return
    print_fields([
        ("cluster", found["cluster_id"]), ("recovery", found["recovery"] or ""),
        ("saved", f"{shown_time(found['taken_utc'])} on {found['node']}"),
        ("newest entry", f"{found['index']}, of {shown_time(found['time_utc'])}"),
        ("swarm", found["version"]), ("kind", found["kind"]), ("size", shown_size(found["bytes"])),
        ("nodes", contents.nodes and ", ".join(contents.nodes)),
        ("tasks", f"{len(contents.tasks)}, {contents.tasks_to_run} of them to run; {contents.tasks_ended} have ended"),
        ("data on a node", ", ".join(f"{task} ({node})" for task, node in contents.pinned)),
    ])  # fmt: skip


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--data", envvar="SWARM_DATA", default=DATA_DEFAULT, show_envvar=True, show_default=True, help="The data folder.")
@click.option("--empty-volumes", is_flag=True, help="Accept that tasks with volumes start without the data of their old node.")
@printing
def restore(file: str, data: str, empty_volumes: bool, output: str) -> None:
    """Make a new cluster of one node from a backup: prepares an empty data folder for `swarm up`.

    The cluster gets a new id, secret and join token. Tasks are back as they were wanted, and are placed anew; the nodes of the
    old cluster are no members, and join with the new token after `swarm reset`. Stop the old cluster first: it knows nothing of
    this one.
    """
    from swarm.cli.up import checked_name
    from swarm.node.restore import restore_backup

    made = restore_backup(file, os.path.abspath(data), name=checked_name(""), empty_volumes=empty_volumes)
    contents = made.contents
    if output == "json":
        print_json({
            "cluster_id": made.cluster_id, "from_cluster_id": made.header.cluster_id, "index": made.header.meta.index,
            "tasks": list(contents.tasks), "pinned": [task for task, _ in contents.pinned],
            "with_credentials": list(contents.with_credentials),
        })  # fmt: skip
        return
    print(f"cluster {made.cluster_id}, from entry {made.header.meta.index} of cluster {made.header.cluster_id}")
    print(f"{contents.tasks_to_run} tasks will be placed anew; now run swarm up, then swarm token show for the other hosts")
    for text, names in (
        ("start without the data of their old node", [task for task, _ in contents.pinned]),
        ("need the credentials of their registry again: remove and submit them", list(contents.with_credentials)),
    ):
        if names:
            print(f"note: these tasks {text}: {', '.join(names)}", file=sys.stderr)


@click.command("ls")
@printing
@connected
def list_kept(output: str, socket_path: str, address: str) -> None:
    """Snapshots that the asked node keeps: one a day, and the last state before its log was replaced."""
    with client(socket_path, address) as node:
        found = node.get("/v1/backups").content
    if output == "json":
        print_json(found)
        return
    print_table(
        ["KIND", "ENTRY", "OF", "TASKS", "SIZE", "FILE"],
        [
            [each["kind"], str(each["index"]), shown_time(each["time_utc"]), str(each["tasks"]), shown_size(each["file_bytes"]),
             each["file"]]
            for each in found
        ],
    )  # fmt: skip
