"""An API token as the log keeps it: never the secret, only its hash."""

from __future__ import annotations

import msgspec


class ApiToken(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One token that is good. `secret_sha256` is 32 bytes."""

    token_id: str
    secret_sha256: bytes
    note: str
    created_index: int
    created_utc: float
