"""The network between emulated hosts: one bridge, a veth pair per host, and firewall rules of our own.

The machine itself is 10.77.0.1 on the bridge and reaches every host. Between hosts everything passes; from a
host to anywhere else everything is refused at once, so that nothing leaves the machine and nothing waits.
Rules stand in a chain of their own: a dockerd on the machine sets the policy of FORWARD to DROP, and with
bridge filtering on, frames between hosts would fall under it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from testnet.layout import Layout, TestnetError

NEIGHBOURS = 32 * 1024
"""Of a hundred hosts that all speak to each other, three times."""


def run(*command: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of the system; a failure becomes a TestnetError that quotes it."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise TestnetError(f"`{' '.join(command)}` failed with {done.returncode}: {said}")
    return done


def create_bridge(layout: Layout) -> None:
    make_room_for_neighbours()
    commands = [
        f"link add {layout.bridge} type bridge forward_delay 0",
        f"addr add {layout.gateway}/24 dev {layout.bridge}",
        f"link set {layout.bridge} up",
    ]
    run("ip", "-batch", "-", text="\n".join(commands))
    Path(f"/proc/sys/net/ipv6/conf/{layout.bridge}/disable_ipv6").write_text("1")
    run("iptables-restore", "-w", "--noflush", text=chain_rules(layout))


def make_room_for_neighbours() -> None:
    """The kernel's one table of neighbours holds those of all hosts: with the default of 1,024, forty that all speak to each
    other lose connections. Raised and left so; never lowered."""
    limit = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
    if int(limit.read_text()) < NEIGHBOURS:
        limit.write_text(str(NEIGHBOURS))


def chain_rules(layout: Layout) -> str:
    chain, bridge = layout.chain, layout.bridge
    return "\n".join(
        [
            "*filter",
            f":{chain} - [0:0]",
            f"-A {chain} -i {bridge} -o {bridge} -j ACCEPT",
            f"-A {chain} -i {bridge} -j REJECT",
            f"-A {chain} -o {bridge} -j REJECT",
            f"-I FORWARD 1 -j {chain}",
            "COMMIT",
            "",
        ]
    )


def create_host(layout: Layout, host: int) -> None:
    """A network namespace with eth0 on the bridge.

    The default route is there because dockerd wants one; the rules keep it from being used, so that whatever
    is not on a network of the host fails at once instead of waiting for an answer.
    """
    name = layout.namespace(host)
    run("ip", "netns", "add", name)
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "link", "set", name, "master", layout.bridge, "up")
    commands = [
        "link set lo up",
        f"addr add {layout.address(host)}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {layout.gateway}",
        "rule add pref 100 lookup main suppress_prefixlength 0",
        "rule add pref 101 unreachable",
    ]
    run("ip", "-n", name, "-batch", "-", text="\n".join(commands))


def set_address(layout: Layout, host: int, address: str) -> None:
    """Another address on eth0 in place of those that are there; whom it knew on the network is forgotten, as at a boot."""
    commands = [
        "addr flush dev eth0",
        f"addr add {address}/24 dev eth0",
        f"route replace default via {layout.gateway}",
        "neigh flush dev eth0",
    ]
    run("ip", "-n", layout.namespace(host), "-batch", "-", text="\n".join(commands))


def set_link(layout: Layout, host: int, *, up: bool) -> None:
    run("ip", "link", "set", layout.namespace(host), "up" if up else "down")


def namespace_names(layout: Layout) -> list[str]:
    """The network namespaces of this testnet that exist, recorded or not."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{layout.prefix}-h*")) if folder.exists() else []


def link_names(layout: Layout) -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").glob(f"{layout.prefix}-*"))


def chain_exists(layout: Layout) -> bool:
    return run("iptables", "-w", "-n", "-L", layout.chain, check=False).returncode == 0


def remove_all(layout: Layout) -> None:
    """Remove namespaces, links and rules by their prefix. Processes must be gone before."""
    for name in namespace_names(layout):
        run("ip", "netns", "del", name)
    for name in link_names(layout):
        run("ip", "link", "del", name, check=False)  # a veth goes with its namespace a moment later anyway
    if chain_exists(layout):
        while run("iptables", "-w", "-D", "FORWARD", "-j", layout.chain, check=False).returncode == 0:
            pass
        run("iptables", "-w", "-F", layout.chain)
        run("iptables", "-w", "-X", layout.chain)


def namespace_inode(name: str) -> int:
    return os.stat(f"/run/netns/{name}").st_ino


def host_numbers(layout: Layout) -> list[int]:
    """The hosts whose network namespace exists."""
    start = len(layout.namespace(0)) - 1
    return sorted(int(name[start:]) for name in namespace_names(layout))


def present(layout: Layout) -> bool:
    """Whether anything of this testnet's network exists."""
    return bool(namespace_names(layout) or link_names(layout))


def require_tools() -> None:
    """TestnetError when hosts cannot be made here: not root, or a tool is missing."""
    if os.geteuid() != 0:
        raise TestnetError("emulated hosts need root: run this with sudo, or use `up --engine shared` with your Docker")
    tools = (
        "ip",
        "iptables",
        "iptables-restore",
        "nsenter",
        "unshare",
        "setsid",
        "dockerd",
        "containerd",
        "runc",
    )
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise TestnetError(f"missing programs: {', '.join(missing)}; on Debian ./testnet/run installs them as root")
