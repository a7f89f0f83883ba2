"""`swarm node rtt`: every node's measured round trips to every other, as a matrix that fits the terminal."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from swarm.cli.asking import clean, client, connected, print_json, printing, reading, stale_query, warn_if_stale

CELL_CHARS = 5
NAME_CHARS_MAX = 20


@click.command()
@printing
@reading
@connected
def rtt(output: str, stale: bool, socket_path: str, address: str) -> None:
    """Round trips in milliseconds, as every node measures them. A row is who measured, a column is to whom; "-" where nothing
    was measured: the lines below say why."""
    with client(socket_path, address) as asked:
        answer = asked.get("/v1/rtt", stale_query(stale))
    warn_if_stale(answer, stale)
    if output == "json":
        print_json(answer.content)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in matrix(answer.content, width):
        print(line)
    for line in reasons(answer.content):
        print(line)


def matrix(found: dict[str, Any], width: int) -> list[str]:
    """The matrix, cut into blocks of columns that fit `width` characters (0: one block). Columns are numbered as the rows are."""
    nodes = found["nodes"]
    names = [clean(node["name"])[:NAME_CHARS_MAX] for node in nodes]
    head = len(str(len(nodes))) + 1 + max(map(len, names), default=0)
    per_block = max(1, (width - head) // CELL_CHARS) if width else max(1, len(nodes))
    rows = {row["id"]: row for row in found["rows"]}
    lines: list[str] = []
    for start in range(0, len(nodes), per_block):
        block = list(enumerate(nodes))[start : start + per_block]
        if lines:
            lines.append("")
        lines.append((" " * head + "".join(f"{number + 1:>{CELL_CHARS}}" for number, _ in block)).rstrip())
        for number, (node, name) in enumerate(zip(nodes, names, strict=True)):
            cells = "".join(f"{cell(rows[node['id']], other['id']):>{CELL_CHARS}}" for _, other in block)
            lines.append(f"{f'{number + 1} {name}':<{head}}{cells}")
    return lines


def cell(row: dict[str, Any], to: str) -> str:
    """At most four characters: 0.31, 4.2, 12, 1.3s; a dot for oneself, a dash for nothing."""
    if row["id"] == to:
        return "."
    found = row["rtt_ms"].get(to)
    if found is None:
        return "-"
    if found < 9.95:
        return f"{found:.2f}" if found < 0.995 else f"{found:.1f}"
    return f"{found:.0f}" if found < 999.5 else f"{found / 1000:.1f}s"


def reasons(found: dict[str, Any]) -> list[str]:
    """Why cells are empty: one line for each reason, with how many cells it explains where that is more than one."""
    count: dict[str, int] = {}
    for row in found["rows"]:
        for reason in row["missing"].values():
            count[reason] = count.get(reason, 0) + 1
    return [clean(f"-: {reason}" + (f" ({times} cells)" if times > 1 else "")) for reason, times in count.items()]
