"""The daemon from its first line to its exit code.

    run
    └─ serve
       ├─ open_site      data folder, store, engine, port: each refused with one clear error
       ├─ finish      a recovery that was ordered (`swarm recover`)
       └─ nursery
          ├─ port.serve  accepts connections: bootstrap first, members later
          ├─ belong      found a cluster, join one, or come back to one
          └─ Daemon      a member and all its parts (`daemon.py`)

A daemon whose log is to be another from now on ends as for a pause, and its process starts the same program anew.

`run` is one of the two doors at which any error stops: it becomes words and an exit code. Containers run on in any case.
"""

from __future__ import annotations

import logging
import os
import sys

import trio

from swarm.adapters.host import raise_priority
from swarm.drivers.collector import collect_now_and_then, set_program_apart
from swarm.errors import OperatorError, StoreFailure
from swarm.node.belong import belong
from swarm.node.daemon import Daemon
from swarm.node.recovering import finish_recovery
from swarm.node.site import open_site
from swarm.node.stopping import Stop, remember_leaving, take_leaving
from swarm.schema.node_config import NodeConfig

LOG = logging.getLogger("swarm.node")
EXIT_STORE = 12
"""The disk refused; docs/cli.md. Containers run on."""
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def run(config: NodeConfig) -> int:
    """Run the daemon until it is told to stop; the exit code of its process."""
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for refused in raise_priority():
        LOG.info("runs at an ordinary priority: %s", refused)
    set_program_apart()
    try:
        ended = trio.run(serve, config)
    except BaseException as problem:  # one of the two doors: what ended the daemon is told to people and to the exit code
        return _told(problem)
    remember_leaving(ended)
    return start_again() if ended in ("again", "leave again") else 0


def start_again() -> int:
    """Put the same program, with the same arguments, in this one's place: same process, everything it had open is closed."""
    command = [sys.executable, *sys.orig_argv[1:]]
    LOG.info("starts anew")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(command[0], command)
    except OSError as error:
        LOG.critical("cannot start anew (%s): start the daemon again; containers run on", error)
    return EXIT_BUG


def _told(problem: BaseException) -> int:
    """Say what ended the daemon; its exit code."""
    causes = list(_leaves(problem))
    for cause in causes:
        if isinstance(cause, OperatorError):
            raise cause from None
    for cause in causes:
        if isinstance(cause, StoreFailure):
            LOG.critical("the disk refused: %s; the daemon stops, containers run on", cause)
            return EXIT_STORE
    if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return EXIT_INTERRUPTED
    LOG.critical("a bug ended the daemon; containers run on", exc_info=problem)
    return EXIT_BUG


def _leaves(problem: BaseException) -> list[BaseException]:
    if isinstance(problem, BaseExceptionGroup):
        return [leaf for each in problem.exceptions for leaf in _leaves(each)]
    return [problem]


async def serve(config: NodeConfig) -> Stop:
    """Open, belong to a cluster, and be its member until told to stop; returns how."""
    site = await open_site(config)
    await finish_recovery(site)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_now_and_then)
        await nursery.start(site.port.serve, site.listener)
        cluster, desk = await belong(site)
        daemon = Daemon(site, cluster, desk)
        if take_leaving():
            daemon.stopping.request("leave")
        await daemon.run(nursery)
    return daemon.ended
