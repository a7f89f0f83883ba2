"""What may not stand where: the world inside a core, names that say nothing, errors swallowed whole, modules without a word."""

from __future__ import annotations

import ast
import re

from tests.tidy.source import ROOT, Module, core_modules, imports, modules

THE_WORLD = {"trio", "time", "os", "socket", "datetime", "subprocess", "threading", "asyncio", "secrets", "uuid", "pathlib"}
"""A core reads no clock, does no I/O and starts nothing. `random` is looked at on its own: its class may be named."""

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "io", "types", "docker", "misc"}

SWALLOWS_ALLOWED = {
    "swarm/node/start.py": 1, "swarm/cli/main.py": 1, "swarm/api/guard.py": 2, "swarm/drivers/incoming.py": 1,
    "swarm/wire/codec.py": 1,
}  # fmt: skip
"""How many `except Exception` may stand in which module: the doors of the daemon, of the command line, of one request or
connection of the API, and of one call of a peer (what a node is asked must not end it); and the decoder, whose errors are of many
kinds. Handlers that end in a bare `raise` swallow nothing."""


def test_cores_do_not_touch_the_world() -> None:
    wrong = [
        f"{module.path}:{line} imports {name}"
        for module in core_modules()
        for line, name in imports(module)
        if name.split(".")[0] in THE_WORLD
    ]
    assert wrong == []


CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime"}
"""Of the module `time`; each has a twin that ends in `_ns`. Wall time (`time.time`) is for people, and no matter of this rule."""

CLOCKS_ALLOWED = {"swarm/adapters/clock.py": {"clock_gettime"}} | {
    f"swarm/cli/{name}.py": {"monotonic"} for name in ("down", "node", "recover", "secret", "submit", "submit_many", "task")
}
"""The one place where the daemon's clock is read, which runs on while the host sleeps (S16), and commands at which a
person waits: those wait the longer after a sleep, which harms nobody."""


def clock_reads(module: Module) -> set[str]:
    """Which clocks of the module `time` it names, called or not, and by whatever name it imports them."""
    imported = {name.removeprefix("time.") for _, name in imports(module) if name.startswith("time.")}
    named = {
        node.attr for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    }  # fmt: skip
    return {name for name in imported | named if name.removesuffix("_ns") in CLOCKS}


def test_nothing_that_must_survive_a_suspend_reads_a_clock_that_stops_in_it() -> None:
    found = {module.path: clock_reads(module) for module in modules()}
    assert {path: names for path, names in found.items() if names} == CLOCKS_ALLOWED


def test_cores_draw_only_from_the_random_they_are_handed() -> None:
    wrong = []
    for module in core_modules():
        for line, name in imports(module):
            if name.startswith("random.") and name != "random.Random":
                wrong.append(f"{module.path}:{line} imports {name}")
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
                and node.attr != "Random"
            ):
                wrong.append(f"{module.path}:{node.lineno} uses random.{node.attr}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"random.Random", "Random"}:
                wrong.append(f"{module.path}:{node.lineno} makes a Random of its own")
    assert wrong == []


def test_cores_do_not_wait() -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    wrong = [
        f"{module.path}:{getattr(node, 'lineno', 0)}"
        for module in core_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, waits)
    ]
    assert wrong == []


def test_cores_do_not_print_or_log() -> None:
    wrong = [
        f"{module.path}:{node.lineno}"
        for module in core_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "open", "input"}
    ]
    wrong += [
        f"{module.path}:{line} imports logging"
        for module in core_modules()
        for line, name in imports(module)
        if name.split(".")[0] == "logging"
    ]
    assert wrong == []


def test_no_core_depends_on_the_order_of_hash() -> None:
    """`hash()` of text differs between processes; two replicas would disagree."""
    wrong = [
        f"{module.path}:{node.lineno}"
        for module in core_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash"
    ]
    assert wrong == []


def swallows(tree: ast.Module) -> list[int]:
    """Lines of handlers that catch everything: bare, `Exception` or `BaseException`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {"bare" if item is None else ast.unparse(item) for item in caught}
            last = node.body[-1]
            if isinstance(last, ast.Raise) and last.exc is None:
                continue  # cleans up and passes everything on
            if names & {"bare", "Exception", "BaseException"}:
                found.append(node.lineno)
    return found


def test_errors_are_swallowed_only_at_the_named_doors() -> None:
    wrong = {
        module.path: swallows(module.tree)
        for module in modules()
        if len(swallows(module.tree)) > SWALLOWS_ALLOWED.get(module.path, 0)
    }
    assert wrong == {}


def test_every_module_opens_with_what_it_is() -> None:
    silent = [module.path for module in modules() if not (ast.get_docstring(module.tree) or "").strip()]
    assert silent == []


def test_the_main_module_of_a_core_says_it_is_pure() -> None:
    silent = [
        module.path
        for module in core_modules()
        if module.path.endswith("/core.py") and "Pure: no I/O, no clock, no randomness of its own." not in module.text
    ]
    assert silent == []


def test_module_names_say_something() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for folder in ("swarm", "tests", "testnet")
        for path in sorted((ROOT / folder).rglob("*"))
        if (path.suffix == ".py" or path.is_dir()) and path.stem in NAMES_THAT_SAY_NOTHING and "__pycache__" not in path.parts
    ]
    assert wrong == []


def test_drivers_speak_to_ports_never_to_adapters() -> None:
    wrong = [
        f"{module.path}:{line} imports {name}"
        for module in modules()
        if module.room == "drivers"
        for line, name in imports(module)
        if name.startswith("swarm.adapters")
    ]
    assert wrong == []


POSTPONED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bfor now\b")


def test_nothing_is_postponed_in_a_comment() -> None:
    wrong = [
        f"{module.path}:{number} {line.strip()}"
        for module in modules()
        for number, line in enumerate(module.text.splitlines(), start=1)
        if POSTPONED.search(line)
    ]
    assert wrong == []


def test_the_top_holds_what_it_should() -> None:
    allowed = {"pyproject.toml", "README.md", "LICENSE", "swarm", "tests", "testnet", "docs"}
    extra = sorted(
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and path.name not in allowed and path.name not in {"build", "dist"}
    )
    assert extra == []
