"""This node's own removal: learned from its log or from members that refuse it, kept over restarts, told to the runner.

A removed node is cut off, and often away when it happens. Its tasks run elsewhere by then; so what it knows of its removal
outlives the daemon, and stands between the runner and every start.

What others say stops containers only when those who say so are, without this node, a majority of the members it knows: then the
ones whose logs admit it, and those it is connected to, cannot be one. What the disk remembers is at most `TOLD`: a daemon that
starts may belong to another recovery generation than the one before it, so it asks again before it stops anything.

Promises: in one life of the daemon what is known never becomes less but by a leader's answer, which no node gets in the recovery
that removed it (`may_be_wrong`, `revoke`; `drivers.rejoin` says which leader counts); what the log here says is final. A disk
that refuses is tried again at the next sign.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from swarm.errors import Conflict, NoMember, Unavailable
from swarm.model.removal import Removal

LOG = logging.getLogger("swarm.node")
ADVICE = "swarm reset on this host, then join it anew"


def removal_said(members_known: int, saying_so: int) -> Removal:
    """What `saying_so` of the `members_known`, this node among them, make of it. This node does not count itself: it would make
    one member of three enough."""
    if saying_so == 0:
        return Removal.NONE
    return Removal.CERTAIN if 2 * saying_so > members_known else Removal.TOLD


class OwnRemoval:
    """`known` is what this node goes by; `save` makes it durable (raises `Unavailable`), `tell` is the runner's input."""

    def __init__(self, known: Removal, save: Callable[[Removal], Awaitable[None]], tell: Callable[[Removal], None]) -> None:
        self.known = known
        self._saved = known
        self._save = save
        self._tell = tell
        self._in_log = False

    @property
    def may_be_wrong(self) -> bool:
        """Only others have said so: a leader's answer would show that they are mistaken, or that a recovery undid it."""
        return self.known is not Removal.NONE and not self._in_log

    @property
    def is_unsaved(self) -> bool:
        """The disk still has something else, where that matters."""
        return self._saved is not self.known and not self._in_log

    @property
    def certain(self) -> bool:
        """Nothing that this node holds is its own any more."""
        return self.known is Removal.CERTAIN

    def refuse_admission(self, name: str) -> None:
        """Raises `NoMember`: nobody can join through a node that is no member."""
        if self.known:
            raise NoMember(f"{name} was removed from its cluster", hint="name another member with --peers")

    def refuse_recovery(self) -> None:
        """Raises `Conflict`: what was removed would begin a second cluster beside the one it was removed from."""
        if self.known:
            cause = "the log or most members say so" if self.known is Removal.CERTAIN else "a member in reach says so"
            hint = f"run it on a node that is a member; on this one {ADVICE}"
            raise Conflict("cannot recover here: this node was removed from the cluster", cause=cause, hint=hint)

    def read_in_log(self, removed: bool) -> None:
        """Whether the log here has this node removed. It is read again at every start, so this needs no mark."""
        if removed:
            self._in_log = True
            self._set(Removal.CERTAIN)

    async def learn(self, said: Removal) -> None:
        """Members that refuse this node say so."""
        if said is Removal.CERTAIN or self.known is Removal.NONE:
            self._set(said)
        await self._keep()

    async def revoke(self) -> None:
        """A leader answered this node, so it is a member."""
        if self.may_be_wrong:
            LOG.warning("a leader answers this node: it was not removed, or that was undone by a recovery")
            self._set(Removal.NONE)
        if self.is_unsaved:
            await self._keep()

    def _set(self, known: Removal) -> None:
        if known is self.known:
            return
        self.known = known
        if known is Removal.CERTAIN:
            LOG.error("this node was removed from the cluster: it stops what it runs, which runs elsewhere; %s", ADVICE)
        elif known is Removal.TOLD:
            LOG.warning("a member says that this node was removed: nothing is started here unless a leader says otherwise")
        self._tell(known)

    async def _keep(self) -> None:
        if self._saved is not self.known:
            try:
                await self._save(self.known)
            except Unavailable:
                return  # said there
            self._saved = self.known
