"""The source as the tidy tests see it: every module of the product, parsed once.

Nothing is imported or run: a rule about the text is checked on the text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORES = ("membership", "consensus", "catalog", "scheduler", "controllers", "runner")


@dataclass(frozen=True)
class Module:
    """One file: its dotted name (`swarm.consensus.lease`), its path below the root, its text and its tree."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The package below `swarm` it stands in; for a module right below `swarm`, its own name."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""

    @property
    def lines(self) -> int:
        """Length in lines, blank ones and the docstring included."""
        return len(self.text.splitlines())


@cache
def modules() -> tuple[Module, ...]:
    """Every module below `swarm/`, sorted by path."""
    found = []
    for path in sorted((ROOT / "swarm").rglob("*.py")):
        relative = path.relative_to(ROOT)
        parts = list(relative.with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        text = path.read_text(encoding="utf-8")
        found.append(Module(".".join(parts), str(relative), text, ast.parse(text, filename=str(relative))))
    return tuple(found)


def core_modules() -> tuple[Module, ...]:
    """The modules of the six cores."""
    return tuple(module for module in modules() if module.room in CORES)


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything the module imports, at its top or inside a function.

    `from swarm.model import ids` counts as both `swarm.model` and `swarm.model.ids`.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The full name of what a `from` import is from."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.path.endswith("__init__.py") else module.name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


