"""The record of a testnet that is up: which hosts, which processes, in a file beside their data.

Every command reads it, changes it under a lock and writes it whole, so commands may run at the same time. It
is a convenience: `down` also works without it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testnet.layout import Layout, TestnetError
from testnet.processes import Process

ENGINE = "engine"
DAEMON = "daemon"


@dataclass(slots=True)
class HostRecord:
    """One host. `processes` maps init, engine and daemon to what was started last, dead or alive."""

    number: int
    processes: dict[str, Process] = field(default_factory=dict)
    daemon_arguments: list[str] = field(default_factory=list)
    frozen: bool = False


@dataclass(slots=True)
class Record:
    """One testnet. `engine` is own (one per host) or shared (the machine's, at `engine_url`)."""

    engine: str
    engine_url: str = ""
    hosts: dict[int, HostRecord] = field(default_factory=dict)


def load(layout: Layout) -> Record:
    """The record of the testnet that is up; TestnetError says how to make one."""
    try:
        raw = json.loads(layout.record.read_text())
    except FileNotFoundError:
        raise TestnetError(f"no testnet is up in {layout.state}: start one with `./testnet/run up --hosts 3`") from None
    hosts = {}
    for entry in raw["hosts"]:
        processes = {name: Process(**value) for name, value in entry["processes"].items()}
        hosts[entry["number"]] = HostRecord(**{**entry, "processes": processes})
    return Record(engine=raw["engine"], engine_url=raw["engine_url"], hosts=hosts)


def save(layout: Layout, record: Record) -> None:
    raw = {
        "engine": record.engine,
        "engine_url": record.engine_url,
        "hosts": [asdict(host) for host in record.hosts.values()],
    }
    beside = layout.record.with_suffix(".new")
    beside.write_text(json.dumps(raw, indent=1))
    beside.replace(layout.record)


@contextmanager
def editing(layout: Layout) -> Iterator[Record]:
    """The record, locked against other commands; written back at the end of the block."""
    with locked(layout.state / "lock"):
        record = load(layout)
        yield record
        save(layout, record)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
