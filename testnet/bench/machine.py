"""What was measured and on what: the commit and the processor."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

from testnet.layout import REPOSITORY


def said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY).stdout.strip()


def commit() -> str:
    """The commit that was measured; says so when the product differed from it."""
    changed = said_by("git", "status", "--porcelain", "--", "swarm")
    return said_by("git", "rev-parse", "--short=12", "HEAD") + (", with changes that are not committed" if changed else "")


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()
