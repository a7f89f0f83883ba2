"""Mutants of snapshots on their way from one member to another, and of what is done with a whole one. See `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swarm.consensus import follower
from swarm.consensus.core import Consensus
from swarm.consensus.effects import RestoreSnapshot
from swarm.consensus.messages import AppendReply
from swarm.consensus.state import State
from swarm.consensus.transfer import Chunk, Intake
from swarm.wire.checksum import crc32c
from tests.simulation.mutants import WHERE_TO_LOOK, mutant, patched

OFTEN: dict[str, Any] = {"hosts": 4, "every_s": 1.5, "seconds": 25.0, "snapshot_every": 12}
"""A snapshot every few entries: followers get them all the time."""
WHERE_TO_LOOK.update(
    {
        "a_snapshot_is_not_verified": {**OFTEN, "kinds": ("misread", "power", "cut")},
        "chunks_are_kept_wherever_they_begin": {**OFTEN, "kinds": ("echo", "power", "cut")},
        "a_part_is_taken_for_the_whole": {**OFTEN, "kinds": ("power", "cut")},
        "an_older_snapshot_is_installed": {**OFTEN, "kinds": ("power", "cut", "crown")},
    }
)


def unverified(self: Intake) -> None:
    """Nobody checks the whole."""


@mutant
def a_snapshot_is_not_verified() -> Iterator[None]:
    """A snapshot is given on though its bytes are not those that were announced."""
    with patched(Intake, "verify", unverified):
        yield


@mutant
def chunks_are_kept_wherever_they_begin() -> Iterator[None]:
    """A chunk is appended to what is there, whatever its place in the snapshot; the checksum is of what was appended."""

    def take(self: Intake, chunk: Chunk) -> bytes:
        news = chunk.data[: self.meta.length - self.position]
        self.position += len(news)
        self._checksum = crc32c(news, self._checksum)
        return news

    with patched(Intake, "take", take), patched(Intake, "verify", unverified):
        yield


@mutant
def a_part_is_taken_for_the_whole() -> Iterator[None]:
    """A transfer is over when most of it is there."""
    is_complete = property(lambda self: 3 * self.position >= 2 * self.meta.length)
    with patched(Intake, "is_complete", is_complete), patched(Intake, "verify", unverified):
        yield


@mutant
def an_older_snapshot_is_installed() -> Iterator[None]:
    """A snapshot that stands for less than what is committed here is taken all the same."""

    def wants_snapshot(self: Consensus, meta: Any) -> bool:
        return meta.recovery_generation == self._state.recovery_generation

    def on_snapshot(state: State, source: Any, meta: Any, data: Any) -> None:
        state.commit_index = state.handed_index = state.applied_index = meta.index
        state.log.reset(meta, data)
        state.writes.save_snapshot(meta, data, discard=True)
        state.outbox.emit(RestoreSnapshot(meta, data))
        state.release(source, AppendReply(*state.header(), True, state.commit_index))

    with patched(Consensus, "wants_snapshot", wants_snapshot), patched(follower, "on_snapshot", on_snapshot):
        yield
