"""What the pages name is there: files, tests in files, and no placeholder."""

from __future__ import annotations

import re
from functools import cache

from tests.tidy.source import ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
FILE = re.compile(r"`((?:swarm|tests|testnet|docs)/[A-Za-z0-9_./-]+\.(?:py|md|txt|sh))(?:::(test_[A-Za-z0-9_]+))?(?:\[[^`]*)?`")
MORE = re.compile(r"`(?:::)?(test_[a-z0-9_]+)`")
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z0-9]+-(?:TEST|RUN|MUTANT|CHECKER)\b|\bTODO\b|\bTBD\b|\bFIXME\b")


@cache
def names_of_tests() -> frozenset[str]:
    """Every test function and every test file there is, without its ending."""
    texts = [(path.stem, path.read_text()) for path in (ROOT / "tests").rglob("*.py")]
    defined = {name for _, text in texts for name in re.findall(r"def (test_[a-z0-9_]+)", text)}
    return frozenset(defined | {stem for stem, _ in texts})


def test_files_that_the_pages_name_are_there_and_so_are_the_tests_in_them() -> None:
    wrong = []
    for page in PAGES:
        for path, test in FILE.findall(page.read_text()):
            if not (ROOT / path).exists():
                wrong.append(f"{page.name}: {path}")
            elif test and f"def {test}(" not in (ROOT / path).read_text():
                wrong.append(f"{page.name}: {path}::{test}")
    assert wrong == []


def test_tests_that_the_pages_name_are_there() -> None:
    named = {(page.name, test) for page in PAGES for test in MORE.findall(page.read_text())}
    assert [f"{page}: {test}" for page, test in sorted(named) if test not in names_of_tests()] == []


def test_no_page_has_a_placeholder() -> None:
    assert [f"{page.name}: {found}" for page in PAGES for found in PLACEHOLDER.findall(page.read_text())] == []
