"""The steps in which a catalog of many tasks is encoded and restored, in this process: how long the longest takes.

Processor time of the thread, with what was there before frozen out of the collector's reach, as the daemon does.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from swarm.catalog import Catalog
from swarm.model.command import COMMANDS, KIND_OF, Found, Submit, SubmitMany
from swarm.model.entry import Entry, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.node import Node
from swarm.model.resources import Resources
from swarm.model.task import TaskSpec
from swarm.wire.codec import encode
from swarm.wire.limits import SNAPSHOT_CHUNK_BYTES
from testnet.bench.figures import Figures

T = TypeVar("T")
PART = 64
"""Tasks of one entry: as a batch has them."""


@dataclass(slots=True)
class Steps:
    """What the steps took. A sample is a whole snapshot: the longest of its steps, and their sum."""

    encode: Figures = field(default_factory=lambda: Figures("longest step of encoding", "ms"))
    restore: Figures = field(default_factory=lambda: Figures("longest step of restoring", "ms"))
    encode_whole: Figures = field(default_factory=lambda: Figures("encode all of it", "s"))
    restore_whole: Figures = field(default_factory=lambda: Figures("restore all of it", "s"))
    size: Figures = field(default_factory=lambda: Figures("size of the snapshot", "MB"))

    @property
    def figures(self) -> list[Figures]:
        return [self.encode, self.restore, self.encode_whole, self.restore_whole, self.size]


def catalog_of(tasks: int) -> Catalog:
    """A catalog of one node and so many waiting tasks."""
    catalog = Catalog()
    indices = count(1)
    node = Node(
        id=NodeId("1" * 32), name="h1", address="127.0.0.1:4747", api_address="127.0.0.1:4748", fingerprint=b"f" * 32,
        public_key=b"k" * 91, store_generation=1, arch="amd64", capacity=Resources(4000, 2**33, 1000),
    )  # fmt: skip

    def apply(command: Found | SubmitMany) -> None:
        index, kind = next(indices), KIND_OF[type(command)]
        catalog.apply(Entry(
            index=index, term=1, kind=kind, version=COMMANDS[kind][0], payload=encode(command), recovery_generation=0,
            time_utc=1_000.0 + index, request_id=RequestId(f"{index:032x}"),
        ))  # fmt: skip

    apply(Found(ClusterId("c" * 32), (node,), (Voter(node.id, 1),)))
    for start in range(0, tasks, PART):
        part = (
            Submit(TaskId(f"{number:032x}"), TaskSpec(name=f"task-{number}", image="testnet/busybox:1", command=("sleep", "9")))
            for number in range(start, min(start + PART, tasks))
        )
        apply(SubmitMany(tuple(part)))
    return catalog


def measured_steps(tasks: int, steps: Steps) -> None:
    """Encode and restore one snapshot."""
    catalog = catalog_of(tasks)
    gc.collect()
    gc.freeze()
    try:
        pieces, took_s = _timed(catalog.snapshot_slices())
        steps.encode.add(1000 * max(took_s))
        steps.encode_whole.add(sum(took_s))
        data = b"".join(pieces)
        steps.size.add(len(data) / 1e6)
        took_s = []
        restoring = Catalog().restoring()
        for start in range(0, len(data), SNAPSHOT_CHUNK_BYTES):
            took_s += _timed(restoring.feed(data[start : start + SNAPSHOT_CHUNK_BYTES]))[1]
        took_s += _timed(restoring.finish())[1]
        steps.restore.add(1000 * max(took_s))
        steps.restore_whole.add(sum(took_s))
    finally:
        gc.unfreeze()


def _timed(iterator: Iterator[T]) -> tuple[list[T], list[float]]:
    """All that it gives, and how long each step took; the last is the one that finds the end."""
    given: list[T] = []
    took_s: list[float] = []
    while True:
        began = time.thread_time()
        try:
            given.append(next(iterator))
        except StopIteration:
            return given, [*took_s, time.thread_time() - began]
        took_s.append(time.thread_time() - began)
