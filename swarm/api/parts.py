"""A long list as an answer, in parts: to join 100,000 rows, encrypt and write them in one go takes the loop 50 ms and more.

Rows are joined while they come, to parts of some size; each part is written on its own, with room for others in between. The
length is known when the first one goes out, so that for the client it is an answer like any other.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PART_BYTES = 64 * 1024
"""Some 0.2 ms to encrypt. Larger: longer steps. Smaller: more of them."""


class ListAnswer(Response):
    """A JSON list of rows, each encoded before it is added. Complete when it is called."""

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        super().__init__(b"", 200, headers, media_type="application/json")
        self._parts: list[bytes] = []
        self._rows: list[bytes] = []
        self._size_bytes = 0
        self._is_first = True

    def add(self, row: bytes) -> None:
        """One more row. O(its length), and a part's once a part."""
        self._rows.append((b"[" if self._is_first else b",") + row)
        self._is_first = False
        self._size_bytes += len(row) + 1
        if self._size_bytes >= PART_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        self._parts.append(b"".join(self._rows))
        self._rows, self._size_bytes = [], 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI side."""
        self._rows.append(b"[]" if self._is_first else b"]")
        self._end_part()
        parts, self._parts = self._parts, []
        self.headers["content-length"] = str(sum(map(len, parts)))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        parts.reverse()
        while parts:  # let go one by one: to free them all at the end would be one long step, too
            await send({"type": "http.response.body", "body": parts.pop(), "more_body": bool(parts)})
