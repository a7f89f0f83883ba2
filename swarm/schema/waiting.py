"""The note of a daemon that belongs to no cluster yet: what it waits for, and which data folder it has, beside its socket.

Such a daemon serves nobody, so commands on its host find it by this note. The note is good while the folder's lock is held: a
daemon that was killed leaves its note behind.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

LOCK = "lock"
NOTE_BYTES_MAX = 8192


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who waits, and for what."""

    data: str
    text: str

    @property
    def process(self) -> int:
        """That daemon's id; 0 where we may not look."""
        return process_using(os.path.realpath(os.path.join(self.data, LOCK)))


def write_note(socket: str, waiting: Waiting) -> None:
    """Replace the note whole. A folder that cannot be written costs the note, no more."""
    beside = _path(socket) + ".new"
    with suppress(OSError):
        os.makedirs(os.path.dirname(socket) or ".", mode=0o755, exist_ok=True)
        with open(beside, "w", encoding="utf-8") as opened:
            opened.write(f"{waiting.data}\n{waiting.text}\n")
        os.replace(beside, _path(socket))


def remove_note(socket: str) -> None:
    """It belongs to a cluster, or has ended."""
    with suppress(OSError):
        os.unlink(_path(socket))


def read_note(socket: str) -> Waiting | None:
    """What the daemon of that socket waits for; None when none waits."""
    try:
        with open(_path(socket), encoding="utf-8", errors="replace") as opened:
            data, _, text = opened.read(NOTE_BYTES_MAX).partition("\n")
    except OSError:
        return None
    return Waiting(data, text.strip()) if data and is_locked(os.path.join(data, LOCK)) else None


def is_locked(path: str) -> bool:
    """Whether somebody holds the folder's lock, also one whose files we may not look at."""
    try:
        with open(path, "rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def process_using(path: str) -> int:
    """A process that has the file, or one in the folder, open, as far as we may look; 0 for none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if (target == path or target.startswith(path + "/")) and int(pid) != os.getpid():
                    return int(pid)
    return 0


def _path(socket: str) -> str:
    return socket + ".waiting"
