"""The page of results: what machine, which commit, how to repeat it, then one section per measurement."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import docker

from testnet.bench.figures import Section
from testnet.bench.machine import commit, processor
from testnet.cluster import Testnet
from testnet.layout import REPOSITORY

PAGE = REPOSITORY / "docs" / "benchmarks" / "main-job.md"

INTRODUCTION = """# The main job, measured

Written by `./testnet/run bench`, which measures all of it again (as root, on Debian; it leaves nothing behind). Hosts are
emulated on one machine, each with a Docker Engine and a daemon of its own ([testnet](../testnet.md)), so all of them share its
cores: compare figures within one page, not across machines. What stands beside the raw engine was measured in turn with it, on
the same engine, in the same network mode and minute.

`discarded` counts the runs that failed or were disturbed, with the reason; percentiles are by nearest rank, so with few runs p95
is the maximum."""


def cpu_waited_s() -> float:
    """For how many seconds since the boot something that could run had no processor; NaN where the kernel does not tell."""
    try:
        found = re.search(r"^some .*total=(\d+)", Path("/proc/pressure/cpu").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) / 1e6 if found else float("nan")


def facts(net: Testnet) -> str:
    """The machine and the programs, as a table."""
    with docker.APIClient(base_url=net.engine(net.hosts[0]), timeout=30) as client:
        version = client.version()
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    rows = {
        "cores": f"{os.cpu_count()} ({processor()})",
        "memory": f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "Docker Engine": f"{version['Version']}, API {version['ApiVersion']}",
        "Python": platform.python_version(),
        "busy before (load average)": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        "commit": commit(),
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def write(about: str, sections: list[Section]) -> Path:
    aims = [aim for section in sections for aim in section.aims]
    missed = [f"{section.title.lower()}: {aim.what}" for section in sections for aim in section.aims if not aim.met]
    short = f"**Of {len(aims)} aims {len(aims) - len(missed)} were met.**"
    if missed:
        short += " Not met: " + "; ".join(missed) + ". The sections say by how much, and where the time went."
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n\n".join([INTRODUCTION, about, short, *(section.markdown() for section in sections)]) + "\n")
    return PAGE
