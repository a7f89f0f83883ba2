"""`swarm task submit`: options and file to one task document, checked here, sent once, and waited for."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from swarm.cli.asking import StillWaiting, TaskFailed, clean, client, connected, print_json, printing, writing
from swarm.client.client import Answer, Client, Interrupted, task_path
from swarm.errors import Conflict, NotFound, UsageError

UNTOLD_S = 0.5
"""A reason to wait that passes so soon is not told."""
FAILING_RESTARTS = 3
"""A container that was restarted so often before it stayed up is reported; the task goes on trying."""


def option_lists(function: Any) -> Any:
    """The options that may be repeated."""
    for flags, help_text, metavar in (
        (("--preference",), "Where it would rather run, such as spread=node.labels.zone.", "TEXT"),
        (("--constraint",), "Where it may run: node.labels.disk==ssd, node.hostname!=n1, node.arch==arm64.", "TEXT"),
        (("--label", "-l"), "A label of the task.", "KEY=VALUE"),
        (("--mount",), "type=bind,src=/srv/site,dst=/site,ro (bind, volume or tmpfs).", "KEY=VALUE,..."),
        (("--volume", "-v"), "NAME:/path[:ro] or /host/path:/path[:ro].", "SOURCE:TARGET"),
        (("--env-file",), "A file of NAME=value lines.", "PATH"),
        (("--env", "-e"), "A variable; NAME alone takes the value from here.", "NAME=VALUE"),
        (("--publish", "-p", "--port"), "A port: 8080:80, 127.0.0.1:53:53/udp, 8000-8009:8000-8009.", "HOST:CONTAINER"),
        (("--generic",), "An amount of something the node counts.", "NAME=AMOUNT"),
    ):
        function = click.option(*flags, multiple=True, help=help_text, metavar=metavar)(function)
    return function


def option_values(function: Any) -> Any:
    """The options with one value, which a task file has under the same name."""
    for flags, help_text in (
        (("--stop-grace",), "How long after the stop signal it is killed: 10s, 1m30s."),
        (("--stop-signal",), "Instead of SIGTERM."),
        (("--on-node-loss",), "replace (elsewhere) or wait (for the node)."),
        (("--restart",), "always, no (a job), on-failure or on-failure:N. By default always."),
        (("--policy",), "spread, binpack, least-loaded, round-robin or e-pvm."),
        (("--network",), "bridge, host or none."),
        (("--workdir", "-w"), "The working folder in the container."),
        (("--entrypoint",), "Instead of the image's; one line as in a shell."),
        (("--user", "-u"), "A name or number, with :GROUP if need be."),
        (("--pids-limit",), "At most so many processes."),
        (("--memory", "-m"), "Reserved, and the limit: 128M, 1.5G, 512KiB."),
        (("--cpus",), "Reserved, and the limit: 0.5."),
        (("--name",), "Unique among tasks that have not ended."),
    ):
        function = click.option(*flags, default=None, help=help_text)(function)
    return function


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@option_values
@option_lists
@click.option("--volume-elsewhere", is_flag=True, help="Allow it to start without its data when that node is dead.")
@click.option("--init", is_flag=True, help="Run an init process in the container.")
@click.option("--registry-auth", is_flag=True, help="Send the credentials of your Docker configuration, sealed.")
@click.option("--file", "-f", "path", default="", metavar="PATH", help="A task file, of one task or many; options win over it.")
@click.option("--detach", "-d", is_flag=True, help="Do not wait until it runs.")
@click.option("--stay-up", "stay_up_s", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="It runs when its container has stayed up for so many seconds.")  # fmt: skip
@click.option("--queue", is_flag=True,
              help="Without a leader: leave it (one task) with the node asked, to be submitted when there is one.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=float, default=30.0, show_default=True,
              help="Give waiting up after so many seconds without progress; 0: never. The task stays submitted.")  # fmt: skip
@printing
@writing
@connected
def submit(
    image: str | None, command: tuple[str, ...], path: str, registry_auth: bool, detach: bool, queue: bool,
    stay_up_s: float, timeout_s: float, output: str, request_id: str, socket_path: str, address: str, **options: Any,
) -> None:  # fmt: skip
    """Run a container of IMAGE somewhere in the cluster, with COMMAND if given, and wait until it runs.

    A task runs until it is stopped; with --restart no it is a job, which ends. A FILE may hold many tasks.
    """
    warn_of_option(command)
    documents = collect(image, command, path, options)
    if len(documents) > 1:
        if queue:
            raise UsageError(
                "several tasks cannot be queued", cause="they are submitted together, under ids of the whole file",
                hint="queue them one by one, each under a request id of its own, or submit the file again when there is a leader",
            )  # fmt: skip
        submit_several(documents, registry_auth, detach, (timeout_s, stay_up_s), output, request_id, client(socket_path, address))
        return
    document = documents[0][0]
    check(document)
    with client(socket_path, address) as node:
        try:
            body, query = body_of(document, registry_auth), {"queue": 1 if queue else None}
            answer = node.write("POST", "/v1/tasks", body, query, request_id=request_id)
        except Conflict as error:
            show_first(error)
            raise
        found = answer.content
        queued = found["phase"] == "queued"
        if not detach and not queued:
            try:
                found = wait_unless_elsewhere(node, answer, timeout_s, stay_up_s)
            except KeyboardInterrupt:
                name = found["name"]
                raise Interrupted(f"{name} stays submitted; to give it up: swarm task rm -f {name}") from None
    if output == "json":
        print_json(found)
    elif detach:
        print(f"{found['name']} {found['id']}", flush=True)
        if queued:
            print(clean(queued_line(found)), file=sys.stderr)
    elif queued:
        print(queued_line(found))
    else:
        print(outcome_line(found))


def warn_of_option(command: tuple[str, ...]) -> None:
    """Say that an option of ours was given to the container."""
    first = command[0].partition("=")[0] if command else ""
    if any(first in each.opts for each in click.get_current_context().command.params if isinstance(each, click.Option)):
        said = f"'{first}' after the image is part of the container's command; put options before the image"
        print(clean(f"warning: {said}"), file=sys.stderr)


def submit_several(
    documents: list[tuple[dict[str, Any], str]], registry_auth: bool, detach: bool, waits: tuple[float, float],
    output: str, request_id: str, asked: Client,
) -> None:  # fmt: skip
    """A file of several tasks; see `submit_many`."""
    from swarm.cli.submit_many import check_all, raise_if_refused, report, submit_all, wait_for_all

    check_all(documents)
    with asked as node:
        rows = submit_all(node, [body_of(document, registry_auth) for document, _ in documents], request_id)
        report(rows, output, detach=detach)
        taken = [row["id"] for row in rows if row["outcome"] != "refused"]
        if taken and not detach:
            try:
                said = wait_for_all(node, taken, *waits)
            except KeyboardInterrupt:
                raise Interrupted(f"{len(taken)} tasks stay submitted; swarm task ls shows them") from None
            if output != "json":
                print(said)
    raise_if_refused(rows)


def body_of(document: dict[str, Any], registry_auth: bool) -> dict[str, Any]:
    """What the API takes for one task."""
    if not registry_auth:
        return {"task": document}
    from swarm.cli.docker_auth import registry_auth as auth_of

    return {"task": document, "registry_auth": auth_of(document["image"])}


def collect(
    image: str | None, command: tuple[str, ...], path: str, options: dict[str, Any]
) -> list[tuple[dict[str, Any], str]]:
    """Each document of the file, with its place there, and the options in all of them. Lists add to the file's, single values
    replace them."""
    from swarm.cli.task_file import env_item, read_env_file, read_task_files

    documents = read_task_files(path) if path else [({}, "")]
    if len(documents) > 1 and (image is not None or options["name"]):
        raise UsageError(f"{path} has {len(documents)} tasks", cause="an image or name on the command line would be that of all",
                         hint="write them into the file")  # fmt: skip
    options["env"] = [item for each in options.pop("env_file") for item in read_env_file(each)] + [
        item for each in options["env"] for item in env_item(each)
    ]
    options["label"] = [each if "=" in each else f"{each}=" for each in options["label"]]
    for document, _ in documents:
        add_options(document, dict(options))
        if image is not None:
            document["image"] = image
        if command:
            document["command"] = list(command)
    return documents


def add_options(document: dict[str, Any], options: dict[str, Any]) -> None:
    """In place."""
    lists = {"publish": "ports", "volume": "volumes", "mount": "mounts", "constraint": "constraints", "preference": "preferences"}
    for option, field in lists.items():
        add_to_list(document, field, list(options.pop(option)))
    for option, field in (("env", "env"), ("label", "labels"), ("generic", "generic")):
        add_to_pairs(document, field, list(options.pop(option)))
    for option, value in options.items():
        if value not in (None, False):
            document["stop_grace_s" if option == "stop_grace" else option] = value


def add_to_list(document: dict[str, Any], field: str, more: list[str]) -> None:
    """In place; a single text in a file is a list of one."""
    if more:
        given = document.get(field, [])
        document[field] = ([given] if isinstance(given, str) else list(given)) + more


def add_to_pairs(document: dict[str, Any], field: str, more: list[str]) -> None:
    """In place; the later of two values of one name wins."""
    if more:
        given = document.get(field, [])
        before = [f"{name}={value}" for name, value in given.items()] if isinstance(given, dict) else list(given)
        document[field] = before + more


def check(document: dict[str, Any]) -> None:
    """The same check as the node's, before anything is sent."""
    if "image" not in document:
        raise UsageError("no image is named", hint="swarm task submit IMAGE [COMMAND...], or --file with an image field")
    from swarm.schema.document import build_spec

    build_spec(document, name_default="checked")


def show_first(error: Conflict) -> None:
    """The task that has the name already."""
    existing = getattr(error, "existing", None)
    if existing:
        from swarm.cli.task import row

        lines = [["the first:", *row(existing)]]
        print(" ".join(clean(cell) for cell in lines[0]), file=sys.stderr)


def wait_unless_elsewhere(node: Client, answer: Answer, timeout_s: float, stay_up_s: float) -> dict[str, Any]:
    """As `wait_until_running`. Raises `StillWaiting` at once when the node asked cannot see what becomes of the task."""
    found: dict[str, Any] = answer.content
    if answer.status != 202:
        return wait_until_running(node, found, timeout_s, stay_up_s)
    raise StillWaiting(
        f"task '{found['name']}' was taken, and whether it runs cannot be seen from here", cause=found["reason"],
        hint=f"ask another node: swarm task inspect {found['id']} --addr HOST",
    )  # fmt: skip


def wait_until_running(node: Client, found: dict[str, Any], timeout_s: float, stay_up_s: float) -> dict[str, Any]:
    """Until it has run for `stay_up_s`, or ended well. Reasons are told on standard error as they come.

    Raises `TaskFailed`, or `StillWaiting` when nothing has changed for `timeout_s` while there is a reason for it to wait.
    """
    seen: tuple[Any, ...] = ()
    stuck_since, tag, told, told_at = time.monotonic(), "", "", 0.0
    restarts, up_since = found["restarts"], time.monotonic()
    while not arrived(found, restarts):
        up_s = time.monotonic() - up_since if found["phase"] == "running" else 0.0
        if found["phase"] == "running" and up_s >= stay_up_s:
            return found
        now = (found["phase"], found["attempt"], found["reason"], found["restarts"])
        if now != seen:
            if now[:2] != seen[:2]:
                stuck_since = time.monotonic()
            seen = now
            told_at = time.monotonic() + (UNTOLD_S if found["phase"] == "pending" and found["reason"] != told else 0.0)
        if found["reason"] != told and time.monotonic() >= told_at:
            told = found["reason"]
            if told:
                print(clean(f"{found['name']} is {found['phase']}: {told}"), file=sys.stderr, flush=True)
        left_s = stuck_since + timeout_s - time.monotonic()
        if timeout_s and left_s <= 0 and found["reason"]:
            raise StillWaiting(
                f"task '{found['name']}' does not run yet: it is {found['phase']}", cause=found["reason"],
                hint=f"it stays submitted and runs when it can; to give it up: swarm task rm -f {found['name']}",
            )  # fmt: skip
        wait_s = min(20.0, max(left_s, 0.5)) if timeout_s else 20.0
        wait_s = min(wait_s, UNTOLD_S) if found["reason"] != told else wait_s
        wait_s = min(wait_s, stay_up_s - up_s) if found["phase"] == "running" else wait_s
        try:
            answer = node.get(task_path(found["id"]), {"wait_s": round(wait_s, 3), "stale": 1}, headers={"If-None-Match": tag})
        except NotFound:
            raise TaskFailed(f"task '{found['name']}' was removed before it ran") from None
        if answer.status == 200:
            before, found, tag = found, answer.content, answer.headers.get("etag", "")
            if any(before[each] != found[each] for each in ("phase", "attempt", "restarts")):
                up_since = time.monotonic()
    return found


def arrived(found: dict[str, Any], restarts: int) -> bool:
    """Whether it has ended well. Raises `TaskFailed` when it went wrong, or was restarted too often beyond `restarts`."""
    if found["phase"] == "succeeded":
        return True
    hint = f"swarm task inspect {found['name']} tells more, swarm task logs {found['name']} what it wrote"
    if found["phase"] in ("failed", "stopped") or (found["ended"] and found["phase"] != "pending"):
        cause = found["reason"] or (f"exit code {found['exit_code']}" if found["exit_code"] is not None else "")
        raise TaskFailed(f"task '{found['name']}' {found['phase']} on {found['node'] or 'no node'}", cause=cause, hint=hint)
    if found["phase"] in ("restarting", "running") and found["restarts"] - restarts >= FAILING_RESTARTS:
        raise TaskFailed(
            f"task '{found['name']}' does not stay up: restarted {found['restarts']} times on {found['node']}",
            cause=found["reason"], hint=f"{hint}; it goes on trying until: swarm task stop {found['name']}",
        )  # fmt: skip
    return False


def queued_line(found: dict[str, Any]) -> str:
    """That it is not submitted yet, and how to go on."""
    return f"{found['name']} is queued: {found['reason']}; see it: swarm task queue ls; its request id: {found['request_id']}"


def outcome_line(found: dict[str, Any]) -> str:
    """What became of it, and what to do next."""
    if found["phase"] == "succeeded":
        return f"{found['name']} succeeded on {found['node']}; its output: swarm task logs {found['name']}"
    ports = f", {', '.join(found['ports'])}" if found["ports"] else ""
    placed = f"{found['name']} runs on {found['node']} (attempt {found['attempt']}{ports})"
    return f"{placed}; follow it: swarm task logs -f {found['name']}"


