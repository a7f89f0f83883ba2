"""`swarm secret rotate | status`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from swarm.cli.asking import (
    StillWaiting,
    client,
    connected,
    print_fields,
    print_json,
    printing,
    shown_time,
    warn_if_stale,
    writing,
)
from swarm.client.client import Client
from swarm.errors import Unauthorized

LOOK_S = 0.25
PHASES = {
    "none": "done",
    "adding": "every member is to accept the new one",
    "switching": "every member is to send with the new one",
}


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Do not wait until the former secret is retired.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Seconds to wait.")
@printing
@writing
@connected
def rotate(detach: bool, timeout_s: float, output: str, request_id: str, socket_path: str, address: str) -> None:
    """Give the cluster a new secret. Nothing restarts; the old join token, and API tokens made before, are good no more."""
    with client(socket_path, address) as asked:
        found = asked.write("POST", "/v1/secret/rotate", request_id=request_id).content
        if not detach:
            found = wait_until_done(asked, found, timeout_s, told=output != "json")
    if output == "json":
        print_json(found)
    elif found["rotating"]:
        print(f"secret {found['number']} is being brought in; see: swarm secret status")
    else:
        print(f"secret {found['number']} is the only one; for other hosts: swarm token show")
        if found["away"]:
            print(f"away, and back by their keys later: {', '.join(found['away'])}")


def wait_until_done(asked: Client, found: dict[str, Any], timeout_s: float, *, told: bool) -> dict[str, Any]:
    """Wait until the former secret is retired, saying each phase and whom it waits for. Raises `StillWaiting`.

    A later rotation that takes this one's place (a node is removed) is waited for too.
    """
    deadline, said, away = time.monotonic() + timeout_s, "", found["away"]
    while found["rotating"]:
        line = f"{PHASES[found['phase']]}" + (f"; waits for {', '.join(found['waits_for'])}" if found["waits_for"] else "")
        if told and line != said:
            print(line, file=sys.stderr)
        said, away = line, found["away"]
        if time.monotonic() > deadline:
            who = ", ".join([*found["waits_for"], *found["away"]]) or "the leader"
            raise StillWaiting(
                f"the rotation to secret {found['number']} is not through after {timeout_s:g} s",
                cause=f"{PHASES[found['phase']]}; no answer yet of {who}",
                hint="it goes on by itself: swarm secret status shows how far it is, swarm status what is wrong",
            )
        time.sleep(LOOK_S)
        try:
            found = asked.get("/v1/secret").content
        except Unauthorized:
            # Asked by HTTPS: the API token ends in the very step that ends the rotation.
            print("the API token that was used is from before the rotation and has ended with it", file=sys.stderr)
            found = {**found, "sending": found["number"], "phase": "none", "rotating": False, "waits_for": []}
    return {**found, "away": away}


@click.command()
@printing
@connected
def status(output: str, socket_path: str, address: str) -> None:
    """The number of the cluster's secret, the phase of a rotation, and whom it waits for."""
    with client(socket_path, address) as asked:
        answer = asked.get("/v1/secret")
    warn_if_stale(answer)
    found = answer.content
    if output == "json":
        print_json(found)
        return
    print_fields(
        [
            ("secret", f"number {found['number']}" if found["number"] else "number 0 (never rotated)"),
            ("rotation", PHASES[found["phase"]] if found["rotating"] else "none under way"),
            ("since", shown_time(found["since_utc"])),
            ("reason", found["reason"]),
            ("waits for", found["waits_for"]),
            ("away", found["away"]),
            ("retired", str(found["retired"])),
            ("authority", found["authority"]),
        ]
    )
