"""The commands of ./testnet/run, one function each; hosts are numbers from 1."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from testnet import demo, engine, images
from testnet.bench import bench, consensus, membership
from testnet.bench.measuring import PAGE
from testnet.cluster import Testnet
from testnet.host import INSIDE_ENVIRONMENT, SWARM, SharedHost, tail
from testnet.layout import TestnetError
from testnet.soak import soak
from testnet.state import DAEMON, ENGINE

DESCRIPTION = "Emulated hosts on this machine, each with a Docker Engine and a swarm daemon of its own."
BENCHES = tuple(bench.MEASUREMENTS)
ONE_HOST = ("kill", "revive", "thaw", "crash-daemon", "restart-daemon", "crash-engine", "restart-engine")
HELP = {
    "kill": "a power cut: everything on the host is gone at once",
    "revive": "boot a dead host again on the data it had",
    "thaw": "let a frozen host go on",
    "crash-daemon": "SIGKILL the swarm daemon alone; containers live on",
    "restart-daemon": "start the swarm daemon again",
    "crash-engine": "SIGKILL the Docker Engine alone; containers live on",
    "restart-engine": "start the Docker Engine again",
}


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="./testnet/run", description=DESCRIPTION)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring hosts up")
    up.add_argument("--hosts", type=int, default=3, metavar="N")
    up.add_argument("--engine", choices=("own", "shared"), default="own", help="one per host, or the machine's")
    up.add_argument("--together", action="store_true", help="found the cluster by the same line on every host")
    up.add_argument("--no-daemons", action="store_true", help="hosts and engines only")
    commands.add_parser("down", help="remove everything that `up` made, also after a crash")
    commands.add_parser("status", help="hosts and what runs on them")
    commands.add_parser("demo", help="three hosts, three tasks, a host dies, the work goes on")
    measured = commands.add_parser("bench", help="measure the main job beside the raw engine; writes the page")
    measured.add_argument("--only", choices=BENCHES, help="one measurement, printed only")
    measured.add_argument("--runs", type=int, metavar="N", help="how often each is repeated")
    gossip = commands.add_parser("bench-membership", help="measure membership, simulated and real; writes its page")
    gossip.add_argument("names", nargs="+", choices=[*membership.MEASUREMENTS, PAGE], metavar="NAME")
    gossip.add_argument("--runs", "--minutes", dest="runs", type=int, metavar="N",
                        help="how often each is repeated; for `load`: how many minutes each load lasts")  # fmt: skip
    gossip.add_argument("--print", dest="keep", action="store_false", help="print what was found, and write nothing")
    agreed = commands.add_parser("bench-consensus", help="measure consensus beside etcd; writes its page")
    agreed.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*consensus.MEASUREMENTS, PAGE])}; none: all")
    agreed.add_argument("--runs", type=int, metavar="N", help="how often each is repeated")
    agreed.add_argument("--print", dest="keep", action="store_false", help="print what was found, and write nothing")
    soak = commands.add_parser("soak", help="hosts in trouble under a stream of submits; then what is owed is checked")
    soak.add_argument("--hosts", type=int, default=5, metavar="N")
    soak.add_argument("--minutes", type=float, default=30.0, metavar="M")
    soak.add_argument("--seed", type=int, default=1, metavar="S", help="of what breaks, and when")
    soak.add_argument("--every", type=float, default=8.0, metavar="S", help="seconds between two faults, on average")
    soak.add_argument("--keep", type=Path, metavar="FILE", help="write what was found there too, as results for a page")
    swarm = commands.add_parser("swarm", help="run `swarm ARGS` on a host")
    swarm.add_argument("host", type=int)
    swarm.add_argument("arguments", nargs=argparse.REMAINDER)
    shell = commands.add_parser("exec", help="run any command on a host")
    shell.add_argument("host", type=int)
    shell.add_argument("arguments", nargs=argparse.REMAINDER)
    for name in ONE_HOST:
        commands.add_parser(name, help=HELP[name]).add_argument("host", type=int)
    freeze = commands.add_parser("freeze", help="stop all processes of a host without ending them")
    freeze.add_argument("host", type=int)
    freeze.add_argument("--seconds", type=float, metavar="S", help="thaw it after S seconds; without: until `thaw`")
    freeze.add_argument("--daemon", action="store_true", help="the swarm daemon alone")
    freeze.add_argument("--silent", action="store_true", help="take the host's link down too")
    cut = commands.add_parser("cut", help="cut two hosts off from each other")
    cut.add_argument("host", type=int)
    cut.add_argument("other", type=int)
    cut.add_argument("--one-way", action="store_true", help="drop only what the first sends to the second")
    commands.add_parser("heal", help="undo every cut, loss and rate limit")
    logs = commands.add_parser("logs", help="the log of a host's swarm daemon")
    logs.add_argument("host", type=int)
    logs.add_argument("--engine", action="store_true", help="the Docker Engine's instead")
    logs.add_argument("-f", "--follow", action="store_true")
    runner = commands.add_parser("with-engine", help="run a command with a plain engine of our own (for tests)")
    runner.add_argument("arguments", nargs=argparse.REMAINDER)
    return whole


def main(arguments: list[str]) -> int:
    """Run one command; a TestnetError becomes one line and exit code 1."""
    chosen = parser().parse_args(arguments)
    try:
        return run(chosen)
    except TestnetError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(chosen: argparse.Namespace) -> int:
    match chosen.command:
        case "up":
            return up(chosen)
        case "down":
            Testnet.found().down()
        case "status":
            status(Testnet.attach())
        case "demo":
            return demo.run()
        case "bench":
            return bench.run(only=chosen.only, runs=chosen.runs)
        case "bench-membership":
            return membership.run(chosen.names, runs=chosen.runs, keep=chosen.keep)
        case "bench-consensus":
            if strange := [name for name in chosen.names if name not in (*consensus.MEASUREMENTS, PAGE)]:
                known = ", ".join([*consensus.MEASUREMENTS, PAGE])
                raise TestnetError(f"nothing is called {', '.join(strange)}: choose of {known}")
            return consensus.run(chosen.names, runs=chosen.runs, keep=chosen.keep)
        case "soak":
            return soak.run(
                hosts=chosen.hosts, minutes=chosen.minutes, seed=chosen.seed, every_s=chosen.every, keep=chosen.keep
            )
        case "swarm":
            enter(Testnet.attach(), chosen.host, [str(SWARM), *chosen.arguments])
        case "exec":
            enter(Testnet.attach(), chosen.host, chosen.arguments)
        case "logs":
            logs(Testnet.attach(), chosen)
        case "with-engine":
            return engine.run_with_engine(chosen.arguments[chosen.arguments[:1] == ["--"] :])
        case _:
            fault(Testnet.attach(), chosen)
    return 0


def up(chosen: argparse.Namespace) -> int:
    started = time.monotonic()
    net = Testnet.up(
        chosen.hosts,
        engine=chosen.engine,
        daemons=not chosen.no_daemons,
        together=chosen.together,
        with_images=images.NAMES,
    )
    print(f"{chosen.hosts} hosts are up after {time.monotonic() - started:.1f} s")
    status(net)
    if not chosen.no_daemons:
        print("\nnext: ./testnet/run swarm 1 node ls    ./testnet/run swarm 2 status    ./testnet/run kill 1")
    return 0


def status(net: Testnet) -> None:
    record = net.record
    print(f"{'HOST':6}{'ADDRESS':15}{'POWER':8}{'ENGINE':9}{'DAEMON':9}")
    for number in net.hosts:
        host = record.hosts[number]
        power = "dead" if not net.alive(number) else "frozen" if host.frozen else "on"
        engine_state = "shared" if record.engine == "shared" else running(net, number, ENGINE)
        daemon_state = running(net, number, DAEMON)
        print(f"h{number:<5}{net.address(number):15}{power:8}{engine_state:9}{daemon_state}")


def running(net: Testnet, number: int, name: str) -> str:
    found = net.process(number, name)
    if found is None:
        return "-"
    return "running" if found.alive() else "ended"


def enter(net: Testnet, number: int, command: list[str]) -> None:
    """Become the command, on the host, in the caller's folder, with this terminal."""
    host = net.host(number)
    folder = os.environ.get("TESTNET_CALLER_FOLDER", os.getcwd())
    if isinstance(host, SharedHost):
        os.chdir(folder)
        os.execvpe(command[0], command, host.environment())
    whole = [*host.enter(net.init(number), folder=folder), *command]
    terminal = {name: os.environ[name] for name in ("TERM", "COLUMNS", "NO_COLOR") if name in os.environ}
    os.execvpe(whole[0], whole, {**INSIDE_ENVIRONMENT, **terminal})


def logs(net: Testnet, chosen: argparse.Namespace) -> None:
    host = net.host(chosen.host)
    path = host.engine_log if chosen.engine else host.daemon_log
    if chosen.follow:
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(path)])
    print(tail(path, characters=10_000_000))


def fault(net: Testnet, chosen: argparse.Namespace) -> None:
    started = time.monotonic()
    match chosen.command:
        case "cut":
            net.cut(chosen.host, chosen.other, one_way=chosen.one_way)
        case "heal":
            net.heal()
        case "freeze":
            net.freeze(chosen.host, daemon=chosen.daemon, silent=chosen.silent)
            if chosen.seconds is not None:
                try:
                    time.sleep(chosen.seconds)
                finally:
                    net.thaw(chosen.host)
        case command:
            getattr(net, command.replace("-", "_"))(chosen.host)
    print(f"{chosen.command}: done in {time.monotonic() - started:.2f} s")
