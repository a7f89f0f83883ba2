"""`swarm recover`: after a quorum is lost for good, go on with what this node has."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from swarm.cli.asking import StillWaiting, connected, print_fields, print_json, print_table, printing
from swarm.client.client import Client
from swarm.errors import Conflict, OperatorError, UsageError

YES = "--yes-i-lose-what-only-the-missing-voters-have"
WAIT_S = 60.0
LOOK_S = 0.25


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what this node has and what would be lost; change nothing.")
@click.option("--even-behind", is_flag=True, help="Recover here although another survivor has a newer log.")
@click.option(YES, "yes", is_flag=True, help="Do not ask; for scripts.")
@printing
@connected
def recover(dry_run: bool, even_behind: bool, yes: bool, output: str, socket_path: str, address: str) -> None:
    """Go on with this node alone when most voters are lost for good.

    Begins a new recovery generation of the cluster with the log of this node, as its only voter; the other survivors take this
    log and become voters again. A voter that is lost now and comes back later is refused under the old generation, and comes back
    as a learner. Containers run on. Run it on the survivor with the newest log: the command says which one that is.
    """
    if address:
        raise UsageError("swarm recover recovers the node of this host", cause="--addr names another", hint="run it on that host")
    with Client(socket_path=socket_path) as node:
        found = node.get("/v1/recovery").content
        if output == "json" and dry_run:
            print_json(found)
            return
        if output != "json":
            print_survey(found)
        if dry_run:
            return
        refuse(found, even_behind=even_behind)
        confirm(found, yes=yes)
        begun = node.write("POST", "/v1/recovery", {"confirm": found["node"], "even_behind": even_behind}).content
    status = wait_until_it_leads(socket_path, begun["recovery"])
    if output == "json":
        print_json(status)
    else:
        print(f"{found['node']} leads the cluster in {begun['generation']}, from entry {found['mine']['last_index']} on")
        missing = ", ".join(each["name"] for each in found["missing"])
        print(f"next: start those of {missing or 'the others'} that can come back; swarm node rm those that are gone")


def refuse(found: dict[str, Any], *, even_behind: bool) -> None:
    """Raise `Conflict` before anybody is asked to confirm what would be refused."""
    behind = found["best"] != found["node"] and not found["quorum"] and not found["leader"]
    if found["refused"] and not (even_behind and behind):
        hint = "see swarm status" if found["needless"] else "see swarm recover --dry-run on every survivor"
        raise Conflict(found["refused"], hint=hint)


def confirm(found: dict[str, Any], *, yes: bool) -> None:
    """Have the operator type the node's name. Raises `UsageError` for anything else."""
    if yes:
        return
    sys.stdout.flush()  # what it is about comes before the question
    question = f"To go on without the missing voters, type the name of this node ({found['node']})"
    try:
        typed = str(click.prompt(question, default="", show_default=False, err=True))
    except click.Abort:
        typed = ""
    if typed.strip() != found["node"]:
        cause = f"{typed.strip()[:80]!r} is not {found['node']}"
        raise UsageError("not confirmed, nothing was changed", cause=cause, hint=f"in a script: {YES}")


def print_survey(found: dict[str, Any]) -> None:
    """For people."""
    if found["needless"]:
        print(f"nothing to recover: {found['needless']}")
    elif found["refused"]:
        print(f"refused here: {found['refused']}")
    missing = ", ".join(f"{each['name']} ({each['status'] or 'unknown'})" for each in found["missing"])
    print_fields([
        ("cluster", found["cluster_id"]), ("generation", found["generation"]),
        ("missing", missing or "no voter"), ("newest log", found["best"]),
    ])  # fmt: skip
    rows = []
    for look in (found["mine"], *found["others"]):
        age = "never" if look["leader_age_s"] is None else f"{look['leader_age_s']:.0f} s ago"
        rows.append([
            look["name"], str(look["term"]), f"{look['last_index']} (term {look['last_term']})", str(look["commit_index"]),
            "now, it leads" if look["leads"] else age,
        ])  # fmt: skip
    print_table(["SURVIVOR", "TERM", "LAST ENTRY", "COMMITTED", "HEARD A LEADER"], rows)
    for line in found["lost"]:
        print(line)


def wait_until_it_leads(socket_path: str, number: int) -> dict[str, Any]:
    """Until the daemon is back, in the new generation, and leads. Raises `StillWaiting`."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            with Client(socket_path=socket_path) as node:
                status: dict[str, Any] = node.get("/v1/status").content
            if status["recovery"] == number and status["role"] == "leader" and status["fresh"]:
                return status
        except OperatorError:
            pass  # the daemon starts anew
        time.sleep(LOOK_S)
    raise StillWaiting(f"this node does not lead within {WAIT_S:g} s", hint="its log says why; swarm status shows when it does")
