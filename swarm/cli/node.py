"""`swarm node ls | inspect | drain | activate | label | confirm-dead | rm`."""

from __future__ import annotations

import time
from typing import Any

import click

from swarm.cli.asking import (
    StillWaiting,
    check_one_request,
    client,
    connected,
    print_fields,
    print_json,
    print_table,
    printing,
    reading,
    shown_size,
    stale_query,
    warn_if_stale,
    writing,
)
from swarm.cli.several import ask_each, chosen
from swarm.client.client import Answer, Client, Interrupted, node_path
from swarm.errors import UsageError

ID_SHOWN = 12


@click.command()
@printing
@reading
@connected
def ls(output: str, stale: bool, socket_path: str, address: str) -> None:
    """List nodes."""
    with client(socket_path, address) as node:
        answer = node.get("/v1/nodes", stale_query(stale))
    warn_if_stale(answer, stale)
    if output == "json":
        print_json(answer.content)
    else:
        titles = ["ID", "NAME", "ADDRESS", "STATUS", "CONTACT", "RTT", "HEALTH"]
        titles += ["ROLE", "LEADER", "ENGINE", "AVAILABILITY", "TASKS"]
        print_table(titles, [row(each) for each in answer.content])


def row(node: dict[str, Any]) -> list[str]:
    """One line of `node ls`."""
    start = [node["id"][:ID_SHOWN], node["name"], node["address"], node["status"], shown_contact(node)]
    start += [shown_ms(node["rtt_ms"]) or "-", shown_health(node), node["role"], "leader" if node["leader"] else "-"]
    return [*start, node["engine"], node["availability"], str(node["tasks"])]


def shown_contact(node: dict[str, Any]) -> str:
    """How long ago it last answered the node asked."""
    age_ms = node["last_contact_ms"]
    if age_ms is None:
        return "never"
    if node["last_contact_ms"] == 0 and node["rtt_ms"] is None:
        return "self"
    for unit, size_ms, most in (("ms", 1, 1000), ("s", 1000, 120), ("min", 60_000, 120), ("h", 3_600_000, 48)):
        if age_ms < most * size_ms:
            return f"{age_ms / size_ms:.0f} {unit} ago" if unit != "s" else f"{age_ms / size_ms:.1f} s ago"
    return f"{age_ms / 86_400_000:.0f} d ago"


def shown_ms(milliseconds: float | None) -> str:
    """A round trip."""
    if milliseconds is None:
        return ""
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def shown_health(node: dict[str, Any]) -> str:
    """What it says of itself: well, or by how many steps it distrusts itself."""
    if node["health"] is None or node["status"] in ("dead", "left"):
        return "-"
    return "well" if node["health"] == 0 else f"poor ({node['health']})"


@click.command()
@click.argument("node")
@printing
@reading
@connected
def inspect(node: str, output: str, stale: bool, socket_path: str, address: str) -> None:
    """Everything about NODE (its name, id, the beginning of its id, or self)."""
    with client(socket_path, address) as asked:
        answer = asked.get(node_path(node), stale_query(stale))
        counters = asked.get("/v1/counters").content
    warn_if_stale(answer, stale)
    found = answer.content
    if counters["node"]["id"] == found["id"]:
        found["counters"] = counters
    if output == "json":
        print_json(found)
    else:
        print_detail(found)


def print_detail(found: dict[str, Any]) -> None:
    """The fields that people ask for."""
    names = ["id", "name", "address", "api_address", "status", "observed", "role", "leader", "availability", "verdict"]
    names += ["evidence"] if found["evidence"] != found["observed"] else []
    names += ["labels", "arch", "os", "engine", "engine_detail", "engine_version", "tasks"]
    fields = [(name, found.get(name)) for name in names]
    fields.append(("cpus", f"{found['cpus_reserved']:g} of {found['cpus']:g} reserved"))
    fields.append(("memory", f"{shown_size(found['memory_reserved'])} of {shown_size(found['memory'])} reserved"))
    fields += [("last contact", shown_contact(found)), ("round trip", shown_ms(found["rtt_ms"])), ("health", shown_health(found))]
    fields += [("load", found["sample"]), ("counted", found["counted"])]
    fields += [("fingerprint", found["fingerprint"]), ("store generation", found["store_generation"])]
    groups = {name: group for name, group in found.get("counters", {}).items() if name != "node"}
    fields += [(f"counters: {name.replace('_', ' ')}", group) for name, group in groups.items()]
    print_fields(fields)


@click.command()
@click.argument("node")
@click.option("--detach", "-d", is_flag=True, help="Do not wait until its tasks have moved.")
@click.option("--timeout", "timeout_s", type=float, default=300.0, show_default=True, help="Seconds to wait.")
@printing
@writing
@connected
def drain(node: str, detach: bool, timeout_s: float, output: str, request_id: str, socket_path: str, address: str) -> None:
    """Move the tasks of NODE to others before they are stopped on it, and give it no new ones."""
    with client(socket_path, address) as asked:
        found = asked.write("POST", node_path(node, "drain"), request_id=request_id).content
        if not detach:
            try:
                found = wait_until_empty(asked, found, timeout_s)
            except KeyboardInterrupt:
                name = found["name"]
                raise Interrupted(f"{name} goes on draining; to end that: swarm node activate {name}") from None
    if output == "json":
        print_json(found)
    else:
        print(f"{found['name']} " + (f"is draining: {found['tasks']} tasks left" if found["tasks"] else "is drained"))


def wait_until_empty(asked: Client, found: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Wait until a draining node runs nothing. Raises `StillWaiting` naming the tasks that are left and why."""
    deadline = time.monotonic() + timeout_s
    while found["tasks"]:
        if time.monotonic() > deadline:
            left = [t for t in asked.get("/v1/tasks").content if t["node_id"] == found["id"] and not t["ended"]]
            cause = "; ".join(f"{t['name']} is {t['phase']}" + (f" ({t['reason']})" if t["reason"] else "") for t in left[:5])
            hint = "stop them, make room on other nodes, or: swarm node activate " + found["name"]
            raise StillWaiting(f"{found['tasks']} tasks are still on '{found['name']}'", cause=cause, hint=hint)
        time.sleep(0.25)
        found = asked.get(node_path(found["id"]), {"stale": 1}).content
    return found


@click.command()
@click.argument("node")
@writing
@connected
def activate(node: str, request_id: str, socket_path: str, address: str) -> None:
    """Let NODE take work again after a drain."""
    with client(socket_path, address) as asked:
        found = asked.write("PATCH", node_path(node), {"availability": "active"}, request_id=request_id).content
    print(f"{found['name']} is active")


@click.command()
@click.argument("node")
@click.argument("edits", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@printing
@writing
@connected
def label(node: str, edits: tuple[str, ...], output: str, request_id: str, socket_path: str, address: str) -> None:
    """Set labels of NODE (KEY=VALUE) or remove them (KEY-)."""
    labels: dict[str, str | None] = {}
    for edit in edits:
        key, separator, value = edit.partition("=")
        if not separator and not edit.endswith("-"):
            raise UsageError(f"cannot read the label {edit!r}", hint="write KEY=VALUE to set one, KEY- to remove it")
        labels[key if separator else edit[:-1]] = value if separator else None
    with client(socket_path, address) as asked:
        found = asked.write("PATCH", node_path(node), {"labels": labels}, request_id=request_id).content
    if output == "json":
        print_json(found)
    else:
        print_fields([("name", found["name"]), ("labels", found["labels"] or "none")])


@click.command("confirm-dead")
@click.argument("node")
@writing
@connected
def confirm_dead(node: str, request_id: str, socket_path: str, address: str) -> None:
    """Say that NODE is dead: its tasks are replaced at once. Say it only when its containers cannot be running."""
    with client(socket_path, address) as asked:
        found = asked.write("POST", node_path(node, "confirm-dead"), request_id=request_id).content
    print(f"{found['name']} is confirmed dead")


@click.command()
@click.argument("nodes", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also a node that answers: it is stopped, not drained.")
@writing
@connected
def rm(nodes: tuple[str, ...], force: bool, request_id: str, socket_path: str, address: str) -> None:
    """Remove NODES from the cluster, for good: their keys are forgotten and their tasks run elsewhere.

    One that answers is drained first (swarm node drain), or removed with -f. When one of them is not there, nothing is done. The
    join token becomes another one.
    """
    check_one_request(request_id, nodes)
    query = {"force": 1 if force else None}
    with client(socket_path, address) as asked:
        ids, names = chosen(asked, nodes, node_path, lambda rows: None)

    def ask(own: Client, number: int) -> Answer:
        return own.write("DELETE", node_path(ids[number]), query=query, request_id=request_id)

    def tell(number: int, answer: Answer) -> None:
        print(f"{names[number]} is removed for good; to use its host again: swarm reset there, then join anew", flush=True)

    ask_each(names, lambda: client(socket_path, address), ask, tell, at_once=1)
    print("the join token is another now (swarm token show), and API tokens made before have ended (swarm token api)")
