"""Faults of hosts and of the network between them.

A cut is one firewall rule at the receiver, before anything else sees the packet: the sender notices only
silence, as with a broken cable, and traffic of containers is covered (the sender's engine gives it the host's
address). Rules stand in the raw table, which no engine touches. A rate limit is a token bucket at the
sender's end of its cable. There is no delay here: many kernels lack netem, and a program is delayed best by
freezing it.

Promises: `heal` undoes every cut, loss, rate limit and downed link of living hosts; a revived host starts
with none of its own incoming cuts forgotten (they live in the network namespace, which outlasts a kill).
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from testnet import cgroups, network, shared, state
from testnet.layout import TestnetError
from testnet.processes import processes_of_host, wait_until
from testnet.state import DAEMON

if TYPE_CHECKING:
    from testnet.cluster import Testnet


def kill(net: Testnet, number: int) -> float:
    if not net.alive(number):
        raise TestnetError(f"host {number} is dead already: `./testnet/run revive {number}` brings it back")
    if net.record.engine == "shared":
        ended_utc = time.time()
        net.crash_daemon(number)
        shared.kill_containers(net.layout, net.record, number)
        return ended_utc
    init = net.init(number)
    doomed = processes_of_host(init)
    ended_utc = time.time()
    network.set_link(net.layout, number, up=False)
    cgroups.thaw(net.layout, number)  # a version 1 freezer holds SIGKILL back
    init.kill()
    wait_until(
        lambda: not any(process.alive() for process in doomed),
        timeout_s=20.0,
        what=f"all processes of host {number} to end",
    )
    cgroups.remove(net.layout, number)
    with state.editing(net.layout) as record:
        record.hosts[number].frozen = False
    return ended_utc


def revive(net: Testnet, number: int, *, wait: bool) -> None:
    if net.alive(number):
        raise TestnetError(f"host {number} is alive")
    record = net.record
    had_daemon = DAEMON in record.hosts[number].processes
    if record.engine == "own":
        network.set_link(net.layout, number, up=True)
        net.boot(number)
    if had_daemon:
        net.restart_daemon(number, wait=wait)


def require_own_engine(net: Testnet, what: str) -> None:
    if net.record.engine == "shared":
        raise TestnetError(f"`{what}` needs hosts with engines of their own: bring the testnet up without --engine shared")


def cut(net: Testnet, first: int, second: int, *, one_way: bool) -> None:
    require_own_engine(net, "cut")
    if first == second:
        raise TestnetError(f"cannot cut host {first} off from itself")
    drop(net, source=first, target=second)
    if not one_way:
        drop(net, source=second, target=first)


def drop(net: Testnet, *, source: int, target: int, probability: float = 1.0) -> None:
    """Drop packets (all, or at random by probability) that arrive at `target` from `source`."""
    rule = ["PREROUTING", "-s", net.address(source), "-j", "DROP"]
    if probability < 1.0:
        rule[3:3] = ["-m", "statistic", "--mode", "random", "--probability", f"{probability:.4f}"]
    inside = ["ip", "netns", "exec", net.layout.namespace(target)]
    if network.run(*inside, "iptables", "-w", "-t", "raw", "-C", *rule, check=False).returncode:
        network.run(*inside, "iptables", "-w", "-t", "raw", "-A", *rule)


def lose(net: Testnet, number: int, probability: float) -> None:
    """Lose a share (0 to 1) of what the other hosts send to a host."""
    require_own_engine(net, "lose")
    for other in net.hosts:
        if other != number:
            drop(net, source=other, target=number, probability=probability)


def limit_rate(net: Testnet, number: int, bytes_per_s: int) -> None:
    """Limit what a host sends; the bucket holds 50 ms or two full segments, the queue 400 ms."""
    require_own_engine(net, "limit-rate")
    burst = max(bytes_per_s // 20, 131072)
    command = f"qdisc replace dev eth0 root tbf rate {bytes_per_s * 8} burst {burst} latency 400ms"
    network.run("tc", "-n", net.layout.namespace(number), *command.split())


def heal(net: Testnet) -> None:
    require_own_engine(net, "heal")
    for number in net.hosts:
        inside = ["ip", "netns", "exec", net.layout.namespace(number)]
        network.run(*inside, "iptables", "-w", "-t", "raw", "-F", "PREROUTING")
        network.run("tc", "-n", net.layout.namespace(number), *["qdisc", "del", "dev", "eth0", "root"], check=False)
        if net.alive(number):
            network.set_link(net.layout, number, up=True)


def freeze(net: Testnet, number: int, *, daemon: bool, silent: bool) -> None:
    """SIGSTOP, or the freezer, which also catches what is being forked."""
    if daemon or net.record.engine == "shared":
        net.required(number, DAEMON).send(signal.SIGSTOP)
        return
    if not net.alive(number):
        raise TestnetError(f"host {number} is dead, so it cannot be frozen")
    if silent:
        network.set_link(net.layout, number, up=False)
    if not cgroups.freeze(net.layout, number):
        for process in processes_of_host(net.init(number)):
            process.send(signal.SIGSTOP)
    with state.editing(net.layout) as record:
        record.hosts[number].frozen = True


def thaw(net: Testnet, number: int) -> None:
    daemon = net.process(number, DAEMON)
    if daemon is not None:
        daemon.send(signal.SIGCONT)
    if net.record.engine == "shared":
        return
    if not cgroups.thaw(net.layout, number):
        for process in processes_of_host(net.init(number)):
            process.send(signal.SIGCONT)
    network.set_link(net.layout, number, up=net.alive(number))
    with state.editing(net.layout) as record:
        record.hosts[number].frozen = False
