"""How a daemon ends: who asked for what, and what is done about it.

It pauses or leaves for good, as whoever asks first decides; or it begins anew, because its log is to be another
(`drivers.recovery`). A pause comes before beginning anew, for the next start does that anyway. A leave does not: it cannot be
finished in a recovery generation that is over, whose members answer no more. It is broken off then, the daemon begins anew, and
leaves as a member of what the cluster is now. The wish goes from one process image to the next in the environment, not in the
data folder: it dies with the process, so that a host that is started again some day does not leave by surprise.
"""

from __future__ import annotations

import logging
import os
from typing import Literal, Protocol

import trio

LOG = logging.getLogger("swarm.node")
LEAVING = "SWARM_LEAVES_AFTER_RECOVERY"
Stop = Literal["pause", "leave", "again", "leave again"]


class Goes(Protocol):
    """The two ways out that others are told of (`drivers.departure`)."""

    async def pause(self) -> None: ...
    async def leave(self) -> None: ...


class Stopping:
    """Asked by anybody, carried out once. `wanted` is set when the daemon is to end."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self._kind: Literal["pause", "leave"] | None = None
        self._again = trio.Event()

    @property
    def is_leaving(self) -> bool:
        """Whether this node is on its way out for good."""
        return self._kind == "leave"

    def request(self, kind: Literal["pause", "leave", "again"]) -> None:
        """Ask the daemon to end."""
        if kind == "again":
            self._again.set()
        elif self._kind is None:
            self._kind = kind
        self.wanted.set()

    async def carry_out(self, departure: Goes) -> Stop:
        """Go, and say how. `again` and `leave again`: the program is to be started once more."""
        LOG.info("stopping: %s; containers run on", self._kind or "again")
        if self._kind == "leave" and await self._leave(departure):
            return "leave"
        await departure.pause()
        return "leave again" if self._kind == "leave" else self._kind or "again"

    async def _leave(self, departure: Goes) -> bool:
        """False when it was broken off."""
        has_left = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_again, nursery.cancel_scope)
            await departure.leave()
            has_left = True
            nursery.cancel_scope.cancel()
        if not has_left:
            LOG.warning("the cluster was recovered while this node was leaving: it begins anew there, and leaves then")
        return has_left

    async def _watch_again(self, scope: trio.CancelScope) -> None:
        await self._again.wait()
        scope.cancel()


def remember_leaving(ended: Stop) -> None:
    """For the process image that comes next."""
    if ended == "leave again":
        os.environ[LEAVING] = "1"


def take_leaving() -> bool:
    """Whether the image before this one was leaving; said once."""
    return os.environ.pop(LEAVING, "") == "1"
