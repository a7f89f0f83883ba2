"""`swarm token show | new | api`."""

from __future__ import annotations

from urllib.parse import quote

import click

from swarm.cli.asking import client, connected, print_json, print_table, printing, shown_time, warn_if_stale, writing


@click.command()
@printing
@connected
def show(output: str, socket_path: str, address: str) -> None:
    """Show this cluster's join token. Whoever has it may join; asked on the host's own socket only."""
    with client(socket_path, address) as node:
        found = node.get("/v1/join-token").content
    if output == "json":
        print_json(found)
    else:
        print(found["token"])


@click.command()
@printing
def new(output: str) -> None:
    """Make a join token, for hosts that are to found a cluster together. Needs no daemon."""
    import os

    from swarm.wire.token import new_token

    token = new_token(os.urandom)
    if output == "json":
        print_json({"token": token})
    else:
        print(token)


@click.command()
@click.option("--note", default="", help="What it is for; shown in lists.")
@click.option("--list", "listing", is_flag=True, help="List the tokens there are.")
@click.option("--revoke", default="", metavar="ID", help="Make a token good no more.")
@printing
@writing
@connected
def api(note: str, listing: bool, revoke: str, output: str, request_id: str, socket_path: str, address: str) -> None:
    """Make an API token, for SWARM_API_TOKEN beside --addr. It is shown this once."""
    with client(socket_path, address) as node:
        if listing:
            answer = node.get("/v1/tokens")
            warn_if_stale(answer)
            rows = [[each["id"], each["note"], shown_time(each["created_utc"])] for each in answer.content]
            print_json(answer.content) if output == "json" else print_table(["ID", "NOTE", "CREATED"], rows)
        elif revoke:
            node.write("DELETE", f"/v1/tokens/{quote(revoke, safe='')}", request_id=request_id)
            print(revoke)
        else:
            found = node.write("POST", "/v1/tokens", {"note": note}, request_id=request_id).content
            print_json(found) if output == "json" else print(found["token"])
