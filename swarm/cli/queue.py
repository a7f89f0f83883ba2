"""`swarm task queue ls | rm`: what was left with the node asked while there was no leader."""

from __future__ import annotations

import sys

import click

from swarm.cli.asking import client, connected, print_json, print_table, printing, shown_time
from swarm.client.client import queue_path


@click.command()
@printing
@connected
def ls(output: str, socket_path: str, address: str) -> None:
    """List the tasks that the node asked keeps until there is a leader, and those it could not submit."""
    with client(socket_path, address) as node:
        rows = node.get("/v1/queue").content
    if output == "json":
        print_json(rows)
        return
    titles = ["REQUEST ID", "NAME", "IMAGE", "PHASE", "QUEUED", "EXPIRES", "REASON"]
    print_table(titles, [
        [row["request_id"], row["name"], row["image"], row["phase"], shown_time(row["created_utc"]),
         "-" if row["ended"] else shown_time(row["expires_utc"]), row["reason"]]
        for row in rows
    ])  # fmt: skip


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@connected
def rm(tasks: tuple[str, ...], socket_path: str, address: str) -> None:
    """Remove TASKS (name, id or request id) from the queue of the node asked; other nodes keep theirs."""
    with client(socket_path, address) as node:
        for each in tasks:
            found = node.write("DELETE", queue_path(each)).content
            print(found["name"])
            if found["maybe_done"]:
                said = "an earlier attempt may have been carried out: swarm task ls shows it then"
                print(f"warning: {found['name']}: {said}", file=sys.stderr)
