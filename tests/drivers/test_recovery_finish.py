"""The order of `swarm recover` is carried out at the next start: once, in full, or not at all."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.adapters.identity import ClusterFile, open_data_folder
from swarm.adapters.store import open_store
from swarm.model.entry import KIND_CONFIGURATION, KIND_NOOP, Configuration, Entry, HardState, Voter
from swarm.model.generation import next_generation
from swarm.model.ids import ClusterId
from swarm.node.recovering import finish_recovery
from swarm.ports import Batch
from swarm.wire.codec import encode

NEW = next_generation(0, random.Random(1))


class Start:
    """One start of a daemon, up to where it would belong to its cluster."""

    def __init__(self, path: Path) -> None:
        self.folder = open_data_folder(path, name="n1", rng=random.Random(1))
        self.store, self.stored = open_store(path, trusted=not self.folder.displaced)

    async def end(self) -> None:
        await self.store.close()
        self.folder.close()

    async def finish(self) -> Any:
        site: Any = SimpleNamespace(folder=self.folder, store=self.store, stored=self.stored)
        await finish_recovery(site)
        return site.stored


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A data folder with a log of three voters, and the order to begin a generation with it."""
    start = Start(tmp_path)
    voters = Configuration((Voter("a", 1), Voter("b", 1), Voter(start.folder.node_id, 1)))
    first = Entry(1, 1, KIND_CONFIGURATION, 1, encode(voters), 0, 1.0)
    await start.store.write([Batch(1, (first, Entry(2, 3, KIND_NOOP, 1, b"\x80", 0, 2.0)), hard_state=HardState(0, 4, "a"))])
    start.folder.save_cluster(ClusterFile(ClusterId("c" * 32), bytes(32), NEW, recovering=1))
    await start.end()
    return tmp_path


async def test_the_store_begins_the_generation_and_the_order_is_taken_out(data: Path) -> None:
    start = Start(data)
    stored = await start.finish()
    assert [entry.index for entry in stored.entries] == [1, 2, 3] and stored.hard_state.recovery_generation == NEW
    assert stored.entries[2].recovery_generation == NEW and stored.entries[2].term > 1_000_000
    assert start.folder.cluster is not None
    assert (start.folder.cluster.recovery_generation, start.folder.cluster.recovering) == (NEW, 0)
    await start.end()
    again = Start(data)
    assert again.stored.entries == stored.entries, "it is on the disk"
    assert (await again.finish()).entries == stored.entries
    await again.end()


async def test_a_crash_before_the_order_is_taken_out_repeats_nothing(data: Path) -> None:
    start = Start(data)
    order = start.folder.cluster
    assert order is not None
    stored = await start.finish()
    start.folder.save_cluster(order)  # as if the file had not been written
    await start.end()
    again = Start(data)
    assert (await again.finish()).entries == stored.entries
    assert again.folder.cluster is not None and again.folder.cluster.recovering == 0
    await again.end()


async def test_without_the_log_it_was_meant_for_nothing_is_begun_and_the_generation_before_stands(data: Path) -> None:
    with open(data / "displaced", "w") as mark:
        mark.write("set aside")
    start = Start(data)
    assert start.stored.store_generation == 2
    stored = await start.finish()
    assert not stored.entries and start.folder.cluster is not None
    assert (start.folder.cluster.recovery_generation, start.folder.cluster.recovering) == (0, 0), "others must not follow it"
    await start.end()
