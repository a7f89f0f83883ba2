"""`swarm task ls | inspect | stop | rm`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    shown_time,
    stale_query,
    warn_if_stale,
    writing,
)
from swarm.cli.several import ask_each, check_ended, chosen, listed
from swarm.client.client import Answer, Client, Interrupted, task_path
from swarm.errors import NotFound, OperatorError

ID_SHOWN = 12


@click.command()
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@printing
@reading
@connected
def ls(active: bool, quiet: bool, output: str, stale: bool, socket_path: str, address: str) -> None:
    """List tasks."""
    with client(socket_path, address) as node:
        answer = node.get("/v1/tasks", stale_query(stale))
    warn_if_stale(answer, stale)
    tasks = [task for task in answer.content if not (active and task["ended"])]
    if output == "json":
        print_json(tasks)
    elif quiet:
        for task in tasks:
            print(task["id"])
    else:
        print_table(["ID", "NAME", "IMAGE", "DESIRED", "PHASE", "NODE", "ATTEMPT", "REASON"], [row(task) for task in tasks])


def row(task: dict[str, Any]) -> list[str]:
    """One line of `task ls`."""
    phase = task["phase"] + ("?" if task["unreachable"] else "")
    names = [task["id"][:ID_SHOWN], task["name"], task["image"], task["desired"], phase]
    return [*names, task["node"] or "-", str(task["attempt"]), task["reason"]]


@click.command()
@click.argument("task")
@printing
@reading
@connected
def inspect(task: str, output: str, stale: bool, socket_path: str, address: str) -> None:
    """Everything about TASK (its name, id, or the beginning of its id)."""
    with client(socket_path, address) as node:
        answer = node.get(task_path(task), stale_query(stale))
        found = answer.content
        why = node.get(task_path(found["id"], "explain"), {"stale": 1}).content if found["phase"] == "pending" else None
    warn_if_stale(answer, stale)
    if output == "json":
        print_json(found if why is None else found | {"explanation": why})
        return
    print_detail(found)
    if why is not None and why["nodes"]:
        print("\nwhy it waits, for each node:")
        print_table(["NODE", "REASON"], [[each["node"], each["reason"]] for each in why["nodes"]])
    if found["history"]:
        print(f"\nhistory ({len(found['history'])} of {found['history_total']}):")
        print_table(["TIME", "ATTEMPT", "PHASE", "NODE", "REASON"], [move_row(move) for move in found["history"]])


def move_row(move: dict[str, Any]) -> list[str]:
    return [shown_time(move["time_utc"]), str(move["attempt"]), move["phase"], move["node"] or "-", move["reason"]]


def print_detail(found: dict[str, Any]) -> None:
    """The fields that people ask for."""
    spec = found["spec"]
    names = ("id", "name", "image", "desired", "phase", "node", "attempt", "reason", "restarts", "exit_code", "unreachable")
    fields: list[tuple[str, Any]] = [(name, found[name]) for name in names]
    fields += [("container", found["container_id"]), ("pinned to", found["pinned_node"])]
    fields += [("created", shown_time(found["created_utc"])), ("started", shown_time(found["started_utc"]))]
    fields += [("cpus", spec["cpus"] or None), ("memory", shown_size(spec["memory"]) if spec["memory"] else None)]
    for name in ("command", "entrypoint", "env", "user", "workdir", "network", "ports", "labels", "constraints", "restart"):
        fields.append((name, spec[name]))
    mounts = [f"{m['type']}:{m['source']}:{m['target']}" + (":ro" if m["read_only"] else "") for m in spec["mounts"]]
    fields.append(("mounts", mounts))
    print_fields(fields)


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option("--detach", "-d", is_flag=True, help="Do not wait until the container is gone.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait.")
@writing
@connected
def stop(tasks: tuple[str, ...], detach: bool, timeout_s: float, request_id: str, socket_path: str, address: str) -> None:
    """Stop TASKS: their containers get the stop signal, and after the grace are killed.

    When one of them is not there, nothing is done.
    """
    check_one_request(request_id, tasks)
    with client(socket_path, address) as node:
        ids, names = chosen(node, tasks, task_path, lambda rows: None, listing="/v1/tasks")
        stopping: list[tuple[str, dict[str, Any]]] = []

        def ask(own: Client, number: int) -> Answer:
            return own.write("POST", task_path(ids[number], "stop"), request_id=request_id)

        def tell(number: int, answer: Answer) -> None:
            if detach:
                print(answer.content["name"], flush=True)
            else:
                stopping.append((answer.content["name"], answer.content))

        with told_on_error(stopping):
            ask_each(names, lambda: client(socket_path, address), ask, tell)
        wait_for_each(lambda now: now["ended"], node, stopping, timeout_s)


@contextmanager
def told_on_error(stopping: list[tuple[str, dict[str, Any]]]) -> Iterator[None]:
    """Say which ones stop although nobody waits for them now."""
    try:
        yield
    except (OperatorError, Interrupted):
        if stopping:
            print(f"{listed([name for name, _ in stopping])}: told to stop, and not waited for", file=sys.stderr)
        raise


def wait_for_each(
    done: Callable[[dict[str, Any]], bool], node: Client, stopping: list[tuple[str, dict[str, Any]]], timeout_s: float
) -> None:
    """Print each name once it is done. Raises `StillWaiting` for those that are not within the time, after the others."""
    deadline = time.monotonic() + timeout_s
    late: list[tuple[str, StillWaiting]] = []
    for number, (name, found) in enumerate(stopping):
        try:
            wait_until(done, node, found, deadline, timeout_s)
            print(name, flush=True)
        except StillWaiting as error:
            late.append((name, error))
        except KeyboardInterrupt:
            left = [each for each, _ in late] + [each for each, _ in stopping[number:]]
            raise Interrupted(f"{listed(left)}: told to stop, which goes on") from None
    if late:
        first = late[0][1]
        if len(late) > 1:
            names = listed([name for name, _ in late])
            first.message = f"{len(late)} of {len(stopping)} tasks did not stop within {timeout_s:g} s: {names}"
        raise first


def wait_until(
    done: Callable[[dict[str, Any]], bool], node: Client, found: dict[str, Any], deadline: float, timeout_s: float
) -> None:
    """Until it is done with a task that stops, or the task is gone. After the deadline it looks once. Raises `StillWaiting` with
    the phase it is stuck in."""
    tag = ""
    while not done(found):
        left_s = deadline - time.monotonic()
        if left_s <= 0 and tag:
            raise StillWaiting(
                f"task '{found['name']}' did not stop within {timeout_s:g} s",
                cause=f"it is {found['phase']} on {found['node'] or 'no node'}: {found['reason'] or 'no reason given'}",
                hint="it will be stopped as soon as its node can do so",
            )  # fmt: skip
        query = {"wait_s": round(min(max(left_s, 0.0), 20.0), 3), "stale": 1}
        try:
            answer = node.get(task_path(found["id"]), query, headers={"If-None-Match": tag})
        except NotFound:
            return
        if answer.status == 200:
            found, tag = answer.content, answer.headers.get("etag", "")


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Stop it first if it has not ended.")
@click.option("--detach", "-d", is_flag=True, help="Do not wait until its container is gone.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait.")
@writing
@connected
def rm(
    tasks: tuple[str, ...], force: bool, detach: bool, timeout_s: float, request_id: str, socket_path: str, address: str
) -> None:
    """Forget TASKS that have ended. With --force they are stopped first; their names are free when this returns.

    When one of them is not there, or without --force has not ended, nothing is done.
    """
    query = {"force": 1 if force else None}
    check_one_request(request_id, tasks)
    with client(socket_path, address) as node:
        ids, names = chosen(node, tasks, task_path, (lambda rows: None) if force else check_ended, listing="/v1/tasks")
        removing: list[tuple[str, dict[str, Any]]] = []

        def ask(own: Client, number: int) -> Answer:
            return own.write("DELETE", task_path(ids[number]), query=query, request_id=request_id)

        def tell(number: int, answer: Answer) -> None:
            if answer.status == 202 and not detach:
                removing.append((names[number], answer.content))
            else:
                print(names[number], flush=True)

        with told_on_error(removing):
            ask_each(names, lambda: client(socket_path, address), ask, tell)
        wait_for_each(lambda now: False, node, removing, timeout_s)
