"""One identity, two daemons: a copied disk. The younger of them ends.

Two hosts that hold one id and one key are one member to everybody else: they take each other's streams, their packets look like
replays of each other, and two voters share one vote. So whenever something says that this identity lives at another address,
this daemon asks there, at the desk, naming its own run and how long it has lasted. The one that is asked decides (`presence`),
and each obeys: the answer tells the asker, the desk tells itself.

Asked about: the address that the data folder names, before the start goes on; the one that the log names, before this node
declares another; the one in any claim of gossip (`membership.claims`). A host that moved finds nobody at its old address.

Promises: only a daemon that proved to hold this node's key counts; nobody is displaced by a daemon out of reach, nor by itself;
containers are not touched.
"""

from __future__ import annotations

import logging

import trio

from swarm.drivers.boot import Desk, ask
from swarm.drivers.presence import displaced
from swarm.errors import PeerError
from swarm.ports import Dialer
from swarm.wire.boot import Greeting

LOG = logging.getLogger("swarm.twins")
WAITING_MAX = 16
"""Addresses to be asked at; more are dropped, and suspected again."""


class Twins:
    """Asks, and raises in `run` what ends this daemon when it is the younger."""

    def __init__(self, desk: Desk, dialer: Dialer) -> None:
        self._desk, self._dialer = desk, dialer
        self._waiting: dict[str, None] = {}
        self._wake = trio.Event()
        desk.on_displaced = lambda: self._wake.set()

    def suspect(self, address: str) -> None:
        """Something says that this identity lives there. Never waits."""
        if address != self._desk.me.address and len(self._waiting) < WAITING_MAX:
            self._waiting[address] = None
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, or until an elder daemon is found: then it raises `IdentityTaken`."""
        task_status.started()
        while True:
            while self._waiting:
                await self.elder_at(next(iter(self._waiting)))
            if self._desk.refusal is not None:
                raise self._desk.refusal
            self._wake = trio.Event()
            await self._wake.wait()

    async def elder_at(self, address: str) -> bool:
        """Whether an elder daemon with this identity runs there; this one is about to end then. Takes 10 s at most."""
        self._waiting.pop(address, None)
        desk = self._desk
        try:
            reply = await ask(self._dialer, address, desk.question())
        except PeerError as error:
            LOG.info("nobody shows this node's identity at %s: %s", address, error)
            return False
        if not isinstance(reply, Greeting) or not desk.is_twin(reply):
            return False
        if not reply.elder:
            LOG.warning("a second daemon with this node's identity at %s has to end: it is the younger", address)
            return False
        desk.displace(displaced(desk.me, address, reply.running_s))
        return True
