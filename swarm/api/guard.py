"""The two doors behind which nothing of the API gets further: a request and a connection.

A bug in a handler, or in the HTTP library when it meets odd bytes, ends that request or connection and is counted; it never
ends the daemon, whose containers and leases have nothing to do with it. Cancellation passes through.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

logger = logging.getLogger("swarm.api")


class ApiCounters(Counter[str]):
    """What the API counted since it started: `api_requests`, `api_bugs`, `api_connections_refused`, ..."""


async def guard_request(work: Callable[[], Awaitable[None]], counters: Counter[str], what: str) -> bool:
    """Run a handler; False when it broke in a way nobody foresaw."""
    try:
        await work()
    except Exception:
        counters["api_bugs"] += 1
        logger.exception("a bug ended the request %s", what)
        return False
    return True


def without_cancellation(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What must pass on of a group: its cancellations and exits; the ordinary errors beside them end here."""
    return group.split(Exception)[1]


async def guard_connection(work: Callable[[], Awaitable[None]], counters: Counter[str]) -> None:
    """Run a connection to its end, whatever that is."""
    try:
        await work()
    except BaseExceptionGroup as group:
        counters["api_connections_broken"] += 1
        passing = without_cancellation(group)
        if passing is not None:
            raise passing from None
    except Exception as error:
        counters["api_connections_broken"] += 1
        logger.info("a connection to the API broke: %s: %s", type(error).__name__, error)
