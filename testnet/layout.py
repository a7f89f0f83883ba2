"""Names, addresses and folders of one testnet: everything it makes carries the same prefix.

A machine may hold several testnets (a demo that a person left running, and the one of the test run), so each
has an instance number. It chooses the prefix of every kernel object (`swt0-h1`), the subnet (10.77.0.0/24 for
instance 0, 10.78.0.0/24 for 1) and the folder of state. `down` removes what carries the prefix, whether or
not the records of it survived.

Promises: two instances share no name, address or folder; nothing lies inside the repository.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOSTS_MAX = 100  # 10.77.0.11 to 10.77.0.110; bridges 172.31.0.0/16 to 172.130.0.0/16 exist only inside a host
PEER_PORT = 4747
API_PORT = 4748


class TestnetError(Exception):
    """The testnet cannot do what was asked; the text says what was found and what to do."""

    __test__ = False  # pytest collects classes named Test* otherwise


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one testnet keeps things and how they are called. `instance` is 0 to 99."""

    instance: int
    state: Path

    @property
    def prefix(self) -> str:
        return f"swt{self.instance}"

    @property
    def bridge(self) -> str:
        return f"{self.prefix}-br"

    @property
    def chain(self) -> str:
        return f"SWARM-TESTNET-{self.instance}"

    @property
    def cgroup(self) -> str:
        return f"swarm-testnet-{self.instance}"

    @property
    def gateway(self) -> str:
        return f"10.{77 + self.instance}.0.1"

    @property
    def record(self) -> Path:
        return self.state / "testnet.json"

    @property
    def token(self) -> Path:
        return self.state / "token"

    def namespace(self, host: int) -> str:
        return f"{self.prefix}-h{host}"

    def address(self, host: int) -> str:
        return f"10.{77 + self.instance}.0.{10 + host}"

    def loopback(self, host: int) -> str:
        """The address of a daemon that shares the machine's engine: all of 127.0.0.0/8 is local on Linux."""
        return f"127.{77 + self.instance}.0.{10 + host}"

    def folder(self, host: int) -> Path:
        return self.state / f"h{host}"


def default_layout(instance: int | None = None) -> Layout:
    """The layout that TESTNET_INSTANCE and TESTNET_STATE choose; instance 0 in /var/tmp otherwise."""
    number = int(os.environ.get("TESTNET_INSTANCE", "0")) if instance is None else instance
    if not 0 <= number <= 99:
        raise TestnetError(f"TESTNET_INSTANCE is {number}: choose 0 to 99")
    suffix = f"-{number}" if number else ""
    chosen = os.environ.get("TESTNET_STATE") if instance is None else None
    state = Path(chosen or f"/var/tmp/swarm-testnet{suffix}").resolve()
    if state.is_relative_to(REPOSITORY) or state.is_relative_to("/run"):
        raise TestnetError(f"the state folder {state} lies in the repository or under /run: set TESTNET_STATE elsewhere")
    return Layout(instance=number, state=state)


def cache_folder() -> Path:
    """Where images are kept between runs: TESTNET_CACHE, or a system folder for root, or the user's own."""
    chosen = os.environ.get("TESTNET_CACHE")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/swarm-testnet")
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "swarm-testnet"
