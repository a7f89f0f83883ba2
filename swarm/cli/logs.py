"""`swarm task logs`: a container's two streams, kept apart, from whichever node has it."""

from __future__ import annotations

import base64
import json
import sys
import time

import click

from swarm.cli.asking import client, connected, printing
from swarm.client.client import error_of, task_path


@click.command()
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Go on, also across restarts and moves, until the task ends.")
@click.option("--tail", type=click.IntRange(min=0), default=None, metavar="N", help="Only the last N lines of what is there.")
@click.option("--since", default="", metavar="TIME", help="Only what is newer than this: 10m, 1h30m, or UTC seconds.")
@printing
@connected
def logs(task: str, follow: bool, tail: int | None, since: str, output: str, socket_path: str, address: str) -> None:
    """What the container of TASK writes: its standard output here on standard output, its errors on standard error.

    With -o json: one object a line, with `stream` and `text`.
    """
    query = {"follow": 1 if follow else 0, "tail": tail, "since_utc": since_utc(since), "format": "events"}
    with client(socket_path, address) as node:
        for _, name, content in node.stream(task_path(task, "logs"), query):
            if name == "error":
                raise error_of(503, json.dumps(content).encode())
            if name not in ("stdout", "stderr"):
                continue
            written = base64.b64decode(content)
            if output == "json":
                print(json.dumps({"stream": name, "text": written.decode(errors="replace")}), flush=True)
            else:
                target = sys.stderr.buffer if name == "stderr" else sys.stdout.buffer
                target.write(written)
                target.flush()


def since_utc(text: str) -> float | None:
    """UTC seconds from a duration before now or from a moment."""
    if not text:
        return None
    from swarm.schema.quantities import parse_duration

    seconds = parse_duration(text, field="since", seconds_max=1e11)
    is_moment = text.replace(".", "", 1).isdigit() and seconds > 1e9
    return round(seconds if is_moment else time.time() - seconds, 3)
