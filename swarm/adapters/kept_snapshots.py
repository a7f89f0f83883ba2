"""The folder of kept snapshots: older states of the catalog, for `swarm backup ls` and for looking back.

One file each (swarm/wire/kept.py), named after its kind and index, written beside with mode 0600, synced, renamed, the folder
synced. Each kind has a retention of its own: so many, so many bytes, so old; the newest of a kind always stays. A file that is
torn or damaged is left where it is, skipped, and told of once.

Everything here blocks on the disk (a large snapshot for seconds): call it in a thread. Promises: what `kept` lists has a whole
header; what `load` returns matches its checksums; a failed `save` leaves nothing under a final name.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from swarm.adapters.store_file import fsync_folder
from swarm.errors import BadMessage, NotFound
from swarm.wire.kept import HEAD_BYTES_MAX, KeptHeader, pack_head, parse_head_untrusted, parse_untrusted

LOG = logging.getLogger("swarm.node")
FOLDER = "kept"
SUFFIX = ".kept"
BESIDE = ".new"
LEFT_S = 3600.0
"""What a crash left beside is older than this; a write takes seconds."""
_NAME = re.compile(r"[a-z]+-[0-9]{1,20}\.kept\Z")
_FILES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Retention:
    """What of a kind stays. Larger: further back, and more of the disk. The newest stays whatever the numbers say."""

    count_max: int = 7
    bytes_max: int = 256 * 1024 * 1024
    age_max_s: float = 14 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """One file with a whole header. Its snapshot is verified by `load`."""

    path: Path
    header: KeptHeader
    size_bytes: int

    @property
    def index(self) -> int:
        """Of the last entry in it."""
        return self.header.meta.index


class KeptSnapshots:
    """The folder below a data folder; made when first needed."""

    def __init__(self, data_folder: Path) -> None:
        self.folder = data_folder / FOLDER
        self._told: set[str] = set()

    def save(self, header: KeptHeader, data: bytes | bytearray) -> Kept:
        """Keep one; one of the same kind and index is replaced. Durable when it returns. Raises OSError, having kept nothing."""
        assert len(data) == header.meta.length, "the header describes the snapshot"
        path = self.folder / f"{header.kind}-{header.meta.index:020d}{SUFFIX}"
        assert _NAME.match(path.name), f"a kind is a word of small letters: {header.kind!r}"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_left()
        write_whole(path, pack_head(header), data)
        return Kept(path, header, path.stat().st_size)

    def kept(self, kind: str = "") -> list[Kept]:
        """What is there (of one kind), the oldest index first. O(number of files): reads their headers."""
        found = []
        for path in self._paths():
            if kind and not path.name.startswith(f"{kind}-"):
                continue
            try:
                with open(path, "rb") as file:
                    header, start = parse_head_untrusted(file.read(HEAD_BYTES_MAX))
                    size_bytes = os.fstat(file.fileno()).st_size
                if size_bytes != start + header.meta.length:
                    raise BadMessage("it is cut off")
            except (OSError, BadMessage) as problem:
                self._tell(path, problem)
                continue
            found.append(Kept(path, header, size_bytes))
        return sorted(found, key=lambda each: (each.index, each.header.taken_utc, each.path.name))

    def load(self, kept: Kept) -> bytes:
        """The snapshot itself, verified. Raises `NotFound` when it is gone or damaged."""
        try:
            header, data = parse_untrusted(kept.path.read_bytes())
        except (OSError, BadMessage) as problem:
            self._tell(kept.path, problem)
            raise NotFound(f"cannot read the kept snapshot {kept.path.name}", cause=str(problem)) from None
        if header != kept.header:
            raise NotFound(f"cannot read the kept snapshot {kept.path.name}", cause="it was replaced meanwhile")
        return data

    def prune(self, kind: str, retention: Retention, now_utc: float) -> list[Kept]:
        """Remove what the retention does not keep of this kind; returns what was removed. What cannot be removed stays."""
        gone, size_bytes = [], 0
        for place, each in enumerate(reversed(self.kept(kind))):
            size_bytes += each.size_bytes
            old = now_utc - each.header.taken_utc > retention.age_max_s
            if place and (place >= retention.count_max or size_bytes > retention.bytes_max or old):
                each.path.unlink(missing_ok=True)
                gone.append(each)
        return gone

    def _paths(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return []
        return [self.folder / name for name in names if _NAME.match(name)][:_FILES_MAX]

    def _remove_left(self) -> None:
        for path in self.folder.glob(f".*{BESIDE}"):
            if time.time() - path.stat().st_mtime > LEFT_S:
                path.unlink(missing_ok=True)

    def _tell(self, path: Path, problem: Exception) -> None:
        if path.name not in self._told:
            self._told.add(path.name)
            LOG.warning("ignores the kept snapshot %s: %s", path, problem)


def write_whole(path: Path, *parts: bytes | bytearray) -> None:
    """Write a file for its owner only: beside, synced, renamed, folder synced. Raises OSError, with nothing left beside. The
    folder may be anybody's: what is written to was not there before, under a name that nobody could have guessed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=BESIDE, dir=path.parent)
    beside = Path(name)
    try:
        with open(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
