"""The page of membership's figures is put together from results files and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from testnet.bench import membership_page
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.membership_page import Recorded


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(membership_page, "RESULTS", tmp_path / "membership")
    monkeypatch.setattr(membership_page, "PAGE", tmp_path / "membership.md")
    return tmp_path


def section(title: str, found: float) -> Section:
    return Section(title, "How.", [Figures("a thing", "s", [0.1, found], ["a dog"])], [Aim("a thing", found, 1.0, "s")])


def test_results_recorded_apart_stand_on_one_page_in_the_order_of_the_house(elsewhere: Path) -> None:
    membership_page.record("split", section("Later", 2.0), "second command")
    page = membership_page.record("convergence", section("Sooner", 0.5), "first command")
    text = page.read_text()
    assert text.index("## Sooner") < text.index("first command") < text.index("## Later") < text.index("second command")
    assert "Of 2 aims 1 were met" in text
    assert "later: a thing" in text, "what was missed is named"


def test_a_results_file_keeps_all_samples_and_what_was_discarded(elsewhere: Path) -> None:
    membership_page.record("bytes", section("Bytes", 1 / 3), "command")
    data = (elsewhere / "membership" / "bytes.json").read_bytes()
    kept = msgspec.json.decode(data, type=Recorded).section
    assert kept.figures[0].samples == [0.1, 0.333333]
    assert kept.figures[0].discarded == ["a dog"]


def test_the_page_is_what_its_results_say() -> None:
    if membership_page.PAGE.exists() or list(membership_page.RESULTS.glob("*.json")):
        assert membership_page.PAGE.read_text() == membership_page.render(), "write it again: bench-membership page"
