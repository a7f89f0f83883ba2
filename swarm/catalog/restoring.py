"""A catalog on its way to become a snapshot, in steps of a few milliseconds.

Feed the snapshot's bytes in pieces cut anywhere, then finish. The catalog answers from its old state until the very last step
puts the new one in its place. What was there before is then taken apart (`clear`), also in steps.

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
    """Made by `Catalog.restoring`; `become` puts the result in its place and gives back what stood there."""

    def __init__(self, become: Callable[[State, Requests], tuple[State, Requests]]) -> None:
        self._become = become
        self._reading = Reading()
        self._replaced: tuple[State, Requests] | None = None

    def feed(self, piece: bytes) -> Iterator[None]:
        """Take the next bytes; drain it, with room for others in between. Raises `BadMessage`."""
        return self._reading.feed(piece)

    def finish(self) -> Iterator[None]:
        """All bytes are there; drain it. Raises `BadMessage`."""
        state = State()
        yield from self._reading.finish(state)
        self._replaced = self._become(state, self._reading.requests)

    def clear(self) -> Iterator[None]:
        """Let go of what the catalog was before and of what was read; drain it after `finish`."""
        yield from self._reading.clear()
        if self._replaced is not None:
            state, requests = self._replaced
            yield from state.clear_steps()
            yield from requests.clear_steps()
            self._replaced = None
