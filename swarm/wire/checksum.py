"""CRC32C (Castagnoli) of bytes that are kept or copied: log rows, votes, snapshots.

Promise: the same polynomial everywhere, so that a checksum made by one node can be checked by another. It finds damage, not
malice; who wrote the bytes is proved elsewhere.
"""

from __future__ import annotations

import crc32c as _crc32c


def crc32c(data: bytes, previous: int = 0) -> int:
    """CRC32C of `data`, continuing from `previous`. About 10 GB/s where the processor has the instruction."""
    return _crc32c.crc32c(data, previous)
