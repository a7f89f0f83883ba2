"""An engine's own word on when a container was created, started and destroyed: the yardstick for both sides of a comparison.

The stamp is the engine's (`timeNano`), wall time of this one machine, so it does not matter when the watcher reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import docker

from testnet.shared import LABEL_TASK_NAME

ACTIONS = ["create", "start", "destroy"]


class EngineWatch:
    """Follows one engine's events while its block runs: (action, task's or container's name) -> seconds UTC of the first one."""

    def __init__(self, url: str) -> None:
        self.client = docker.APIClient(base_url=url, timeout=600)
        self.seen: dict[tuple[str, str], float] = {}
        self.changed = threading.Condition()
        self.stream: Any = None
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self) -> Self:
        self.stream = self.client.events(decode=True, filters={"type": "container", "event": ACTIONS})
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.stream.close()
        self.thread.join(timeout=5)
        self.client.close()

    def follow(self) -> None:
        try:
            for event in self.stream:
                attributes = event["Actor"]["Attributes"]
                name = attributes.get(LABEL_TASK_NAME) or attributes.get("name", "")
                with self.changed:
                    self.seen.setdefault((event["Action"], name), event["timeNano"] / 1e9)
                    self.changed.notify_all()
        except (OSError, ValueError):
            return  # the block has ended, or the engine has: whoever waits runs into its own limit

    def stamp(self, action: str, name: str) -> float | None:
        with self.changed:
            return self.seen.get((action, name))

    def wait(self, action: str, name: str, *, timeout_s: float) -> float:
        """The engine's stamp of that event; TimeoutError when it does not come."""
        self.wait_until(lambda: (action, name) in self.seen, timeout_s=timeout_s, what=f"{action} event of {name}")
        return self.seen[action, name]

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
        with self.changed:
            if not self.changed.wait_for(condition, timeout=timeout_s):
                raise TimeoutError(f"no {what} within {timeout_s:.0f} s")
