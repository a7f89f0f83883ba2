"""`swarm events`: what the log decided, resumed by index when a connection breaks, and what gossip sees on the node asked."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from swarm.cli.asking import clean, client, connected, print_json, print_table, printing, shown_time, warn_if_stale
from swarm.client.client import Client
from swarm.errors import Unavailable


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("--since", type=int, default=0, metavar="INDEX", help="Only what came after this log index.")
@click.option("--tail", type=int, default=None, metavar="N", help="Only the last N of what is there.")
@click.option("--log-only", is_flag=True, help="Without what gossip sees on the node asked.")
@printing
@connected
def events(
    follow: bool, since: int, tail: int | None, log_only: bool, output: str, socket_path: str, address: str
) -> None:
    """What the cluster decided (with an INDEX), and how the node asked sees the others (without one), by time. With -f and
    -o json: one JSON object a line."""
    query: dict[str, Any] = {"since": since, "tail": tail, "members": 0 if log_only else None}
    with client(socket_path, address) as node:
        if follow:
            follow_events(node, {**query, "follow": 1}, output)
            return
        answer = node.get("/v1/events", query)
    warn_if_stale(answer)
    if output == "json":
        print_json(answer.content)
    else:
        rows = [[str(e["index"] or "-"), shown_time(e["time_utc"]), e["kind"], e["text"]] for e in answer.content]
        print_table(["INDEX", "TIME", "KIND", "WHAT"], rows)


def follow_events(node: Client, query: dict[str, Any], output: str) -> None:
    """Until interrupted. A first connection that fails is an error; a later one is tried again after the last event seen.
    What gossip saw has no index, so some of it comes again then; it is told by its time and left out."""
    last, seen_utc = "", 0.0
    connected_once = False
    while True:
        try:
            for event_id, name, content in node.stream("/v1/events", query, headers={"Last-Event-ID": last} if last else {}):
                connected_once = True
                last = event_id or last
                if name == "member":
                    if content["time_utc"] <= seen_utc:
                        continue
                    seen_utc = content["time_utc"]
                print(_line(name, content, output), flush=True)
        except Unavailable as error:
            if not connected_once:
                raise
            print(f"warning: {error.message}; trying again", file=sys.stderr)
        query = {**query, "tail": None}
        time.sleep(1.0)


def _line(name: str, content: dict[str, Any], output: str) -> str:
    if output == "json":
        return json.dumps({"stream": name, **content})
    when = shown_time(content.get("time_utc") or time.time())
    return clean(f"{content.get('index') or '-':>6}  {when}  {content.get('kind', name):<21}  {content.get('text', '')}")
