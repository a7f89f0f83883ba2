"""`swarm task queue ls | rm`: what was left with the node asked while there was no leader."""

from __future__ import annotations

import sys
from typing import Any

import click

from swarm.cli.asking import client, connected, print_json, print_table, printing, shown_time
from swarm.cli.several import ask_each, unchanged
from swarm.client.client import Answer, Client, queue_path
from swarm.errors import NotFound


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
    """Remove TASKS (name, id or request id) from the queue of the node asked; other nodes keep theirs.

    When one of them is not there, nothing is done.
    """
    with client(socket_path, address) as node:
        kept = node.get("/v1/queue").content
    rows = [chosen_row(kept, each) for each in tasks]
    absent = [NotFound(f"no task '{each}' is queued on this node", hint="swarm task queue ls shows what is")
              for each, row in zip(tasks, rows, strict=True) if row is None]  # fmt: skip
    if absent:
        raise unchanged(absent)
    ids = list(dict.fromkeys(row["request_id"] for row in rows if row is not None))

    def ask(own: Client, number: int) -> Answer:
        return own.write("DELETE", queue_path(ids[number]))

    def tell(number: int, answer: Answer) -> None:
        found = answer.content
        print(found["name"], flush=True)
        if found["maybe_done"]:
            said = "an earlier attempt may have been carried out: swarm task ls shows it then"
            print(f"warning: {found['name']}: {said}", file=sys.stderr)

    ask_each(ids, lambda: client(socket_path, address), ask, tell, at_once=1)


def chosen_row(rows: list[dict[str, Any]], reference: str) -> dict[str, Any] | None:
    """By name, id, request id, or the beginning of an id that is unique."""
    for row in rows:
        if reference in (row["name"], row["id"], row["request_id"]):
            return row
    begun = [row for row in rows if row["id"].startswith(reference)]
    return begun[0] if len(begun) == 1 else None
