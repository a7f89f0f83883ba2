"""A module has at most 400 lines and a function at most 60. The ratchet: what is listed as larger may only shrink."""

from __future__ import annotations

import ast

from tests.tidy.source import modules

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

LARGER_MODULES: dict[str, int] = {}
"""Path -> lines it may have. An entry whose module has shrunk must shrink with it, and goes when it fits."""

LARGER_FUNCTIONS: dict[str, int] = {}
"""`path:name` -> lines it may have."""


def functions() -> dict[str, int]:
    """Every function's length, nested ones included, by `path:name`."""
    found: dict[str, int] = {}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                key = f"{module.path}:{node.name}"
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                found[key] = max(found.get(key, 0), length)
    return found


def test_modules_stay_under_the_wall() -> None:
    wrong = {
        module.path: module.lines
        for module in modules()
        if module.lines > LARGER_MODULES.get(module.path, MODULE_LINES_MAX)
    }
    assert wrong == {}


def test_functions_stay_under_the_wall() -> None:
    wrong = {key: length for key, length in functions().items() if length > LARGER_FUNCTIONS.get(key, FUNCTION_LINES_MAX)}
    assert wrong == {}


def test_the_ratchet_only_tightens() -> None:
    sizes = {module.path: module.lines for module in modules()}
    loose = {path: sizes.get(path, 0) for path, most in LARGER_MODULES.items() if sizes.get(path, 0) < most}
    lengths = functions()
    loose |= {key: lengths.get(key, 0) for key, most in LARGER_FUNCTIONS.items() if lengths.get(key, 0) < most}
    assert loose == {}, "these have shrunk: lower their number, or take them off the list"
