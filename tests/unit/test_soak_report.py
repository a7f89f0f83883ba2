"""The soak's last line says it all, and its results file can stand on the page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from testnet.bench.results import Recorded, write_results
from testnet.soak.history import History, Outcome, Write
from testnet.soak.report import Report, longest_without_write_s

REPORT = Report(
    seed=7,
    hosts=5,
    minutes=30.0,
    asked=Counter({"writes done": 900, "writes unknown": 3, "reads": 400}),
    faults=Counter({"power": 4, "full disk": 5}),
    disks=Counter({"ballast given back": 5}),
    longest_without_write_s=12.34,
)


def test_the_last_line_carries_every_count_the_longest_gap_the_seed_and_the_commit() -> None:
    last = REPORT.lines()[-1]
    for part in (
        "5 hosts for 30 min", "seed 7", "commit ", "9 faults (5 full disk, 4 power)", "900 writes done", "3 writes unknown",
        "400 reads", "without an accepted write 12.3 s", "nothing is wrong",
    ):  # fmt: skip
        assert part in last


def test_what_is_wrong_is_said_in_a_line_each_and_counted_in_the_last() -> None:
    lines = Report(seed=1, hosts=3, minutes=1.0, wrong=["a was lost", "b runs twice"]).lines()
    assert {"WRONG: a was lost", "WRONG: b runs twice"} <= set(lines)
    assert lines[-1].endswith("2 things are WRONG")


def test_the_results_file_is_one_of_a_page_and_misses_its_aim_when_anything_is_wrong(tmp_path: Path) -> None:
    for wrong, met in (([], True), (["a was lost"], False)):
        report = Report(seed=7, hosts=5, minutes=30.0, faults=Counter({"power": 4}), wrong=wrong)
        write_results(tmp_path / "soak.json", report.section(), "a command")
        kept = msgspec.json.decode((tmp_path / "soak.json").read_bytes(), type=Recorded).section
        assert [aim.met for aim in kept.aims] == [met]
        assert ("fault: power", [4]) in [(each.name, each.samples) for each in kept.figures]
        assert all(each in kept.markdown() for each in wrong)


def test_the_longest_time_without_a_write_is_between_accepted_ones_of_any_client() -> None:
    def write(answered: float, outcome: Outcome) -> Write:
        return Write(answered - 1, answered, outcome)

    submits = {"a": write(1.0, Outcome.DONE), "b": write(5.0, Outcome.REFUSED), "c": write(9.0, Outcome.DONE)}
    history = History(submits, {"a": write(3.5, Outcome.DONE)})
    assert longest_without_write_s(history) == 5.5
    assert longest_without_write_s(History()) == 0.0
