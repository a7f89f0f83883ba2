"""How a node comes to belong to a cluster: it has data, founds alone, founds together with others, or joins.

Together, sets are of node ids, not of addresses. Each node greets every address it was given, again and again; one that answers
with its own id is itself. When all have answered, none has a cluster, and all of them have met exactly the same set, the lowest
id proposes entry 1 (`decide`). A node that finds a member of a cluster joins it; a founder that missed the proposal (a crash, a
cut) finds itself in entry 1 and takes it over byte for byte.

The proposer puts the entry on its own disk before it shows it to anybody, and everybody grants one founding only: two different
foundings of the same set cannot both gather anybody.

Promises: a founding that `settle` returns is on disk (what joining taught is the caller's to keep);
nobody founds while any address is unheard; two clusters are never merged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from swarm.drivers.boot import Belonging, Desk, ask, belonging_of, voters_of
from swarm.drivers.joining import SAY_EVERY_S, join
from swarm.drivers.presence import displaced
from swarm.errors import BadMessage, PeerError, StartRefused, Unauthenticated
from swarm.model.command import Found
from swarm.model.entry import KIND_FOUND, Entry
from swarm.model.ids import ClusterId, NodeId, random_id
from swarm.model.node import Node
from swarm.ports import Clock, Dialer
from swarm.wire import codec
from swarm.wire.boot import BOOT_VERSION, Granted, Greeting, Propose, Refused, Reply

GREET_EVERY_S = 0.5
"""Between greetings of one address, times 0.5 to 1.5: founding takes about two rounds; each costs a handshake, some 3 ms."""
GREETED_OFTEN_MAX = 20
"""With more addresses than these each is greeted more rarely, so that a node sends no more than some 40 greetings a second."""
GREETINGS_AT_ONCE = 8
"""More wait. Where hosts have too few processors for everybody's handshakes, so many are done in time: with all at once, 51 nodes
on two cores, many took longer than their 5 s, round after round. Fewer: a round past addresses that are off, 1.5 s each, is
longer."""
FIRST_SAY_S = 2.0
"""When a node first says whom it lacks; then every `SAY_EVERY_S`."""
FIRST_RECOVERY_GENERATION = 0

View = Greeting | PeerError | None
"""What an address last answered; None before its first answer."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet, and why: one line per address."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProposeFounding:
    """This node is the lowest: found with these, itself included, sorted by id."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class JoinCluster:
    """Some of the addresses belong to this cluster. `found` is its entry 1 when one of them could show it."""

    cluster_id: ClusterId
    addresses: tuple[str, ...]
    found: bytes = field(repr=False, default=b"")


Decision = Wait | ProposeFounding | JoinCluster


def check_start(*, has_cluster: bool, has_token: bool, has_peers: bool, found: bool, witness: bool) -> None:
    """Raise `StartRefused` where what was given does not say what to do. A node with a cluster just goes on with it."""
    if has_cluster:
        return
    if witness and not has_peers:
        raise StartRefused(
            "a witness cannot found a cluster",
            cause="nobody in it could run anything",
            hint="give --peers and --token-file of the one that it is to vote in",
        )
    if has_peers and not has_token:
        raise StartRefused(
            "cannot join or found with others without the token",
            cause="--peers was given, but neither --token-file nor SWARM_TOKEN",
            hint="run 'swarm token show' on a member, or 'swarm token new' once for a new cluster",
        )
    if has_token and not has_peers and not found:
        raise StartRefused(
            "a token, but no peers and no data: this node would found a cluster of its own",
            cause="a token is for joining others",
            hint="add --peers ADDRESS to join, or --found to found a cluster with this token",
        )


def decide(me: Node, views: Mapping[str, View]) -> Decision:
    """What the answers so far amount to. Raises `StartRefused` when they name two clusters."""
    there = {address: view for address, view in views.items() if isinstance(view, Greeting) and view.node.id != me.id}
    clusters = sorted({view.cluster_id for view in there.values() if view.cluster_id})
    if len(clusters) > 1:
        named = [f"{address} to {view.cluster_id}" for address, view in there.items() if view.cluster_id]
        raise StartRefused(
            "the peers belong to different clusters",
            cause=", ".join(named),
            hint="give the addresses of one cluster with --peers",
        )
    if clusters:
        unheard = tuple(f"{address}: {_lack(view)}" for address, view in views.items() if view is None)
        if unheard:  # each address is heard out once, or found unreachable: it may belong to another cluster
            return Wait(unheard)
        members = {address: view for address, view in there.items() if view.cluster_id}
        shown = [view.found for view in members.values() if view.found]
        return JoinCluster(clusters[0], tuple(members), shown[0] if shown else b"")
    return _decide_founding(me, views, there)


def _decide_founding(me: Node, views: Mapping[str, View], there: Mapping[str, Greeting]) -> Decision:
    by_id = {me.id: me} | {view.node.id: view.node for view in there.values()}
    known = tuple(sorted(by_id))
    reasons = [f"{address}: {_lack(view)}" for address, view in views.items() if not isinstance(view, Greeting)]
    reasons += [f"{address}: {why}" for address, view in there.items() if (why := _difference(view, by_id))]
    if len(by_id) == 1 and not reasons:
        reasons = ["every address given is this node's own: add the others', or start without --peers"]
    reasons += _equal_names(by_id)
    if reasons:
        return Wait(tuple(reasons))
    if known[0] != me.id:
        lowest = by_id[known[0]]
        return Wait((f"all {len(known)} have met; {lowest.name} ({lowest.address}) founds the cluster",))
    return ProposeFounding(tuple(by_id[node_id] for node_id in known))


def _equal_names(by_id: Mapping[NodeId, Node]) -> list[str]:
    """Names are unique in a cluster; who shares one cannot be founded with."""
    names = [node.name for node in by_id.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"more than one of these nodes is named {name!r}: start all but one with another --name" for name in twice]


def known_ids(me: Node, views: Mapping[str, View]) -> tuple[tuple[NodeId, ...], bool]:
    """Whom this node has met, itself included, sorted; and whether every address has answered."""
    met = {view.node.id for view in views.values() if isinstance(view, Greeting)} | {me.id}
    return tuple(sorted(met)), all(isinstance(view, Greeting) for view in views.values())


def refuse_wrong_token(me: Node, views: Mapping[str, View], *, late: bool) -> None:
    """Raise `StartRefused` when every other address refuses our token, or (when it is late) some do and nobody greets us."""
    others = {address: view for address, view in views.items() if not (isinstance(view, Greeting) and view.node.id == me.id)}
    refusing = {address: view for address, view in others.items() if isinstance(view, Unauthenticated)}
    greeted = any(isinstance(view, Greeting) for view in others.values())
    if refusing and (len(refusing) == len(others) or (late and not greeted)):
        address, error = next(iter(refusing.items()))
        raise StartRefused(
            f"peer {address} does not accept this token",
            cause=str(error),
            hint="compare it with 'swarm token show' on that host; both must hold the token of the same cluster",
        )


def _lack(view: PeerError | None) -> str:
    return "not answered yet" if view is None else str(view)


def _difference(view: Greeting, mine: Mapping[NodeId, Node]) -> str:
    """How the set that a peer has met differs from ours; empty when it does not."""
    more = [node_id[:8] for node_id in view.known if node_id not in mine]
    less = [node.name for node_id, node in sorted(mine.items()) if node_id not in view.known]
    if more:
        return f"{view.node.name} has met nodes that are not among these peers: {', '.join(more)}"
    if less:
        return f"{view.node.name} has not met {', '.join(less)}"
    return "" if view.complete else f"{view.node.name} is waiting for an address of its own list"


class Founding:
    """Greets, decides, proposes. Its desk must be served on the peer port meanwhile."""

    def __init__(
        self,
        desk: Desk,
        addresses: Sequence[str],
        *,
        dialer: Dialer,
        clock: Clock,
        rng: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self._desk = desk
        self._me = desk.me
        self._views: dict[str, View] = dict.fromkeys(addresses)
        self._dialer = dialer
        self._clock = clock
        self._rng = rng
        self._say = say
        self._greet_every_s = GREET_EVERY_S * max(1.0, len(addresses) / GREETED_OFTEN_MAX)
        self._greetings = trio.CapacityLimiter(GREETINGS_AT_ONCE)
        self._news = trio.Event()
        desk.on_displaced = self._tell_news

    async def settle(self) -> Belonging:
        """Return once this node belongs to a cluster. Raises `StartRefused`. Without addresses, founds a cluster of one."""
        if not self._views and self._desk.belonging is None:
            return await self._propose((self._me,))
        async with trio.open_nursery() as nursery:
            for address in self._rng.sample(list(self._views), len(self._views)):  # not everybody the same one first
                nursery.start_soon(self._greet_for_ever, address)
            refused: StartRefused | None = None
            try:
                belonging = await self._decide_until_settled()
            except StartRefused as error:
                refused = error
            nursery.cancel_scope.cancel()
        if refused is not None:
            raise refused
        return belonging

    async def _decide_until_settled(self) -> Belonging:
        say_at = trio.current_time() + FIRST_SAY_S
        while self._desk.belonging is None:
            if self._desk.refusal is not None:
                raise self._desk.refusal
            decision = decide(self._me, self._views)
            match decision:
                case JoinCluster():
                    await self._enter(decision)
                case ProposeFounding(nodes=nodes):
                    return await self._propose(nodes)
                case Wait(reasons=reasons):
                    late = trio.current_time() >= say_at
                    refuse_wrong_token(self._me, self._views, late=late and None not in self._views.values())
                    if late:
                        self._say("waiting to found or join a cluster: " + "; ".join(reasons))
                        say_at = trio.current_time() + SAY_EVERY_S
                    with trio.move_on_at(say_at):
                        await self._news.wait()
        return self._desk.belonging

    async def _enter(self, decision: JoinCluster) -> None:
        if decision.found and self._is_founder(decision.found):
            await self._desk.grant(decision.found)
            return
        joined = await join(
            self._dialer, decision.addresses, self._me, decision.cluster_id, rng=self._rng, say=self._say
        )
        self._desk.settle(joined)

    def _is_founder(self, found_bytes: bytes) -> bool:
        try:
            nodes = belonging_of(found_bytes).nodes
        except BadMessage:
            return False
        return any(node.id == self._me.id and node.fingerprint == self._me.fingerprint for node in nodes)

    async def _propose(self, nodes: tuple[Node, ...]) -> Belonging:
        """Own disk first, then everybody's, once: whoever is missed now takes the entry over when it greets."""
        found = Found(ClusterId(random_id(self._rng)), nodes, voters_of(nodes))
        payload = codec.encode(found)
        entry = Entry(1, 1, KIND_FOUND, 1, payload, FIRST_RECOVERY_GENERATION, self._clock.utc())
        belonging = await self._desk.grant(codec.encode(entry))
        async with trio.open_nursery() as nursery:
            for address, view in self._views.items():
                if isinstance(view, Greeting) and view.node.id != self._me.id:
                    nursery.start_soon(self._show, address, belonging.found)
        return belonging

    async def _show(self, address: str, found_bytes: bytes) -> None:
        try:
            reply: Reply | PeerError = await ask(self._dialer, address, Propose(BOOT_VERSION, self._me.id, found_bytes))
        except PeerError as error:
            reply = error
        if isinstance(reply, Refused):
            self._say(f"{address} did not grant the founding: {reply.message}")
        elif not isinstance(reply, Granted):
            self._say(f"{address} has not granted the founding yet: {reply}")

    async def _greet_for_ever(self, address: str) -> None:
        while True:
            view: View
            try:
                async with self._greetings:
                    reply = await ask(self._dialer, address, self._desk.question())
                view = reply if isinstance(reply, Greeting) else PeerError(getattr(reply, "message", "an unfitting answer"))
                if isinstance(view, Greeting) and self._desk.is_twin(view):
                    view = self._on_twin(address, view)
            except PeerError as error:
                view = error
            self._views[address] = view
            self._desk.known, self._desk.complete = known_ids(self._me, self._views)
            self._tell_news()
            with trio.move_on_after(self._greet_every_s * self._rng.uniform(0.5, 1.5)):
                await self._desk.settled.wait()
                self._tell_news()
                return

    def _on_twin(self, address: str, twin: Greeting) -> PeerError:
        """This node's own id answers there, and it is not this daemon: one of the two data folders is a copy."""
        if twin.elder:
            self._desk.displace(displaced(self._me, address, twin.running_s))
        return PeerError("a second daemon with this node's own identity, whose data folder is a copy: it has to go")

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()
