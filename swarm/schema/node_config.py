"""What `swarm up` was told, from options and environment, checked: the one argument of `swarm.node.run`."""

from __future__ import annotations

import os
from dataclasses import dataclass

PEER_PORT = 4747
"""UDP gossip and TCP peers."""
API_PORT = 4748
SOCKET_DEFAULT = "/run/swarm/swarm.sock"
DATA_DEFAULT = "/var/lib/swarm"
VOTER_GIVE_UP_S = 600.0
ENGINE_DEFAULT = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One daemon's configuration. Addresses are `host:port` with the port filled in."""

    name: str
    listen: str = f"0.0.0.0:{PEER_PORT}"
    """Where gossip and peers are received. The API listens on the same host, at `api_listen`."""
    api_listen: str = f"0.0.0.0:{API_PORT}"
    advertise: str = ""
    """`host:port` told to the others; empty: the source address of the route to the first peer."""
    peers: tuple[str, ...] = ()
    data: str = DATA_DEFAULT
    socket: str = SOCKET_DEFAULT
    engine: str = ENGINE_DEFAULT
    labels: tuple[tuple[str, str], ...] = ()
    token: str = ""
    """The join token as given by --token-file or SWARM_TOKEN; empty when none was."""
    found: bool = False
    """Found a cluster although a token was given and there are neither peers nor data."""
    log_level: str = "info"
    history_bytes: int = 256 * 1024 * 1024
    """What the archive of applied entries may take on disk; 0 keeps none."""
    history_days: float = 30.0
    """How old they may become, by the log's time."""
    witness: bool | None = None
    """Vote and hold the log, but run nothing: no engine is needed or asked. None when it was not said: then it is no witness, and
    one that was is refused rather than given work."""
    voter_give_up_s: float = VOTER_GIVE_UP_S
    """After so many seconds of silence a dead voter that nobody can replace is a voter no more. The leader's counts."""

    @property
    def socket_folder(self) -> str:
        """Where the socket lives; made with mode 0755 when missing."""
        return os.path.dirname(self.socket) or "."
