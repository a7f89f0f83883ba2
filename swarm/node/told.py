"""What a daemon tells people of itself: everything its parts have counted, and who does not accept it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from swarm.drivers.link import UPGRADE
from swarm.drivers.removal import ADVICE

if TYPE_CHECKING:
    from swarm.node.daemon import Daemon


def refusals(daemon: Daemon) -> list[str]:
    """Members that refuse this node, one line each; one line for all of them when it is known why."""
    if daemon.removal.certain:
        return [f"this node was removed from the cluster, and runs nothing any more: {ADVICE}"]
    hint = "after swarm node rm: run swarm reset on this host and join anew"
    found = daemon.streams.refusals()
    told = [
        f"{daemon.name_of(node_id)} does not accept this node: {reason}{'' if UPGRADE in reason else f'; {hint}'}"
        for node_id, reason in found
    ]
    told = told or [f"the cluster does not accept this node: {each}; {hint}" for each in (daemon.rejoining.refused,) if each]
    return daemon.recovery.complaints() + told


def counted(daemon: Daemon) -> Mapping[str, int]:
    """Everything counted since the start."""
    total: Counter[str] = Counter()
    parts = [daemon.replica.counters, daemon.streams.counters, daemon.site.port.counters, daemon.duties.counters]
    parts += [daemon.rejoin_desk.counters, daemon.proofs.counters, daemon.queue.counters, daemon.past.counters]
    for each in (daemon.gossip.drops(), *parts):
        total.update(each)
    total.update(daemon.api.counters)
    total.update({f"udp_{reason}": count for reason, count in daemon.site.packets.counters.items()})
    total["loop_lag_ms"] = round(1000 * daemon.gossip.lag.last_s)
    total["loop_lag_max_1m_ms"] = round(1000 * daemon.gossip.lag.max_s(daemon.clock.now()))
    total["duties_step_max_us"] = round(1_000_000 * daemon.duties.step_s_max)
    return total
