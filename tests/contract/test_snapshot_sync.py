"""Under strace: a snapshot's file is durable under its name before the database names it (PROTOCOLS S10); the same look at a
child that leaves a sync out finds it out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_store_sync import join_interrupted

CHILD = Path(__file__).with_name("snapshot_child.py")
CALL = re.compile(r'^\d+ +(?P<name>\w+)\((?:\d+<(?P<file>[^>]*)>|"(?P<path>[^"]*)")(?P<rest>.*)$')


def steps_of_a_switch(folder: Path, *left_out: str) -> list[tuple[str, str]]:
    """(call, file) of everything that the child did to its snapshot, the folders of it and the log, in the order of the kernel:
    from its beginning to the acknowledgement. The database counts once, where it is first written to."""
    output = folder / "trace"
    calls = "trace=pwrite64,fdatasync,fsync,write,rename,renameat,renameat2"
    command = ["strace", "-f", "-y", "-s", "40", "-e", calls, "-o", str(output)]
    command += [sys.executable, str(CHILD), str(folder / "store"), *left_out]
    subprocess.run(command, check=True, cwd=CHILD.parents[2], stdout=subprocess.DEVNULL, timeout=60)
    lines = join_interrupted(output.read_text().splitlines())
    begins, ends = (next(place for place, line in enumerate(lines) if word in line) for word in ("BEGINS", "SWITCHED"))
    steps = []
    for line in lines[begins + 1 : ends]:
        call = CALL.match(line)
        assert call is not None and " = -1 " not in line, line
        file = Path(call["file"] or call["path"])
        step = call["name"], file.suffix or file.name
        if not (step[0] == "pwrite64" and step in steps):
            steps.append(step)
    return [step for step in steps if step[1] != ".mark"]


WRITTEN = [("write", ".part"), ("fdatasync", ".part")]
NAMED = [("fsync", ".part"), ("rename", ".part")]
FOLDERS = [("fsync", ".snapshots"), ("fsync", "store")]
SWITCHED = [("pwrite64", ".db-wal"), ("fdatasync", ".db-wal")]


def test_a_snapshot_is_synced_then_named_then_its_folders_synced_and_only_then_the_database_names_it(tmp_path: Path) -> None:
    assert steps_of_a_switch(tmp_path) == [*WRITTEN, *WRITTEN, *NAMED, *FOLDERS, *SWITCHED]


@pytest.mark.parametrize(
    ("left_out", "steps"),
    [
        ("fdatasync", [WRITTEN[0], WRITTEN[0], *NAMED, *FOLDERS, *SWITCHED]),
        ("fsync", [*WRITTEN, *WRITTEN, NAMED[1], *FOLDERS, *SWITCHED]),
        ("fsync_folder", [*WRITTEN, *WRITTEN, *NAMED, *SWITCHED]),
    ],
)
def test_a_sync_that_is_left_out_is_found_out(tmp_path: Path, left_out: str, steps: list[tuple[str, str]]) -> None:
    assert steps_of_a_switch(tmp_path, left_out) == steps
