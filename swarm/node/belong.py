"""Belonging to a cluster: come back to one's own, found one, or join the one that a peer belongs to."""

from __future__ import annotations

import os
import random

from swarm.adapters.identity import ClusterFile
from swarm.model.command import Found
from swarm.model.entry import KIND_FOUND, Entry, Voter
from swarm.model.ids import ClusterId, random_id
from swarm.node.site import Site
from swarm.ports import Batch
from swarm.wire.codec import encode
from swarm.wire.token import parse_token


async def belong(site: Site) -> ClusterFile:
    """The cluster this node is a member of, founded or joined if it was not yet."""
    if site.folder.cluster is not None:
        return site.folder.cluster
    return await found_alone(site)


async def found_alone(site: Site) -> ClusterFile:
    """A cluster of one."""
    secret = parse_token(site.config.token) if site.config.token else os.urandom(32)
    cluster_id = ClusterId(random_id(random.SystemRandom()))
    voters = (Voter(site.facts.id, site.stored.store_generation),)
    payload = encode(Found(cluster_id, (site.facts,), voters))
    entry = Entry(1, 1, KIND_FOUND, 1, payload, 0, 0.0)
    await site.store.write((Batch(1, entries=(entry,)),))
    site.stored = type(site.stored)(site.stored.store_generation, site.stored.hard_state, (entry,), None, None)
    cluster = ClusterFile(cluster_id, secret, 0, encode(entry), (site.facts,))
    site.folder.save_cluster(cluster)
    return cluster
