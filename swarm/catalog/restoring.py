"""A catalog on its way to become a snapshot, in steps of a few milliseconds.

Feed the snapshot's bytes in pieces cut anywhere, then finish. The catalog answers from its old state until the very last step
puts the new one in its place.

Promise: nothing changes before the last step of `finish`; a snapshot that does not decode raises `BadMessage` and changes
nothing.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from swarm.catalog.requests import Requests
from swarm.catalog.snapshot import Reading
from swarm.catalog.state import State


class Restoring:
    """Made by `Catalog.restoring`; `become` puts the result in its place."""

    def __init__(self, become: Callable[[State, Requests], None]) -> None:
        self._become = become
        self._reading = Reading()

    def feed(self, piece: bytes) -> Iterator[None]:
        """Take the next bytes; drain it, with room for others in between. Raises `BadMessage`."""
        return self._reading.feed(piece)

    def finish(self) -> Iterator[None]:
        """All bytes are there; drain it. Raises `BadMessage`."""
        state = State()
        yield from self._reading.finish(state)
        self._become(state, self._reading.requests)
