"""The pages of figures are put together from results files and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from testnet.bench.consensus_page import CONSENSUS
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_page import MEMBERSHIP
from testnet.bench.results import Recorded, ResultsPage


@pytest.fixture
def elsewhere(tmp_path: Path) -> ResultsPage:
    return ResultsPage(tmp_path / "page.md", tmp_path / "results", "# A page", ("convergence", "bytes", "split"))


def section(title: str, found: float) -> Section:
    return Section(title, "How.", [Figures("a thing", "s", [0.1, found], ["a dog"])], [Aim("a thing", found, 1.0, "s")])


def test_results_recorded_apart_stand_on_one_page_in_the_order_of_the_house(elsewhere: ResultsPage) -> None:
    elsewhere.record("split", section("Later", 2.0), "second command")
    page = elsewhere.record("convergence", section("Sooner", 0.5), "first command")
    text = page.read_text()
    assert text.index("## Sooner") < text.index("first command") < text.index("## Later") < text.index("second command")
    assert "Of 2 aims 1 were met" in text
    assert "later: a thing" in text, "what was missed is named"


def test_a_results_file_keeps_all_samples_and_what_was_discarded(elsewhere: ResultsPage) -> None:
    elsewhere.record("bytes", section("Bytes", 1 / 3), "command")
    kept = msgspec.json.decode((elsewhere.results / "bytes.json").read_bytes(), type=Recorded).section
    assert kept.figures[0].samples == [0.1, 0.333333]
    assert kept.figures[0].discarded == ["a dog"]


@pytest.mark.parametrize("written", [MEMBERSHIP, CONSENSUS], ids=lambda written: written.page.stem)
def test_the_page_is_what_its_results_say(written: ResultsPage) -> None:
    if written.page.exists() or list(written.results.glob("*.json")):
        assert written.page.read_text() == written.render(), "write it again: bench-membership page, or bench-consensus page"
