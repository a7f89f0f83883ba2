"""What each of thirty daemons costs while nothing happens: processor time over a minute, and memory as the kernel shares it."""

from __future__ import annotations

import time

from testnet.bench.beliefs import Logs, counted, mistaken
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.idle import cpu_s, processes_of, pss_mib
from testnet.bench.membership_net import counters, membership_net, settle
from testnet.state import DAEMON

HOSTS = 30
WATCHED_S = 60.0
REST_S = 20.0
"""After the founding: what is new has been told often enough by then."""
CPU_PERCENT_MAX = 1.0
MEMORY_MB_MAX = 90.0
MB_PER_MIB = 1.048576


def measure(runs: int) -> Section:
    """`runs` minutes, after one rest."""
    kinds = ("the leader", "the other voters", "the learners")
    cpu = {kind: Figures(f"processor, {kind}", "% of a core") for kind in kinds}
    every, memory = Figures("processor, all thirty", "% of a core"), Figures("memory (PSS)", "MB")
    sent = Figures("sent over UDP, each", "bytes per second")
    with membership_net(HOSTS) as (net, founded_s):
        leader = settle(net)
        time.sleep(REST_S)
        logs = Logs(net)
        voters = _voters(net.swarm_json(leader, "node", "ls"))
        for _ in range(runs):
            daemons = {number: processes_of(net, number, DAEMON) for number in net.hosts}
            told = {number: counters(net, number)["bytes_sent"] for number in net.hosts}
            before, began = {number: sum(map(cpu_s, pids)) for number, pids in daemons.items()}, time.monotonic()
            time.sleep(WATCHED_S)
            spent_s = time.monotonic() - began
            used = {number: 100 * (sum(map(cpu_s, pids)) - before[number]) / spent_s for number, pids in daemons.items()}
            for number, share in used.items():
                kind = kinds[0] if number == leader else kinds[1] if number in voters else kinds[2]
                cpu[kind].add(share)
                every.add(share)
            for number, pids in daemons.items():
                memory.add(sum(map(pss_mib, pids)) * MB_PER_MIB)
                sent.add((counters(net, number)["bytes_sent"] - told[number]) / spent_s)
        wrong, troubles, elections = mistaken(logs.beliefs(), []), logs.troubles(), logs.elections()
    return Section(
        title=f"{HOSTS} idle daemons",
        how=(
            f"Real: {HOSTS} hosts with an engine and a daemon each, no tasks, nothing asked of them for {WATCHED_S:.0f} s; "
            f"{runs} times; all threads of each daemon."
        ),
        figures=[every, *cpu.values(), memory, sent],
        aims=[
            Aim("processor, the median daemon", every.median, CPU_PERCENT_MAX, "% of a core"),
            Aim("processor, the busiest daemon", every.percentile(1), CPU_PERCENT_MAX, "% of a core"),
            Aim("memory, the largest daemon", memory.percentile(1), MEMORY_MB_MAX, "MB"),
        ],
        notes=[
            f"Founded by the same line on all {HOSTS} at once: {founded_s:.1f} s to a cluster at rest. Wrong beliefs meanwhile: "
            f"{counted(wrong) or 'none'}; {elections} elections.",
            "What bounds the processor is how often a daemon wakes, not what it computes: a packet of gossip costs some 0.25 ms "
            "from wake to wait, and there are 24 a second; a voter answers 10 heartbeats a second besides, and a leader sends "
            "ten to each of four voters and one to each learner. Two probes a round instead of three would bring a learner to "
            "about 1 %, and the slowest of all to learn of a power cut from 1.1 to 1.7 s: not "
            "done (docs/decisions/0005-idle-cost.md).",
            *(f"Logged: {line[:200]}" for line in troubles[:10]),
        ],
    )


def _voters(rows: object) -> set[int]:
    assert isinstance(rows, list)
    return {int(row["name"][1:]) for row in rows if row["role"] == "voter"}
