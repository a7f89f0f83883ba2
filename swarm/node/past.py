"""The past of this node: its archive, the way of applied entries into it, and the reader that answers from it."""

from __future__ import annotations

from swarm.adapters.archive import Archive, ArchiveFolder
from swarm.adapters.identity import ClusterFile
from swarm.adapters.past_process import PastReader
from swarm.drivers.archiving import Archiving
from swarm.drivers.consensus import Replica
from swarm.node.site import Site

FOLDER = "history"
"""Below the data folder; removed with it by `swarm reset`."""
DAY_S = 86_400.0


def make_past(site: Site, cluster: ClusterFile, replica: Replica) -> Archiving:
    """Built and subscribed; `run` it."""
    config, folder = site.config, site.folder.path / FOLDER
    archive = None
    if config.history_bytes:
        age_max_s = config.history_days * DAY_S
        archive = Archive(ArchiveFolder(folder, cluster.cluster_id, bytes_max=config.history_bytes, age_max_s=age_max_s))
    past = Archiving(
        archive, PastReader(folder, cluster.cluster_id), cluster_id=cluster.cluster_id, snapshot=lambda: replica.core.snapshot
    )
    replica.subscribe(past.on_changes)
    return past
