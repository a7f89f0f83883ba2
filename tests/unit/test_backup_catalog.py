"""The catalog carried out of its cluster: what stays behind, and what a new cluster is made of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarm.catalog import Catalog
from swarm.catalog.backup import contents_untrusted, for_new_cluster_untrusted
from swarm.errors import BadMessage
from swarm.model.command import Assign, CreateApiToken, StopTask
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.task import Mount, MountKind
from tests.catalog_kit import Log, make_node

ME = replace(make_node("new"), address="")
DATA = (Mount(MountKind.VOLUME, "diary", "/data"),)


def busy() -> Log:
    """A cluster in the middle of things."""
    log = Log(*(make_node(name) for name in ("n1", "n2", "n3")))
    log.running("web", "n1", env=("PASSWORD=user-wrote-this",))
    log.running("data", "n2", mounts=DATA)
    log.submit("waits", registry_auth=b"sealed-to-old-nodes")
    moved, first = log.running("moved", "n3")
    log.verdict("n3", VerdictKind.HOST_SILENT)
    log.must(Assign(moved, 2, NodeId("id-n1"), first))
    stopped, _ = log.running("stopping", "n1")
    log.must(StopTask(stopped))
    ended, assignment = log.running("ended", "n2")
    log.must(StopTask(ended))
    log.report(assignment, Phase.STOPPED)
    log.must(CreateApiToken("1" * 32, b"h" * 32, "note"))
    return log


def joined(slices: Iterator[bytes]) -> bytes:
    return b"".join(slices)


def restored(data: bytes) -> Catalog:
    new, index = for_new_cluster_untrusted(data, cluster_id=ClusterId("c2"), me=ME, term=7, time_utc=2_000.0)
    catalog = Catalog()
    catalog.restore(new)
    catalog.check()
    assert catalog.applied_index == index
    return catalog


def test_a_backup_leaves_behind_what_only_the_old_cluster_can_use() -> None:
    log = busy()
    data = joined(log.catalog.backup_slices())
    assert b"h" * 32 not in data and b"sealed-to-old-nodes" not in data
    assert b"user-wrote-this" in data, "what users wrote into their tasks is theirs to have back"
    assert log.catalog.api_tokens and log.catalog.find_task("waits").spec.registry_auth, "the catalog itself is untouched"


def test_contents_name_what_a_restore_gives_up() -> None:
    found = contents_untrusted(busy().catalog.snapshot())
    assert found.nodes == ("n1", "n2", "n3")
    assert found.tasks == ("data", "moved", "stopping", "waits", "web") and (found.tasks_to_run, found.tasks_ended) == (4, 1)
    assert found.pinned == (("data", "n2"),) and found.with_credentials == ("waits",)


@pytest.mark.parametrize("bare", [True, False])
def test_in_the_new_cluster_every_wanted_task_waits_for_a_place_and_nothing_of_the_old_nodes_is_left(bare: bool) -> None:
    log = busy()
    catalog = restored(joined(log.catalog.backup_slices()) if bare else log.catalog.snapshot())
    assert catalog.cluster_id == "c2" and list(catalog.nodes) == [ME.id] and not catalog.removed_nodes
    assert catalog.configuration == Configuration((Voter(ME.id, ME.store_generation),))
    assert not catalog.api_tokens and not catalog.secrets.records
    assert all(assignment.ended for assignment in catalog.assignments.values())
    waiting = [catalog.tasks[task_id].spec.name for task_id in catalog.pending]
    assert sorted(waiting) == ["data", "moved", "waits", "web"]
    assert catalog.find_task("stopping").ended and catalog.find_task("ended").ended
    assert not catalog.find_task("data").pinned_node and not catalog.find_task("waits").spec.registry_auth


def test_what_is_restored_can_be_worked_with_from_the_first_entry_on() -> None:
    catalog = restored(joined(busy().catalog.backup_slices()))
    log = Log()
    log.catalog, log.time_utc = catalog, 3_000.0
    log.entries = [log.entry(StopTask(catalog.find_task("web").id))] * catalog.applied_index
    task = catalog.find_task("web")
    assert log.assign(task.id, "new") == f"{task.id}.{task.attempts + 1}", "attempts are never numbered twice"
    assert catalog.find_task("web").desired is Desired.RUNNING


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_refused_or_hold_every_invariant(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        restored(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except BadMessage:
        pass


WHOLE = busy().catalog.snapshot()
