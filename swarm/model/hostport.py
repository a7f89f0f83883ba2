"""Host ports: which are taken on a node, and whether a task's would clash. Shared by the scheduler and the catalog.

A port without a host address is taken on every address of the host. Ports are not amounts, so they are kept beside
`Resources`, as (protocol, port) -> the addresses it is bound on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from swarm.model.task import Port

PortsTaken = Mapping[tuple[str, int], tuple[str, ...]]
_EVERY_ADDRESS = ("", "0.0.0.0", "::")


def port_clash(wanted: Iterable[Port], taken: PortsTaken) -> Port | None:
    """The first wanted port that is taken, or None."""
    for port in wanted:
        addresses = taken.get((port.protocol, port.host_port))
        if addresses and any(_overlap(port.host_ip, address) for address in addresses):
            return port
    return None


def _overlap(one: str, other: str) -> bool:
    return one == other or one in _EVERY_ADDRESS or other in _EVERY_ADDRESS


def take_ports(taken: dict[tuple[str, int], tuple[str, ...]], ports: Iterable[Port]) -> None:
    """Add `ports` to `taken`, in place."""
    for port in ports:
        key = (port.protocol, port.host_port)
        taken[key] = (*taken.get(key, ()), port.host_ip)


def release_ports(taken: dict[tuple[str, int], tuple[str, ...]], ports: Iterable[Port]) -> None:
    """Take `ports` out of `taken`, in place. They must be there."""
    for port in ports:
        key = (port.protocol, port.host_port)
        addresses = list(taken[key])
        addresses.remove(port.host_ip)
        if addresses:
            taken[key] = tuple(addresses)
        else:
            del taken[key]
