"""What is asked of membership at any size, each question one function: how fast news spreads, what it costs, who is wronged.

Benchmarks ask them at full size, tests at small size. Each is a pure function of its arguments.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from swarm.membership import Config, MemberChanged, MemberIdentity
from swarm.model.liveness import MemberStatus
from swarm.simulation.gossip_member import NEVER, AnyCore, Conditions, Core, MakeCore, Member
from swarm.simulation.gossip_only import GossipOnly
from swarm.simulation.plain_swim import PlainSwim

SETTLED_S = 1.0
"""Everybody's rounds are under way."""


def settled(crowd: GossipOnly) -> None:
    """A calm cluster."""
    crowd.introduce()
    crowd.run(SETTLED_S)


# ---- news -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds from one member's news until all members know, and until 99.99 % do; infinite when they did not."""

    all_s: float
    nearly_all_s: float


def spread(count: int, *, loss: float, seed: int, at_most_s: float = 60.0, config: Config | None = None) -> Spread:
    """One member raises its incarnation (it announces a pause): when does everybody know?"""
    crowd = GossipOnly(count, seed=seed, config=config, conditions=Conditions(loss=loss))
    settled(crowd)
    teller = 1 + seed % count
    subject = crowd.members[teller].node_id
    news = crowd.members[teller].core.incarnation_of(subject) + 1
    heard: dict[int, float] = {}

    def told(observer: Member, change: MemberChanged) -> None:
        if change.new.node_id == subject and change.new.incarnation >= news:
            heard.setdefault(observer.number, crowd.now)

    crowd.on_change.append(told)
    began = crowd.now
    crowd.intend(teller, _announce)
    crowd.run_until(lambda: len(heard) == count, at_most_s=at_most_s)
    times = sorted(at - began for at in heard.values())
    nearly = math.ceil(0.9999 * count)
    return Spread(times[-1] if len(times) == count else NEVER, times[nearly - 1] if len(times) >= nearly else NEVER)


def _announce(core: AnyCore, now: float) -> None:
    assert isinstance(core, Core)
    core.pause(now + 60.0, now)


# ---- bytes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traffic:
    """Per member and second: sealed bytes sent, by the mean member and the busiest, packets, and bytes with IP and UDP."""

    mean: float
    busiest: float
    packets: float


def traffic(count: int, *, seconds: float, seed: int, settle_s: float = 5.0) -> Traffic:
    """A calm cluster, samples included."""
    crowd = GossipOnly(count, seed=seed)
    crowd.introduce()
    crowd.run(settle_s)
    before = {number: member.bytes_sent for number, member in crowd.members.items()}
    packets = sum(member.packets_sent for member in crowd.members.values())
    crowd.run(seconds)
    sent = [(member.bytes_sent - before[number]) / seconds for number, member in crowd.members.items()]
    after = sum(member.packets_sent for member in crowd.members.values())
    return Traffic(sum(sent) / count, max(sent), (after - packets) / count / seconds)


# ---- churn ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Churned:
    """What became of a cluster of which some died, left, joined and restarted. `agreed_after_s`: from the last of it."""

    agreed_after_s: float
    happened: Counter[str] = field(default_factory=Counter)
    false_deaths: int = 0


def churn(crowd: GossipOnly, *, seconds: float, share: float, seed: int, at_most_s: float = 120.0) -> Churned:
    """`share` of the members, spread over the time, have a power cut, leave, or are new; all must agree in the end."""
    found = Churned(NEVER)
    rng = random.Random(seed)
    wronged = FalseDeaths(crowd)
    turns = round(share * len(crowd.members))
    for turn in range(turns):
        crowd.run(seconds / turns)
        kind = ("cut", "leave", "join")[turn % 3]
        found.happened[kind] += 1
        if kind == "join":
            crowd.join()
        else:
            number = rng.choice([member.number for member in crowd.living()])
            (crowd.kill_host if kind == "cut" else crowd.leave)(number)
    found.agreed_after_s = crowd.run_until(crowd.agreed, at_most_s=at_most_s, every_s=0.5)
    found.false_deaths = sum(wronged.counts.values())
    return found


# ---- false deaths ---------------------------------------------------------------------------------------------------


class FalseDeaths:
    """Counts every time a member called another dead that was not: by whether the observer and the subject are overloaded."""

    def __init__(self, crowd: GossipOnly) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """(observer, subject), each `healthy` or `overloaded`."""
        self._crowd = crowd
        crowd.on_change.append(self._told)

    @property
    def of_healthy(self) -> int:
        """Healthy members called dead, by anybody."""
        return sum(count for (_, subject), count in self.counts.items() if subject == "healthy")

    @property
    def of_overloaded(self) -> int:
        """Overloaded members called dead by healthy ones."""
        return self.counts["healthy", "overloaded"]

    def _told(self, observer: Member, change: MemberChanged) -> None:
        new = change.new
        if new.status is not MemberStatus.DEAD or (change.old is not None and change.old.status is MemberStatus.DEAD):
            return
        subject = self._crowd.members[int(new.node_id, 16)]
        if subject.power and subject.daemon and new.generation == subject.generation:
            self.counts[_word(observer), _word(subject)] += 1


def _word(member: Member) -> str:
    return "overloaded" if member.overloaded else "healthy"


def false_deaths(count: int, *, overloaded: int, seconds: float, seed: int, make_core: MakeCore | None = None) -> FalseDeaths:
    """Some members handle every input 1 to 30 s late, from a calm start on."""
    crowd = GossipOnly(count, seed=seed, make_core=make_core, conditions=Conditions(sample_every_s=0.0))
    settled(crowd)
    wronged = FalseDeaths(crowd)
    for number in random.Random(seed).sample(sorted(crowd.members), overloaded):
        crowd.overload(number)
    crowd.run(seconds)
    return wronged


def plain_swim(suspicion_s: float) -> Callable[[MemberIdentity, Config, random.Random, float], AnyCore]:
    """Makes members that are compared with."""

    def make(identity: MemberIdentity, config: Config, rng: random.Random, now: float) -> AnyCore:
        return PlainSwim(identity, config, rng, now, suspicion_s=suspicion_s)

    return make


# ---- splits ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Healed:
    """Seconds from the healing until all agreed, and how often somebody was called dead after it."""

    agreed_after_s: float
    deaths_after: int


def healed_split(one: int, other: int, *, seconds: float, seed: int, at_most_s: float = 600.0) -> Healed:
    """Two parts do not reach each other for so long. Asserts that they parted; watched for half a minute after they agreed."""
    crowd = GossipOnly(one + other, seed=seed, conditions=Conditions(sample_every_s=0.0))
    settled(crowd)
    crowd.split([range(1, one + 1), range(one + 1, one + other + 1)])
    crowd.run(seconds)
    assert all(len(member.core.alive_ids()) == (one if member.number <= one else other) for member in crowd.living())
    wronged = FalseDeaths(crowd)
    crowd.heal()
    agreed_after_s = crowd.run_until(crowd.agreed, at_most_s=at_most_s, every_s=0.1)
    crowd.run(30.0)
    return Healed(agreed_after_s, sum(wronged.counts.values()))
