"""`swarm status`."""

from __future__ import annotations

from typing import Any

import click

from swarm.cli.asking import client, connected, print_fields, print_json, printing, reading, stale_query, warn_if_stale


@click.command()
@printing
@reading
@connected
def status(output: str, stale: bool, socket_path: str, address: str) -> None:
    """Who leads, which nodes may fail now, and what is wrong. Exits with 6 when there is no quorum."""
    with client(socket_path, address) as node:
        answer = node.get("/v1/status", stale_query(stale))
    found = answer.content
    warn_if_stale(answer, stale)
    if output == "json":
        print_json(found)
    else:
        print_status(found)
    click.get_current_context().exit(0 if found["quorum"] and found["leader"] else 6)


def _behind(found: dict[str, Any]) -> str:
    told = found.get("told_commit_index", 0)
    return f"; the leader is at {told}" if told > found["commit_index"] else ""


def _tasks(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {word}" for word, count in found["tasks"].items()) or "none"
    away = found.get("tasks_unreachable", 0)
    return f"{counts}; {away} of them as last known (swarm task ls says why)" if away else counts


def print_status(found: dict[str, Any]) -> None:
    """For people."""
    leader, last = found["leader"], found.get("last_leader")
    none = f"none in reach (last: {last['name']}, term {last['term']})" if last else "none in reach"
    print_fields(
        [
            ("cluster", found["cluster_id"]),
            ("asked", f"{found['node']['name']} ({found['role']}, swarm {found['version']})"),
            ("leader", f"{leader['name']} (term {found['term']})" if leader else none),
            ("recovery", found["recovery"] or ""),
            ("quorum", "yes" if found["quorum"] else "NO"),
            ("failures", found["tolerance"]),
            ("voters", found["voters"]),
            ("nodes", ", ".join(f"{count} {word}" for word, count in found["nodes"].items())),
            ("tasks", _tasks(found)),
            ("log", f"committed {found['commit_index']}, applied {found['applied_index']}{_behind(found)}"),
            ("engine", f"{found['engine']}{' ' if found['engine'] == 'up' else ': '}{found['engine_detail']}".rstrip(": ")),
        ]
    )
    for problem in found["problems"]:
        print(f"problem: {problem}")
