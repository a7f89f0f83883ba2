"""What a data folder must hold together before its node founds, joins or comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import StartRefused
from swarm.model.entry import Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.node.belong import check_log
from swarm.ports import Stored

ROW = Entry(1, 1, "found", 1, b"", 0, 1.0)
SNAPSHOT = SnapshotMeta(7, 2, Configuration((Voter("n", 1),)), 1, 0, 1.0, 0, 0)


@pytest.mark.parametrize("stored", [Stored(1, HardState(), (ROW,), None, None), Stored(1, HardState(), (), SNAPSHOT, b"")])
def test_a_log_without_its_cluster_is_carried_into_no_other_cluster(stored: Stored) -> None:
    with pytest.raises(StartRefused) as caught:
        check_log(Path("/data"), stored, has_cluster=False)
    assert "/data" in caught.value.message and "cluster.json" in caught.value.cause and "swarm reset" in caught.value.hint
    check_log(Path("/data"), stored, has_cluster=True)


def test_an_empty_store_founds_and_joins() -> None:
    check_log(Path("/data"), Stored(1, HardState(), (), None, None), has_cluster=False)
