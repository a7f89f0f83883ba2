"""`swarm events`: what the log decided, resumed by index when a connection breaks, and what gossip sees on the node asked."""

from __future__ import annotations

import json
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
    reading,
    shown_time,
    stale_query,
    warn_if_stale,
)
from swarm.client.client import Client
from swarm.errors import Unavailable

TAIL_FOLLOWED = 10
"""What `journalctl -f` and `tail -f` show of before."""


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("--since", type=int, default=None, metavar="INDEX", help="Only what came after this log index.")
@click.option("--tail", type=int, default=None, metavar="N",
              help=f"Only the last N of what is there; with -f and without --since: {TAIL_FOLLOWED}.")  # fmt: skip
@click.option("--log-only", is_flag=True, help="Without what gossip sees on the node asked.")
@printing
@reading
@connected
def events(
    follow: bool, since: int | None, tail: int | None, log_only: bool, output: str, stale: bool, socket_path: str, address: str
) -> None:
    """What the cluster decided (with an INDEX), and how the node asked sees the others (without one), by time. With -f and
    -o json: one JSON object a line."""
    if follow and since is None and tail is None:
        tail = TAIL_FOLLOWED
    query: dict[str, Any] = {"since": since or 0, "tail": tail, "members": 0 if log_only else None, **stale_query(stale)}
    with client(socket_path, address) as node:
        if follow:
            follow_events(node, {**query, "follow": 1}, output)
            return
        answer = node.get("/v1/events", query)
    warn_if_stale(answer, stale)
    if output == "json":
        print_json(answer.content)
    else:
        rows = [[str(e["index"] or "-"), shown_time(e["time_utc"]), e["kind"], e["text"]] for e in answer.content]
        print_table(["INDEX", "TIME", "KIND", "WHAT"], rows)


class Place:
    """How far a follower has got: `last` is the id to resume after. What gossip saw has none, so some of it comes again after
    a resume; it is known by its number, which grows until the daemon is started anew, and by its time."""

    def __init__(self) -> None:
        self.last = ""
        self._number, self._utc = 0, 0.0

    def is_new(self, event_id: str, name: str, content: dict[str, Any]) -> bool:
        """Whether this was not given before. Remembers it."""
        self.last = event_id or self.last
        if name != "member":
            return True
        number, utc = content["number"], content["time_utc"]
        if number <= self._number and utc <= self._utc:
            return False
        self._number, self._utc = number, utc
        return True


def follow_events(node: Client, query: dict[str, Any], output: str) -> None:
    """Until interrupted. A first connection that fails is an error; a later one is tried again after the last event seen."""
    place = Place()
    connected_once = False
    while True:
        try:
            headers = {"Last-Event-ID": place.last} if place.last else {}
            for event_id, name, content in node.stream("/v1/events", query, headers=headers):
                connected_once = True
                if place.is_new(event_id, name, content):
                    print(line_of(name, content, output), flush=True)
        except Unavailable as error:
            if not connected_once:
                raise
            print(f"warning: {error.message}; trying again", file=sys.stderr)
        query = {**query, "tail": None} if place.last else query
        time.sleep(1.0)


def line_of(name: str, content: dict[str, Any], output: str) -> str:
    """One event, for people or for programs."""
    if output == "json":
        return json.dumps({"stream": name, **content})
    when = shown_time(content.get("time_utc") or time.time())
    return clean(f"{content.get('index') or '-':>6}  {when}  {content.get('kind', name):<21}  {content.get('text', '')}")
