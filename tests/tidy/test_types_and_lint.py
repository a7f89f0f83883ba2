"""mypy, strict, over the package; ruff over everything. Both read their settings from pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.tidy.source import ROOT


def run(*arguments: str) -> str:
    """What the tool complained about; empty when nothing."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_types_hold() -> None:
    complaints = run("mypy", "swarm")
    assert complaints == "", complaints


def test_nothing_for_the_linter_to_say() -> None:
    complaints = run("ruff", "check", "swarm", "tests", "testnet", "--output-format", "concise")
    assert complaints == "", complaints
