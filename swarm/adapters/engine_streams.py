"""The engine's endless answers: events and logs.

Each item is waited for in a thread of its own short life, so a reader that is cancelled leaves one thread in a read; shutting the
stream's socket down ends that at once. Nothing is read ahead of the consumer: a slow reader slows the engine's side, not us.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

import docker
import docker.errors
import docker.types
import requests
import trio

from swarm.adapters.engine_plan import error_of, event_of
from swarm.model.container import EngineEvent, EngineTrouble
from swarm.ports import EngineError

T = TypeVar("T")

ACTIONS = ("create", "start", "die", "oom", "destroy", "pause", "unpause", "health_status")
_HEADER = struct.Struct(">BxxxL")
_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}
_READERS = trio.CapacityLimiter(256)
"""One reader is one followed log or event stream."""
_END = object()
CONNECT_S = 10.0


async def events(client: docker.APIClient, filters: dict[str, Any]) -> AsyncGenerator[EngineEvent, None]:
    """Ours from now on, after a first item with the action `connected`. Ends when the engine goes away."""
    wanted = {**filters, "type": "container", "event": list(ACTIONS)}
    stream = await _open(client, "watch the engine's events", lambda: client.events(filters=wanted, decode=True))
    try:
        yield EngineEvent(action="connected", container_id="", labels={}, time_utc=0.0)
        while (item := await _next(stream)) is not _END:
            yield event_of(item)
    finally:
        _close(client, stream)


async def logs(
    client: docker.APIClient, container_id: str, *, follow: bool, tail: int | None, since_utc: float
) -> AsyncGenerator[tuple[str, bytes], None]:
    """(stream name, bytes) as the engine frames them."""
    parameters = {
        "stdout": 1,
        "stderr": 1,
        "follow": int(follow),
        "tail": "all" if tail is None else str(tail),
        "since": f"{since_utc:.9f}" if since_utc else "0",
    }
    url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/logs"
    doing = f"read the logs of {container_id[:12]}"

    def get() -> docker.types.CancellableStream:
        response = client.get(url, params=parameters, stream=True, timeout=(CONNECT_S, None))
        if response.status_code != 200:
            raise error_of(response.status_code, response.text.strip(), doing)
        return docker.types.CancellableStream(_frames(response), response)

    stream = await _open(client, doing, get)
    try:
        while (item := await _next(stream)) is not _END:
            yield item
    finally:
        _close(client, stream)


def _frames(response: requests.Response) -> Iterator[tuple[str, bytes]]:
    """Blocking. The engine's frames: one byte of stream, three of nothing, four of length, then so many bytes."""
    while len(header := response.raw.read(_HEADER.size)) == _HEADER.size:
        kind, length = _HEADER.unpack(header)
        yield _NAMES.get(kind, "stdout"), response.raw.read(length)


async def _open(client: docker.APIClient, doing: str, call: Callable[[], T]) -> T:
    try:
        with trio.fail_after(CONNECT_S):
            return await trio.to_thread.run_sync(call, limiter=_READERS, abandon_on_cancel=True)
    except docker.errors.APIError as error:
        client.close()
        raise error_of(error.status_code or 0, str(error.explanation or error), doing) from None
    except (requests.RequestException, docker.errors.DockerException, OSError, trio.TooSlowError) as error:
        client.close()
        raise EngineError(EngineTrouble.UNREACHABLE, f"cannot {doing}: {error}") from None


async def _next(stream: docker.types.CancellableStream) -> Any:
    """The next item or `_END`. Abandoned, the thread ends with the stream's socket."""
    return await trio.to_thread.run_sync(_next_or_end, stream, limiter=_READERS, abandon_on_cancel=True)


def _next_or_end(stream: docker.types.CancellableStream) -> Any:
    try:
        return next(stream, _END)
    except (requests.RequestException, ValueError, AttributeError):
        return _END  # cut off in the middle of an item, or closed under the reader


def _close(client: docker.APIClient, stream: docker.types.CancellableStream) -> None:
    """Shut the socket down, which wakes a reader, then let the pool go."""
    with contextlib.suppress(OSError, AttributeError, docker.errors.DockerException):
        stream.close()
    client.close()
