"""Belonging to a cluster: come back to one's own, found one, or join the one that a peer belongs to.

The secret comes from the data folder, from the token, or (founding alone without a token) from the kernel's randomness. The desk
for bootstrap connections opens before the cluster is known and stays open as long as the daemon runs.

Promises: what the node belongs to is in its data folder before anybody is told; entry 1 goes into the store once, and only
into the very life of the store that the founding names: a wiped disk gets its log from the others.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
from pathlib import Path

import trio

from swarm.adapters.certificates import contexts
from swarm.adapters.clock import SystemClock
from swarm.adapters.identity import CLUSTER, ClusterFile
from swarm.drivers.boot import Belonging, Desk, belonging_of
from swarm.drivers.founding import Founding, check_start
from swarm.drivers.presence import Run
from swarm.drivers.twins import Twins
from swarm.errors import StartRefused
from swarm.model.entry import Entry
from swarm.model.ids import NodeId, random_id
from swarm.node.site import Site, write_at_start
from swarm.ports import PROTOCOL_BOOT, Batch, Stored
from swarm.schema.waiting import Waiting, remove_note, write_note
from swarm.wire import boot
from swarm.wire.address import PEER_PORT, parse_address
from swarm.wire.codec import encode
from swarm.wire.token import format_token, parse_token

LOG = logging.getLogger("swarm.node")
CLOCK = SystemClock()


async def belong(site: Site) -> tuple[ClusterFile, Desk]:
    """The cluster this node is a member of, and the desk where others may ask to join it. Raises `StartRefused`."""
    config, folder = site.config, site.folder
    remove_note(config.socket)  # of a start that was killed
    known = folder.cluster
    check_log(folder.path, site.stored, has_cluster=known is not None)
    check_start(
        has_cluster=known is not None, has_token=bool(config.token), has_peers=bool(config.peers), found=config.found,
        witness=bool(config.witness),
    )  # fmt: skip
    secret = _secret(site)
    desk = Desk(
        site.facts,
        persist_found=lambda entry: _persist_found(site, secret, entry),
        belonging=_belonging(known) if known is not None else None,
        persist_displaced=folder.mark_displaced,
        run=Run(random_id(random.SystemRandom()), CLOCK.now(), CLOCK.now),
    )
    site.port.use(PROTOCOL_BOOT, await trio.to_thread.run_sync(contexts, folder.boot_credentials(secret), PROTOCOL_BOOT))
    site.port.handle(PROTOCOL_BOOT, desk.accept)
    if known is None:
        known = await _settle(site, desk, secret)
    else:
        await _refuse_twin(site, desk, known)
        if known.found:
            await _write_entry_1(site, boot.decode_entry_untrusted(known.found))
    return known, desk


async def _refuse_twin(site: Site, desk: Desk, known: ClusterFile) -> None:
    """Raise `StartRefused` when a daemon with this node's identity runs where this one was last."""
    for last in [node.address for node in known.nodes if node.id == site.facts.id and node.address != site.facts.address]:
        await Twins(desk, site.port).elder_at(last)
    if desk.refusal is not None:
        raise desk.refusal


def check_log(folder: Path, stored: Stored, *, has_cluster: bool) -> None:
    """Raise `StartRefused` for a log that is nobody's: it would be carried into whatever cluster is founded or joined now."""
    if has_cluster or not (stored.entries or stored.snapshot):
        return
    raise StartRefused(
        f"cannot use the data folder {folder}",
        cause=f"it holds a cluster's log, but not {CLUSTER}, which says which cluster's",
        hint="put the missing file back, or run 'swarm reset' and join as a new node",
    )


def _secret(site: Site) -> bytes:
    given, known = site.config.token, site.folder.cluster
    if known is None:
        return parse_token(given) if given else os.urandom(32)
    if given and not _is_known(parse_token(given), known):
        raise StartRefused(
            f"the token is none of the cluster {known.cluster_id}, to which the data folder {site.folder.path} belongs",
            cause="it is another cluster's, or newer than a rotation of the secret that this node missed",
            hint="start without the token: a member needs none, and gets the present secret from the others. To join another "
            "cluster, run 'swarm reset' first",
        )
    return known.secret


def _is_known(secret: bytes, known: ClusterFile) -> bool:
    """Whether it is, or once was, the secret of the cluster this node belongs to."""
    return secret in known.secrets or hashlib.sha256(secret).digest() in known.former


def _belonging(known: ClusterFile) -> Belonging:
    return Belonging(known.cluster_id, known.recovery_generation, known.found, known.nodes)


async def _settle(site: Site, desk: Desk, secret: bytes) -> ClusterFile:
    """Found or join, and remember it."""
    peers = site.config.peers

    def say(text: str) -> None:
        LOG.info("%s", text)
        write_note(site.config.socket, Waiting(site.config.data, text))

    say(f"waiting to hear of {', '.join(peers)}" if peers else "founding a cluster")
    founding = Founding(desk, peers, dialer=site.port, clock=CLOCK, rng=random.SystemRandom(), say=say)
    try:
        belonging = await founding.settle()
    finally:
        remove_note(site.config.socket)
    if site.folder.cluster is None:  # joined: a founding was remembered before it was granted
        nodes = belonging.nodes
        file = ClusterFile(belonging.cluster_id, secret, belonging.recovery_generation, belonging.found, nodes)
        await trio.to_thread.run_sync(site.folder.save_cluster, file)
        LOG.info("joined the cluster %s of %s", belonging.cluster_id, _names(belonging, site.facts.id))
    elif not peers:
        _print_join_line(site, secret, belonging)
    else:
        LOG.info("founded the cluster %s with %s", belonging.cluster_id, _names(belonging, site.facts.id))
    assert site.folder.cluster is not None
    return site.folder.cluster


def _names(belonging: Belonging, self_id: NodeId) -> str:
    return ", ".join(sorted(node.name for node in belonging.nodes if node.id != self_id)) or "nobody else"


def join_line(secret: bytes, address: str) -> str:
    """What to run on another host so that it joins through the node at `address`."""
    ip, port = parse_address(address)
    peer = ip if port == PEER_PORT and ":" not in ip else address
    return f"SWARM_TOKEN={format_token(secret)} swarm up --peers {peer}"


def _print_join_line(site: Site, secret: bytes, belonging: Belonging) -> None:
    """To standard output: the one thing that the founder of a cluster needs next."""
    print(f"founded the cluster {belonging.cluster_id}; on every other host:", flush=True)
    print(f"    {join_line(secret, site.facts.address)}", flush=True)


async def _persist_found(site: Site, secret: bytes, entry: Entry) -> None:
    """Entry 1 on disk, and whose it is: the file first, so that a crash in between is made good at the next start."""
    belonging = belonging_of(encode(entry))
    file = ClusterFile(belonging.cluster_id, secret, belonging.recovery_generation, belonging.found, belonging.nodes)
    await trio.to_thread.run_sync(site.folder.save_cluster, file)
    await _write_entry_1(site, entry)


async def _write_entry_1(site: Site, entry: Entry) -> None:
    stored = site.stored
    named = [node.store_generation for node in belonging_of(encode(entry)).nodes if node.id == site.facts.id]
    if stored.entries or stored.snapshot is not None or named != [stored.store_generation]:
        return
    await write_at_start(site.store, (Batch(number=1, entries=(entry,)),))
    site.stored = Stored(stored.store_generation, stored.hard_state, (entry,), None, None)
