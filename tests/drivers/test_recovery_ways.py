"""Ways into another recovery generation: what is asked, what is on disk first, and who is never followed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from swarm.adapters.identity import ClusterFile, open_data_folder
from swarm.drivers.recovery import RETRY_S, Recovery
from swarm.drivers.removal import OwnRemoval
from swarm.errors import Conflict, Unavailable, UsageError
from swarm.model.entry import Voter
from swarm.model.generation import next_generation, number_of
from swarm.model.ids import ClusterId, NodeId
from swarm.model.removal import Removal
from swarm.wire.rejoin import Handed
from tests.catalog_kit import make_node
from tests.drivers.test_replica import NAMES, World, command, settle, three_nodes

LATER = [next_generation(0, random.Random(seed)) for seed in (1, 2)]
LATEST = next_generation(LATER[0], random.Random(3))


class Held:
    """A `RecoveryStore` that tells what it was given, in order, and refuses while `full`."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.full = False
        self.reason = ""
        self.handed: Handed | None = None

    async def save_begun(self, generation: int) -> None:
        self.write(f"begun {number_of(generation)}")

    async def save_followed(self, generation: int, reason: str, handed: Handed | None) -> None:
        self.write(f"followed {generation}")
        self.reason, self.handed = reason, handed

    def write(self, what: str) -> None:
        if self.full:
            raise Unavailable("cannot write", cause="the disk is full")
        self.story.append(what)


class Survivor:
    """One node's recovery in a world of replicas."""

    def __init__(self, world: World, name: NodeId, *, generation: int = 0) -> None:
        self.story: list[str] = []
        self.is_leaving = False
        self.removal = OwnRemoval(Removal.NONE, self.forget, lambda known: None)
        self.store = Held(self.story)
        members = {each: replace(make_node(f"n{each[0]}"), id=each) for each in NAMES[:3]}
        self.recovery = Recovery(
            world.replicas[name], world.network.nodes[name], self.store, generation=generation, store_generation=1,
            members=lambda: members, rng=random.Random(1), restart=lambda: self.story.append("restart"),
            keep_state=self.keep, is_leaving=lambda: self.is_leaving, refuse=self.removal.refuse_recovery,
        )  # fmt: skip

    async def keep(self) -> None:
        self.story.append("kept")

    async def forget(self, known: Removal) -> None:
        """What is known of the removal is in memory here."""

    async def until(self, length: int) -> None:
        with trio.fail_after(60):
            while len(self.story) < length:
                await trio.sleep(0.1)


@asynccontextmanager
async def survivors() -> AsyncIterator[tuple[World, dict[NodeId, Survivor]]]:
    async with three_nodes() as world:
        leader = await world.leader()
        applied = await leader.propose(command("x"))
        await settle(world, applied.index)
        made = {name: Survivor(world, name) for name in NAMES[:3]}
        for each in made.values():
            await world.nursery.start(each.recovery.run)
        yield world, made


async def test_the_order_is_on_disk_before_the_daemon_starts_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with survivors() as (world, made):
        for name in NAMES[1:3]:
            world.crash(name)
        await trio.sleep(10)
        survey = await made[NAMES[0]].recovery.survey()
        assert survey.missing == tuple(Voter(name, 1) for name in NAMES[1:3]) and not survey.others
        with pytest.raises(UsageError):
            await made[NAMES[0]].recovery.begin(confirm="nb", even_behind=False)
        assert made[NAMES[0]].story == []
        generation = await made[NAMES[0]].recovery.begin(confirm="na", even_behind=False)
        assert number_of(generation) == 1 and made[NAMES[0]].story == ["begun 1", "restart"]


async def test_with_a_leader_or_a_majority_in_reach_nothing_is_begun(autojump_clock: trio.testing.MockClock) -> None:
    async with survivors() as (_, made):
        for survivor in made.values():
            with pytest.raises(Conflict, match="leader"):
                await survivor.recovery.begin(confirm=f"n{survivor.recovery.look().node_id[0]}", even_behind=True)
            assert survivor.story == []
        looks = [await survivor.recovery.survey() for survivor in made.values()]
        assert all(len(look.others) == 2 and look.has_quorum for look in looks)


async def test_a_node_on_its_way_out_begins_nothing_and_follows_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    async with survivors() as (world, made):
        for name in NAMES[1:3]:
            world.crash(name)
        await trio.sleep(10)
        leaving = made[NAMES[0]]
        leaving.is_leaving = True
        with pytest.raises(Conflict, match="leaving"):
            await leaving.recovery.begin(confirm="na", even_behind=True)
        assert leaving.story == []
        leaving.recovery.on_generation(NAMES[1], LATER[0])
        await leaving.until(3)
        assert leaving.story[-1] == "restart"


@pytest.mark.parametrize("known", [Removal.TOLD, Removal.CERTAIN])
async def test_a_node_that_was_removed_begins_nothing(known: Removal, autojump_clock: trio.testing.MockClock) -> None:
    """It would run everything once more, beside the cluster that it was removed from."""
    async with survivors() as (world, made):
        for name in NAMES[1:3]:
            world.crash(name)
        await trio.sleep(10)
        removed = made[NAMES[0]]
        await removed.removal.learn(known)
        with pytest.raises(Conflict, match="was removed from the cluster"):
            await removed.recovery.begin(confirm="na", even_behind=True)
        assert removed.story == []
        await removed.removal.revoke()
        await removed.recovery.begin(confirm="na", even_behind=True)
        assert removed.story[-1] == "restart"


async def test_a_disk_that_refuses_the_order_leaves_everything_as_it_was(autojump_clock: trio.testing.MockClock) -> None:
    async with survivors() as (world, made):
        for name in NAMES[1:3]:
            world.crash(name)
        await trio.sleep(10)
        made[NAMES[0]].store.full = True
        with pytest.raises(Unavailable):
            await made[NAMES[0]].recovery.begin(confirm="na", even_behind=False)
        assert made[NAMES[0]].story == []


async def test_a_later_generation_is_followed_once_the_state_is_kept_and_the_mark_is_on_disk(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with survivors() as (_, made):
        survivor = made[NAMES[0]]
        survivor.recovery.on_generation(NAMES[1], LATER[0])
        await survivor.until(3)
        assert survivor.story == ["kept", f"followed {LATER[0]}", "restart"]
        assert "recovered without this node" in survivor.store.reason and "nb" in survivor.store.reason
        with pytest.raises(Conflict):
            await survivor.recovery.begin(confirm="na", even_behind=True)


async def test_secrets_that_were_handed_over_are_written_with_the_generation_whoever_speaks_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handed, other = (Handed(ClusterId("ab" * 16), bytes([number]) * 32) for number in (1, 2))
    async with survivors() as (_, made):
        survivor = made[NAMES[0]]
        survivor.store.full = True
        survivor.recovery.on_generation(NAMES[1], LATER[0])
        survivor.recovery.on_generation(NAMES[1], LATER[0], other)
        survivor.recovery.on_generation(NAMES[2], LATER[0], handed)  # the secret was rotated there while the disk refused
        survivor.recovery.on_generation(NAMES[1], LATER[1], other)
        survivor.recovery.on_generation(NAMES[1], LATER[0])
        await trio.sleep(RETRY_S / 2)
        survivor.store.full = False
        with trio.fail_after(60):
            while "restart" not in survivor.story:
                await trio.sleep(0.1)
        assert survivor.story[-2:] == [f"followed {LATER[0]}", "restart"] and survivor.store.handed == handed


async def test_the_secret_of_a_rival_does_not_go_with_the_generation_that_is_followed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with survivors() as (_, made):
        survivor = made[NAMES[0]]
        survivor.store.full = True
        survivor.recovery.on_generation(NAMES[1], LATER[0])
        survivor.recovery.on_generation(NAMES[2], LATER[1], Handed(ClusterId("ab" * 16), b"r" * 32))
        await trio.sleep(RETRY_S / 2)
        survivor.store.full = False
        with trio.fail_after(60):
            while "restart" not in survivor.story:
                await trio.sleep(0.1)
        assert survivor.story[-2:] == [f"followed {LATER[0]}", "restart"] and survivor.store.handed is None


async def test_following_is_tried_again_when_the_disk_takes_it(autojump_clock: trio.testing.MockClock) -> None:
    async with survivors() as (_, made):
        survivor = made[NAMES[0]]
        survivor.store.full = True
        assert not survivor.recovery.is_following
        survivor.recovery.on_generation(NAMES[1], LATER[0])
        assert survivor.recovery.is_following
        await trio.sleep(2 * RETRY_S)
        assert "restart" not in survivor.story
        (complaint,) = survivor.recovery.complaints()
        assert "recovered without this node" in complaint and "the disk is full" in complaint
        survivor.store.full = False
        survivor.recovery.on_generation(NAMES[1], LATEST)
        with trio.fail_after(60):
            while "restart" not in survivor.story:
                await trio.sleep(0.1)
        assert survivor.story[-2:] == [f"followed {LATEST}", "restart"], "the latest that was heard of"


async def test_neither_a_rival_nor_an_earlier_generation_is_followed(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        survivor = Survivor(world, NAMES[0], generation=LATER[0])
        await world.nursery.start(survivor.recovery.run)
        survivor.recovery.on_generation(NAMES[1], LATER[1])
        survivor.recovery.on_generation(NAMES[2], 0)
        await trio.sleep(30)
        assert survivor.story == []
        (complaint,) = survivor.recovery.complaints()
        assert "nb" in complaint and "recovered twice" in complaint


def test_a_data_folder_remembers_why_its_log_is_set_aside(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path, name="n1", rng=random.Random(1))
    assert folder.displaced == "" and folder.mark_displaced() and "identity" in folder.displaced
    assert folder.mark_displaced("the cluster was recovered") and folder.displaced == "the cluster was recovered"
    folder.clear_displaced()
    assert folder.displaced == ""
    folder.save_cluster(ClusterFile(ClusterId("c" * 32), bytes(32), LATEST, recovering=3, recovering_from=LATER[0]))
    folder.close()
    (tmp_path / "store.json").write_text("{}")
    again = open_data_folder(tmp_path, name="", rng=random.Random(1))
    assert again.cluster is not None and (again.cluster.recovery_generation, again.cluster.recovering) == (LATEST, 3)
    again.close()
