"""Imports go down only, and siblings on one line do not import each other (docs/architecture.md, "The house")."""

from __future__ import annotations

import ast

from tests.tidy.source import CORES, Module, imports, modules

HOUSE = (
    ("errors", "machine"),
    ("model",),
    ("ports",),
    ("policy", "wire", "schema"),
    CORES,
    ("adapters", "drivers"),
    ("api", "client", "simulation"),
    ("node",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A room may import itself and every room on a lower line."""

LEVEL = {room: level for level, rooms in enumerate(HOUSE) for room in rooms}

CORES_MAY_IMPORT = {"errors", "machine", "model", "ports", "wire"}
"""Less than the lines below them: a core knows nothing of people's files or of policy."""


def rooms_imported(module: Module) -> list[tuple[int, str]]:
    """(line, room) for every import from this project."""
    found = []
    for line, name in imports(module):
        parts = name.split(".")
        if parts[0] == "swarm" and len(parts) > 1 and (parts[1] in LEVEL or len(parts) == 2):
            found.append((line, parts[1]))
    return found


def test_every_room_has_its_place_in_the_house() -> None:
    homeless = sorted({module.room for module in modules() if module.room} - set(LEVEL))
    assert homeless == [], "rooms that no line of the house names"


def test_imports_go_down_only() -> None:
    wrong = [
        f"{module.path}:{line} imports {room}"
        for module in modules()
        if module.room
        for line, room in rooms_imported(module)
        if room in LEVEL and room != module.room and LEVEL[room] >= LEVEL[module.room]
    ]
    assert wrong == []


def test_cores_import_only_the_ground_floor() -> None:
    wrong = [
        f"{module.path}:{line} imports {room}"
        for module in modules()
        if module.room in CORES
        for line, room in rooms_imported(module)
        if room in LEVEL and room != module.room and room not in CORES_MAY_IMPORT
    ]
    assert wrong == []


def test_the_product_imports_no_tests() -> None:
    wrong = [
        f"{module.path}:{line} imports {name}"
        for module in modules()
        for line, name in imports(module)
        if name.split(".")[0] in {"tests", "testnet", "pytest", "hypothesis"}
    ]
    assert wrong == []


def test_the_walk_sees_an_upward_import() -> None:

    text = "from swarm.drivers import streams\n"
    module = Module("swarm.consensus.core", "swarm/consensus/core.py", text, ast.parse(text))
    assert (1, "drivers") in rooms_imported(module)
