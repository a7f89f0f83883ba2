"""The node's part of a recovery: what `swarm recover` ordered is done at the next start, before anything else reads the log.

The order stands in cluster.json: the new generation, and which life of the store it is to begin with. The store is written in one
transaction; only then is the order taken out. A crash anywhere in between repeats it. When that store is gone meanwhile (damaged,
set aside) nothing was begun in the new generation, nobody has heard of it, and the node goes back to the one before.
"""

from __future__ import annotations

import dataclasses
import logging

import trio
from msgspec.structs import replace

from swarm.adapters.clock import SystemClock
from swarm.consensus.recovery import begin_generation
from swarm.model.entry import Voter
from swarm.model.generation import generation_text
from swarm.node.site import Site, write_at_start
from swarm.ports import Batch, Stored

LOG = logging.getLogger("swarm.recovery")


async def finish_recovery(site: Site) -> None:
    """Carry out the order, if there is one. Raises `StoreFailure`; the order stands then."""
    file, stored = site.folder.cluster, site.stored
    if file is None or not file.recovering:
        return
    generation = file.recovery_generation
    if file.recovering != stored.store_generation or not (stored.entries or stored.snapshot):
        LOG.error("does not begin %s: the log it was to begin with is not there any more", generation_text(generation))
        generation = file.recovering_from
    else:
        me = Voter(site.folder.node_id, stored.store_generation)
        batch = begin_generation(stored, me=me, generation=generation, time_utc=SystemClock().utc())
        if batch is not None:
            await write_at_start(site.store, (batch,))
            site.stored = with_batch(stored, batch)
        LOG.warning("begins %s of the cluster as its only voter", generation_text(generation))
    done = replace(file, recovery_generation=generation, recovering=0, recovering_from=0)
    await trio.to_thread.run_sync(site.folder.save_cluster, done)


def with_batch(stored: Stored, batch: Batch) -> Stored:
    """What the store holds after a batch that only adds entries."""
    return dataclasses.replace(
        stored, hard_state=batch.hard_state or stored.hard_state, entries=(*stored.entries, *batch.entries)
    )
