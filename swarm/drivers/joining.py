"""Asking to be admitted: any member passes the request to the leader, the log decides, the answer names cluster and nodes.

While there is no leader in reach the asker waits and tries the next member; a refusal that waiting cannot change ends the start.

Promise: `join` returns only after the admission was committed and applied where it was asked.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import trio

from swarm.drivers.boot import JOIN_S, Belonging, ask
from swarm.errors import NoMember, Overloaded, PeerError, StartRefused, Unavailable, UnknownOutcome
from swarm.model.ids import ClusterId
from swarm.model.node import Node
from swarm.ports import Dialer
from swarm.wire.boot import BOOT_VERSION, Join, Refused, Welcome

LOG = logging.getLogger("swarm.node")
RETRY_S = 0.5
"""Between rounds over all members, times 0.5 to 1.5. An election takes about a second."""
SAY_EVERY_S = 10.0
REFUSED_PAUSE_S = 10.0
_PASSING = {Unavailable.code, UnknownOutcome.code, Overloaded.code}
"""Refusals that time may change. Asking again is harmless: a node is admitted at most once."""


async def join(
    dialer: Dialer,
    addresses: Sequence[str],
    me: Node,
    cluster_id: ClusterId,
    *,
    rng: random.Random,
    say: Callable[[str], None],
) -> Belonging:
    """Be admitted through any of these members. Raises `StartRefused`; waits as long as there is no leader. One that was removed
    itself is asked no more; when all were, that ends the start."""
    said_at, members = -SAY_EVERY_S, list(addresses)
    while True:
        for address in list(members):
            try:
                reply = await ask(dialer, address, Join(BOOT_VERSION, me), timeout_s=JOIN_S)
            except PeerError as error:
                reason = f"{address}: {error}"
            else:
                if isinstance(reply, Welcome) and reply.cluster_id == cluster_id:
                    return Belonging(reply.cluster_id, reply.recovery_generation, b"", reply.nodes)
                if isinstance(reply, Refused) and reply.code == NoMember.code and len(members) > 1:
                    members.remove(address)
                    say(f"{address} is no member of the cluster any more, and is not asked again")
                    continue
                reason = f"{address}: {_why_to_wait(address, reply, cluster_id)}"
            if trio.current_time() - said_at >= SAY_EVERY_S:
                said_at = trio.current_time()
                say(f"waiting to be admitted to the cluster {cluster_id}: {reason}")
        await trio.sleep(RETRY_S * rng.uniform(0.5, 1.5))


async def join_again(
    dialer: Dialer, addresses: Sequence[str], me: Node, cluster_id: ClusterId, *, rng: random.Random
) -> None:
    """Be admitted again after having left. Takes at most `JOIN_S`; a refusal is said, and waited for before it returns."""
    with trio.move_on_after(JOIN_S):
        try:
            await join(dialer, addresses, me, cluster_id, rng=rng, say=LOG.info)
        except StartRefused as refused:
            LOG.warning("%s: %s", refused.message, refused.cause or refused.hint)
            await trio.sleep(REFUSED_PAUSE_S)


def _why_to_wait(address: str, reply: object, cluster_id: ClusterId) -> str:
    """The reason of a refusal that may pass. Raises `StartRefused` for one that will not."""
    match reply:
        case Refused(code=code, message=message, cause=cause) if code in _PASSING:
            return f"{message}: {cause}" if cause else message
        case Refused(code=NoMember.code):
            raise StartRefused(
                f"{address} is no member of its cluster any more: it was removed",
                hint="name another peer, and take the join token there (swarm token show): the removal made it another",
            )
        case Refused(message=message, cause=cause, hint=hint):
            raise StartRefused(f"{address} refused to admit this node: {message}", cause=cause, hint=hint)
        case Welcome(cluster_id=other):
            raise StartRefused(
                f"{address} belongs to the cluster {other}, not to {cluster_id}",
                hint="give the addresses of one cluster with --peers",
            )
        case _:
            return "an answer that fits no question"
