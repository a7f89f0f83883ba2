"""`./testnet/run demo`: three hosts, three tasks through three nodes, a host dies, the work goes on.

It says what it does before it does it, and how long it took. It talks to the cluster as a person would: by
the CLI on one of the hosts, and to the tasks by the ports that they publish.
"""

from __future__ import annotations

import json
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testnet.cluster import Testnet
from testnet.layout import TestnetError
from testnet.processes import wait_until

JOB = """
import time
found = []
for number in range(2, 10**9):
    if all(number % known for known in found if known * known <= number):
        found.append(number)
        if len(found) % 500 == 0:
            print(len(found), 'primes, the last is', number, flush=True)
            time.sleep(1)
"""
TASKS = (
    (1, "cache", ["--cpus", "0.5", "--memory", "128M", "-p", "6379:6379", "testnet/redis:1"]),
    (2, "web", ["--cpus", "0.25", "--memory", "64M", "-p", "8080:80", "testnet/nginx:1"]),
    (
        3,
        "primes",
        ["--cpus", "0.5", "--memory", "64M", "--restart", "no", "testnet/python:1", "python3", "-c", JOB],
    ),
)


def run() -> int:
    """The whole demonstration; leaves the cluster up. A TestnetError says which step failed."""
    print("Three hosts on this machine, each with its own Docker Engine. No control plane, no registry.\n")
    with step("bring three hosts up and make one cluster of them"):
        net = Testnet.up(hosts=3, together=True)
    leader = net.leader()
    print(f"      every host runs the same `swarm up`; h{leader} leads at present\n")
    for number, name, arguments in TASKS:
        with step(f"submit {name} through h{number}: {shown(['task', 'submit', '--name', name, *arguments])}"):
            checked(net, number, "task", "submit", "--name", name, *arguments)
    print()
    for name in ("cache", "web", "primes"):
        show_answer(net, name, seen_by=1)
    victim = required_leader(net)
    moved = [name for name, node in placement(net, seen_by=victim).items() if node == victim]
    survivors = [number for number in net.hosts if number != victim]
    seen_by = survivors[0]
    print(f"\nh{victim} leads the cluster and runs {' and '.join(moved) or 'nothing'}. Now its power is cut.\n")
    with step(f"kill h{victim}: its engine, its containers and its daemon are gone at once"):
        net.kill(victim)
    with step(f"wait until all the work runs on {' and '.join(f'h{number}' for number in survivors)}"):
        wait_until(
            lambda: all_run(net, survivors, seen_by=seen_by),
            timeout_s=60,
            what="the work to move",
            interval_s=0.1,
        )
    new_leader = net.leader(seen_by=seen_by)
    print(f"      h{new_leader} leads now; nobody was told to do anything\n")
    for name in ("cache", "web", "primes"):
        show_answer(net, name, seen_by=seen_by)
    print(f"\n{checked(net, seen_by, 'task', 'ls')}\n{checked(net, seen_by, 'node', 'ls')}")
    print_next(net, victim, seen_by)
    return 0


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, do it, say how long it took."""
    print(f"----- {text}", flush=True)
    started = time.monotonic()
    yield
    print(f"      {time.monotonic() - started:.2f} s", flush=True)


def shown(arguments: list[str]) -> str:
    """A command as a person would read it: a long program is cut short."""
    return "swarm " + " ".join(shlex.quote(part) if "\n" not in part else "'...'" for part in arguments)


def checked(net: Testnet, number: int, *arguments: str) -> str:
    done = net.swarm(number, *arguments)
    if done.returncode:
        raise TestnetError(f"`{shown(list(arguments))}` on h{number} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def listed(net: Testnet, what: str, *, seen_by: int) -> list[dict[str, Any]]:
    """The objects of `task ls` or `node ls`."""
    done = net.swarm(seen_by, what, "ls", "-o", "json")
    if done.returncode:
        return []
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def placement(net: Testnet, *, seen_by: int) -> dict[str, int]:
    """The host that each running task of the demonstration is on."""
    numbers = {}
    for node in listed(net, "node", seen_by=seen_by):
        numbers[node["id"]] = numbers[node["name"]] = int(node["name"][1:])
    tasks = [task for task in listed(net, "task", seen_by=seen_by) if task["phase"] == "running"]
    return {task["name"]: numbers[task["node"]] for task in tasks if task["node"] in numbers}


def all_run(net: Testnet, survivors: list[int], *, seen_by: int) -> bool:
    """Whether every task runs on a living host, and the two that publish ports answer there."""
    found = placement(net, seen_by=seen_by)
    if not all(found.get(name) in survivors for _, name, _ in TASKS):
        return False
    try:
        return bool(ask_redis(net.address(found["cache"])) and ask_web(net.address(found["web"])))
    except OSError:
        return False


def required_leader(net: Testnet) -> int:
    found = net.leader()
    if found is None:
        raise TestnetError("the cluster has no leader: ./testnet/run swarm 1 status says why")
    return found


def show_answer(net: Testnet, name: str, *, seen_by: int) -> None:
    """Ask a task something and print what it says."""
    number = placement(net, seen_by=seen_by).get(name)
    if number is None:
        raise TestnetError(f"the task {name} does not run: `./testnet/run swarm {seen_by} task inspect {name}` says why")
    address = net.address(number)
    if name == "cache":
        print(f"      cache on h{number}: redis at {address}:6379 says {ask_redis(address)}")
    elif name == "web":
        print(f"      web on h{number}: http://{address}:8080/ says {' / '.join(ask_web(address).splitlines())}")
    else:
        wait_until(
            lambda: net.swarm(seen_by, "task", "logs", name).stdout.strip(),
            timeout_s=20,
            what=f"output of {name}",
        )
        last = net.swarm(seen_by, "task", "logs", name).stdout.strip().splitlines()[-1]
        print(f"      {name} on h{number}: its newest line of output is: {last}")


def ask_redis(address: str) -> str:
    """Count a visit; redis answers with how many it has seen."""
    with socket.create_connection((address, 6379), timeout=2) as connection:
        connection.sendall(b"INCR visits\r\n")
        answer = connection.recv(100).decode().strip()
    return f"visit number {answer.removeprefix(':')}"


def ask_web(address: str) -> str:
    with socket.create_connection((address, 8080), timeout=2) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while received := connection.recv(4096):
            answer += received
    head, _, body = answer.decode().partition("\r\n\r\n")
    if " 200 " not in head.splitlines()[0]:
        raise OSError(f"nginx answered {head.splitlines()[0]}")
    return body.strip()


def print_next(net: Testnet, victim: int, seen_by: int) -> None:
    print("The cluster stays up. To try next:")
    for command, meaning in (
        (f"revive {victim}", "the dead host comes back and joins again"),
        (f"swarm {seen_by} status", "who leads, and which hosts may fail now"),
        (f"swarm {seen_by} task logs -f primes", "follow a task's output from any node"),
        (f"swarm {seen_by} task submit --name more -p 8081:80 testnet/nginx:1", "submit another task"),
        (f"swarm {seen_by} events -f", "watch what the cluster decides"),
        (f"freeze {seen_by} --seconds 3", "a host that is slow, not dead: nothing moves"),
        ("down", "remove all of it"),
    ):
        print(f"    ./testnet/run {command:62} {meaning}")
