"""What commands that ask a daemon share: the options that say which one, and how output is chosen."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from swarm.client.client import SOCKET_DEFAULT, Answer, Client, Interrupted
from swarm.errors import OperatorError, UsageError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class TaskFailed(OperatorError):
    """The task ended without success, or does not stay up. It was submitted."""

    code = "task_failed"
    exit_code = 10


class StillWaiting(OperatorError):
    """What was waited for did not come about in time. The request itself stands."""

    code = "still_waiting"
    exit_code = 11


def connected(function: FunctionT) -> FunctionT:
    """Add --socket and --addr."""
    add_socket = click.option(
        "--socket", "socket_path", envvar="SWARM_SOCKET", default=SOCKET_DEFAULT, show_default=True, show_envvar=True,
        help="The daemon's socket on this host.",
    )  # fmt: skip
    add_address = click.option(
        "--addr", "address", envvar="SWARM_ADDR", default="", show_envvar=True, metavar="HOST[:PORT]",
        help="Ask this node by HTTPS instead; the API token is taken from SWARM_API_TOKEN.",
    )  # fmt: skip
    return add_socket(add_address(function))


def printing(function: FunctionT) -> FunctionT:
    """Add -o."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print.", show_default=True
    )(function)


def writing(function: FunctionT) -> FunctionT:
    """Add --request-id. Interrupted before the answer, the command names the id to ask again with."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Interrupted as error:
            if error.request_id:
                error.said = f"{error.said}; ask again with --request-id {error.request_id}"
            raise

    return click.option(
        "--request-id", default="", metavar="ID", callback=check_request_id,
        help="Repeat a request whose outcome was unknown: applied at most once. 8 to 64 letters, digits, - or _.",
    )(run)  # type: ignore[return-value]


def check_request_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Before anything is read or sent. Raises `UsageError`."""
    if value:
        from swarm.schema.request import read_request_id

        read_request_id(value)
    return value


def reading(function: FunctionT) -> FunctionT:
    """Add --stale, which becomes the query of a read (`stale_query`)."""
    return click.option(
        "--stale", is_flag=True, help="Do not ask the leader: show what the node asked knows, and how old that may be."
    )(function)


def stale_query(stale: bool) -> dict[str, Any]:
    """The query that --stale means."""
    return {"stale": 1 if stale else None}


def check_one_request(request_id: str, references: tuple[str, ...]) -> None:
    """A request id belongs to one request. Raises `UsageError`."""
    if request_id and len(references) > 1:
        raise UsageError("one request id is given for several things", hint="ask again for each by itself")


def client(socket_path: str, address: str) -> Client:
    """The client that the options mean."""
    return Client(socket_path=socket_path, address=address, token=os.environ.get("SWARM_API_TOKEN", "").strip())


def print_json(content: Any) -> None:
    """One document, indented."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def warn_if_stale(answer: Answer, asked: bool = False) -> None:
    """Say on standard error that no leader confirmed what is shown. `asked`: by --stale."""
    if answer.stale_s is not None:
        age = "of unknown age" if answer.stale_s == "unknown" else f"{answer.stale_s} s old"
        why = answer.headers.get("swarm-stale-why", "" if asked else "no leader in reach")
        note = f"note: as the node asked knows it, {age}" + (f"; {why}" if why else "")
        print(note if asked else f"warning: {why}; what it shows is {age}", file=sys.stderr)


def print_table(titles: list[str], rows: list[list[str]]) -> None:
    """Columns wide enough for what is in them; control characters made harmless."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cleaned, strict=True)]
    for row in (titles, *cleaned):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def clean(text: str) -> str:
    """On one line, without anything a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text)


def print_fields(fields: list[tuple[str, Any]]) -> None:
    """Names and values, one a line; empty ones left out."""
    width = max((len(name) for name, value in fields if value not in (None, "", [], {})), default=0)
    for name, value in fields:
        if value not in (None, "", [], {}):
            print(f"{name.ljust(width)}  {clean(shown_value(value))}")


def shown_value(value: Any) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def shown_size(amount: int) -> str:
    """Bytes for people."""
    size = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"


def shown_time(utc: float | None) -> str:
    """A moment in the reader's time zone."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(utc)) if utc else ""
