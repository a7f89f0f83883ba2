"""The simulated rows of membership's page: real cores on virtual time, so what is counted does not depend on this machine.

Each function answers one question of `swarm.simulation.gossip_trials` at full size and tells it as a section.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.simulation.gossip_member import MakeCore
from swarm.simulation.gossip_only import GossipOnly
from swarm.simulation.gossip_sizes import IP_UDP_BYTES
from swarm.simulation.gossip_trials import churn, false_deaths, healed_split, plain_swim, settled, spread, traffic
from testnet.bench.figures import Aim, Figures, Section

SIMULATED = "Simulated: real cores, virtual time."


# ---- convergence ----------------------------------------------------------------------------------------------------


def serf_model_s(count: int, loss: float, *, interval_s: float = 0.2, fanout: int = 3) -> float:
    """Until 99.99 % know by the formula of Serf's convergence simulator, in whole rounds of gossip."""
    contact = fanout / count * (1 - loss) / 2
    rounds = math.log(0.9999 * (count + 1) / 0.0001) / (contact * count)
    return math.ceil(rounds) * interval_s


def convergence(runs: int) -> Section:
    section = Section(
        "Convergence of one update",
        f"{SIMULATED} In a calm cluster one member raises its incarnation; the time until every other member knows, each run "
        "with a seed of its own. Serf's model is for 99.99 % of the members, which is everybody here.",
    )
    for count in (10, 100, 1000):
        for loss in (0.0, 0.1, 0.3):
            figures = Figures(f"{count} members, {loss:.0%} loss", "s")
            for seed in range(1, runs + 1):
                figures.add(spread(count, loss=loss, seed=seed).all_s)
            section.figures.append(figures)
            model_s = serf_model_s(count, loss)
            section.aims.append(Aim(f"{figures.name}, the slowest, by Serf's model", figures.percentile(1.0), model_s, "s"))
    section.notes.append(
        "News is passed on at once (20 ms apart at most), and rides on pings and their answers as well; the model waits for the "
        "next of its rounds, 200 ms apart, at each hop."
    )
    return section


# ---- bytes ----------------------------------------------------------------------------------------------------------


def bytes_sent(runs: int) -> Section:
    section = Section(
        "Bytes sent by each member",
        f"{SIMULATED} A calm cluster in which every member measures its load once a second (the processor wanders by up to 5 % a "
        f"second and jumps once in 20 s). Counted is the sealed datagram; IP and UDP add {IP_UDP_BYTES} bytes to each packet.",
    )
    for count, seconds in ((10, 60.0), (100, 60.0), (1000, 20.0)):
        mean = Figures(f"{count} members, the mean member", "kB/s")
        busiest = Figures(f"{count} members, the busiest member", "kB/s")
        packets = Figures(f"{count} members, packets", "per second")
        for seed in range(1, runs + 1):
            found = traffic(count, seconds=seconds, seed=seed)
            mean.add(found.mean / 1000)
            busiest.add(found.busiest / 1000)
            packets.add(found.packets)
        section.figures += [mean, busiest, packets]
        section.aims.append(Aim(f"{count} members, the busiest", busiest.percentile(1.0), 21.0, "kB/s"))
    return section


# ---- scale ----------------------------------------------------------------------------------------------------------


def scale(runs: int, *, count: int = 2000, seconds: float = 600.0, share: float = 0.05) -> Section:
    section = Section(
        f"{count} members with churn",
        f"{SIMULATED} {seconds / 60:.0f} minutes, in which {share:.0%} of the members have a power cut, leave or are new, a "
        "third each, evenly spread. Memory is what this process grew by, for a member's core with its table of all others, "
        "divided by the members; the speed is that of this machine while other work ran on it.",
    )
    agreed = Figures("from the last of it until all agree", "s")
    false = Figures("living members called dead", "times")
    memory = Figures("memory of a member", "kB")
    sent = Figures("sent by a member", "kB/s")
    speed = Figures("members simulated in real time", "members")
    for seed in range(1, runs + 1):
        gc.collect()
        before_kb, began = resident_kb(), time.process_time()
        crowd = GossipOnly(count, seed=seed)
        settled(crowd)
        found = churn(crowd, seconds=seconds, share=share, seed=seed)
        agreed.add(found.agreed_after_s)
        false.add(found.false_deaths)
        memory.add((resident_kb() - before_kb) / count)
        sent.add(sum(member.bytes_sent for member in crowd.members.values()) / count / crowd.now / 1000)
        speed.add(count * crowd.now / (time.process_time() - began))
    section.figures = [agreed, false, memory, sent, speed]
    section.aims = [
        Aim("all agree", agreed.percentile(1.0), 60.0, "s"),
        Aim("nobody wronged", false.percentile(1.0), 0.0, "times"),
    ]
    at_ten_thousand = 10_000 / count * memory.median
    section.notes = [
        f"10,000 members by the model: one update reaches 99.99 % within {serf_model_s(10_000, 0.0):.1f} s by Serf's formula "
        f"(every hop here is quicker, and it takes {math.log(10_000) / math.log(count):.2f} times as many); bytes sent stay as "
        f"they are, since neither the pings nor the rumours of a member grow with N and samples are told in proportion more "
        f"seldom; a table takes {told_kb(at_ten_thousand)} (proportional to N); an exchange of tables is "
        f"{told_kb(10_000 * CLAIM_KB)} each way."
    ]
    return section


CLAIM_KB = 0.11
"""A claim of a member with a name of nine letters, and the seldom sample with it."""


def told_kb(kilobytes: float) -> str:
    return f"{kilobytes / 1000:.1f} MB"


def resident_kb() -> float:
    """Of this process, now."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return float(found[1]) if found else math.nan


# ---- false deaths ---------------------------------------------------------------------------------------------------

HEALTHY = "healthy members called dead"
OVERLOADED = "overloaded members called dead by healthy ones"


def false_deaths_of(overloaded: int, *, seconds: float = 1800.0, count: int = 100) -> Callable[[int], Section]:
    """The measurement with so many overloaded members."""

    def measure(runs: int) -> Section:
        fixed_s = 4 * math.log10(count)
        plain = f"plain SWIM, {fixed_s:.0f} s"
        section = Section(
            f"False deaths: {overloaded} of {count} members overloaded",
            f"{SIMULATED} An overloaded member handles every input 1 to 30 s late, evenly drawn; its own timers run on time, and "
            f"its kernel accepts connects at once. {seconds / 60:.0f} minutes without samples or loss. Every time a member comes "
            "to believe another dead that is not counts. Beside it SWIM without Lifeguard and without evidence, at the same pace "
            f"and with the same timeouts; its suspicion lasts 4 log10(N) seconds ({fixed_s:.0f} s), as memberlist's does at "
            "least.",
        )
        kinds: dict[str, MakeCore | None] = {"ours": None, plain: plain_swim(fixed_s)}
        healthy = {kind: Figures(f"{kind}: {HEALTHY}", "times") for kind in kinds}
        late = {kind: Figures(f"{kind}: {OVERLOADED}", "times") for kind in kinds}
        for seed in range(1, runs + 1):
            for kind, make_core in kinds.items():
                found = false_deaths(count, overloaded=overloaded, seconds=seconds, seed=seed, make_core=make_core)
                healthy[kind].add(found.of_healthy)
                late[kind].add(found.of_overloaded)
        section.figures = [*healthy.values(), *late.values()]
        most, base = healthy["ours"].percentile(1.0), healthy[plain].median
        section.aims = [
            Aim(f"ours: {HEALTHY}", most, 0.0, "times"),
            Aim(f"ours for each one of {plain}", most / base if base else math.nan, 1 / 50, "times"),
        ]
        section.notes = [
            "An overloaded member that has not answered for the whole suspicion may be called stalled, and be wronged by it: it "
            "refutes when it reads of it, and its lateness is known from then on. No work moves for a stalled daemon before 90 s."
        ]
        return section

    return measure


# ---- splits ---------------------------------------------------------------------------------------------------------


def splits(runs: int, *, hours: Sequence[float] = (1.0, 12.0)) -> Section:
    section = Section(
        "A split of 10 and 20 members, healed",
        f"{SIMULATED} No packet and no connect passes between the parts, each believes the other dead; then everything passes.",
    )
    for each in hours:
        agreed = Figures(f"after {each:g} h: until all agree", "s")
        deaths = Figures(f"after {each:g} h: called dead since", "times")
        for seed in range(1, runs + 1):
            found = healed_split(10, 20, seconds=3600 * each, seed=seed)
            agreed.add(found.agreed_after_s)
            deaths.add(found.deaths_after)
        section.figures += [agreed, deaths]
        section.aims.append(Aim(agreed.name, agreed.percentile(1.0), 60.0, "s"))
    return section
