"""One plain engine for tests that need Docker and nothing else: a testnet of one host without a daemon.

It is nobody's: its own data folder, network and firewall, gone when the block ends, whatever the tests did to
it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testnet import images
from testnet.cluster import Testnet
from testnet.layout import TestnetError, default_layout

RESERVED = range(10, 60)  # instances for tests; a person's own are below
LOCKS = Path("/var/tmp/swarm-testnet-locks")


@contextmanager
def reserved_instance() -> Iterator[int]:
    """An instance number that no other process uses while the block runs; leftovers under it are removed."""
    LOCKS.mkdir(mode=0o777, exist_ok=True)
    for number in RESERVED:
        with (LOCKS / str(number)).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            net = Testnet(default_layout(number))
            net.down()
            try:
                yield number
            finally:
                net.down()
            return
    raise TestnetError(f"all instances from {RESERVED.start} to {RESERVED.stop - 1} are in use")


@contextmanager
def plain_engine() -> Iterator[dict[str, str]]:
    """An engine with the testnet's images; yields the environment by which tests find it."""
    with reserved_instance() as number:
        net = Testnet.up(hosts=1, instance=number, daemons=False, with_images=images.NAMES)
        yield {"DOCKER_HOST": net.engine(1), "TESTNET_ENGINE_ADDRESS": net.address(1)}


def run_with_engine(command: list[str]) -> int:
    """Run a command with a plain engine in its environment; its exit code."""
    with plain_engine() as found:
        return subprocess.run(command, env={**os.environ, **found}, check=False).returncode
