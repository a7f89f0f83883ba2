"""A simulated node follows the cluster's secret, as `drivers.keys` does; the rejoin handshake is not simulated.

A secret is told by the fingerprint of its authority and stands for itself: what it seals is not simulated, only who has it. The
data folder is written in one step that takes a moment; a daemon that dies meanwhile has not written. Nothing happens, and
nothing is drawn, while the log knows of no rotation.

Promise: what a host holds changes in whole steps, and an answer is given only for what is on its disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from swarm.model.command import AckSecret, RotateSecret
from swarm.model.entry import Entry
from swarm.model.ids import NodeId, RequestId, random_id
from swarm.model.outcome import Applied
from swarm.model.secret import Authority, SealedSecret, Secrets, ack_of, wants
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Outcome, Replica
from swarm.simulation.submit import Forwarding

FOUNDING = hashlib.sha256(b"founding").digest()
WRITE_S = (0.001, 0.05)
"""Least and most that a change of the data folder takes."""
RETRY_S = 1.0
ACK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class HeldSecrets:
    """A host's cluster.json, as far as it is about secrets. Invariant: `sends` is among `held`."""

    held: frozenset[bytes] = frozenset({FOUNDING})
    sends: bytes = FOUNDING


class Keys:
    """On every daemon. `read` and `write` are its host's data folder."""

    def __init__(
        self,
        daemon: Daemon,
        replica: Replica,
        forwarding: Forwarding,
        read: Callable[[], HeldSecrets],
        write: Callable[[HeldSecrets], None],
    ) -> None:
        self.daemon = daemon
        self.replica = replica
        self.forwarding = forwarding
        self._read = read
        self._write = write
        self._rng = daemon.world.random(f"keys/{daemon.host_number}/{daemon.life}")
        self._seen = Secrets()
        self._busy = False
        replica.on_applied.append(self._on_applied)

    def rotation(self, reason: str = "", remove: str = "") -> RotateSecret:
        """What this node would propose to bring in a new secret."""
        catalog = self.replica.catalog
        number = catalog.secrets.newest + 1
        name = hashlib.sha256(random_id(self._rng).encode()).digest()
        sealed = tuple(SealedSecret(node_id, b"sealed") for node_id in sorted(catalog.nodes) if node_id != remove)
        return RotateSecret(number, _authority(name), _authority(self._read().sends), sealed, NodeId(remove), reason)

    def _on_applied(self, entries: tuple[Entry, ...], results: tuple[Applied, ...], restored: bool) -> None:
        if self.replica.catalog.secrets is not self._seen:
            self._seen = self.replica.catalog.secrets
            self._follow()

    def _follow(self) -> None:
        """Write the next step, if there is one; else answer."""
        if self._busy:
            return
        secrets, mine = self.replica.catalog.secrets, self._read()
        todo = wants(secrets, held=mine.held, sends=mine.sends)
        if todo.missing:
            after = HeldSecrets(mine.held | {record.authority.fingerprint for record in todo.missing}, mine.sends)
        else:
            after = HeldSecrets(mine.held - frozenset(todo.forget), todo.send or mine.sends)
        if after != mine:
            self._busy = True
            self.daemon.later(self._rng.uniform(*WRITE_S), None, self._written, after)
            return
        ack = ack_of(secrets, self.daemon.node_id, held=mine.held, sends=mine.sends)
        if ack is not None:
            self._busy = True
            command = AckSecret(ack.node_id, ack.holds, ack.sends)
            request_id = RequestId(random_id(self._rng))
            self.forwarding.submit(command, request_id, ACK_TIMEOUT_S, self._answered)

    def _written(self, after: HeldSecrets) -> None:
        self._write(after)
        self._busy = False
        self._follow()

    def _answered(self, outcome: Outcome) -> None:
        self._busy = False
        if isinstance(outcome, Exception):
            self.daemon.later(RETRY_S, None, self._follow)
        else:
            self._follow()


def _authority(name: bytes) -> Authority:
    return Authority(name, b"certificate of " + name)
