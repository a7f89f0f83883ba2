"""Under strace: no acknowledgement leaves before the sync that covers it; the same look at a store without syncs finds it out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).with_name("store_child.py")
CALL = re.compile(r"^\d+ +(?P<name>pwrite64|fdatasync|fsync|write)\((?P<file>\d+<[^>]*>)(?P<rest>.*)$")


def trace(folder: Path, synchronous: str) -> list[str]:
    """The child's writes and syncs in the order the kernel saw them finish."""
    output = folder / "trace"
    calls = "trace=pwrite64,fdatasync,fsync,write"
    command = ["strace", "-f", "-y", "-s", "40", "-e", calls, "-o", str(output)]
    command += [sys.executable, str(CHILD), str(folder / "store"), synchronous]
    subprocess.run(command, check=True, cwd=CHILD.parents[2], stdout=subprocess.DEVNULL, timeout=60)
    return join_interrupted(output.read_text().splitlines())


def join_interrupted(lines: list[str]) -> list[str]:
    """strace splits a call that another thread's call overlaps: a write begins where it begins, a sync counts when it is over."""
    begun: dict[str, str] = {}
    joined = []
    for line in lines:
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>")
            if "sync(" not in line:
                joined.append(line)
        elif " resumed>" in line:
            if "sync(" in begun.get(thread, ""):
                joined.append(begun[thread] + line.split(" resumed>", 1)[1])
        else:
            joined.append(line)
    return joined


def acknowledged_unsynced(lines: list[str]) -> tuple[int, int]:
    """(acknowledgements, how many of them left while something written to the log was not synced)."""
    unsynced: set[str] = set()
    acknowledged = early = 0
    for line in lines:
        call = CALL.match(line)
        if call is None:
            continue
        name, file = call["name"], call["file"]
        if name == "pwrite64" and "log.db-wal" in file:
            unsynced.add(file)
        elif name in ("fsync", "fdatasync"):
            assert "= 0" in call["rest"], line
            unsynced.discard(file)
        elif name == "write" and "ACKNOWLEDGED" in call["rest"]:
            acknowledged += 1
            early += bool(unsynced)
    return acknowledged, early


def test_no_acknowledgement_leaves_before_its_sync(tmp_path: Path) -> None:
    assert acknowledged_unsynced(trace(tmp_path, "full")) == (11, 0)


def test_a_store_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    acknowledged, early = acknowledged_unsynced(trace(tmp_path, "off"))
    assert acknowledged == 11
    assert early == 11


def test_the_folder_is_synced_before_the_first_acknowledgement(tmp_path: Path) -> None:
    lines = trace(tmp_path, "full")
    first = next(place for place, line in enumerate(lines) if "ACKNOWLEDGED" in line)
    synced = [line for line in lines[:first] if "fsync(" in line and f"{tmp_path}/store>" in line]
    assert len(synced) >= 2, "once for the generation, once for the database"
