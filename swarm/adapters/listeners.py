"""Who listens on a TCP port of this host, as far as this user may look: for an error that says what is in the way.

From /proc alone. Promise: never raises; some milliseconds per hundred processes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def listener_words(port: int) -> str:
    """`a swarm daemon of this host (process 139)`, `process 140 (nginx)`, or `another process`."""
    wanted = {f"socket:[{inode}]" for inode in _listening(port)}
    for pid in filter(str.isdigit, os.listdir("/proc")) if wanted else ():
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                    return _words(pid)
    return "another process"


def _listening(port: int) -> list[str]:
    """The inodes of the sockets that listen there."""
    found = []
    for table in _TABLES:
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found


def _words(pid: str) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    if is_daemon(arguments):
        return f"a swarm daemon of this host (process {pid})"
    return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text('utf-8', 'replace').strip()})"


def is_daemon(arguments: list[str]) -> bool:
    """Whether a command line is that of `swarm up`, as a program or as a module of Python."""
    names = [os.path.basename(each) for each in arguments]
    return any((name == "swarm" or arguments[at].endswith("swarm/__main__.py")) and "up" in names[at + 1 :]
               for at, name in enumerate(names))  # fmt: skip
