"""The Docker Engine, spoken to with docker-py in threads.

docker-py blocks, so every call runs in a thread behind a named limiter: four for starts (more in parallel gain nothing, as
starting is bound by CPU), others for pulls, for stops (each may wait a whole grace) and for quick looks. The API version is
negotiated with each engine. A call that takes longer than its bound is given up: the caller hears UNREACHABLE, the thread stays
until the engine answers or its socket times out. So every operation is idempotent: creating finds what is there, starting what
runs and stopping or removing what is gone do nothing.

Promises: raises only `EngineError`; a container of our name with other labels is never used; a job that ran is not started a
second time by `run`; nothing of the daemon's own docker configuration (credentials) is used for a task.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import docker
import docker.errors
import requests
import trio

from swarm.adapters import engine_streams, images
from swarm.adapters.engine_plan import container_config, error_of, seen_of
from swarm.model.container import ContainerPlan, ContainerSeen, ContainerStatus, EngineEvent, EngineInfo, EngineTrouble
from swarm.model.ids import ClusterId, NodeId
from swarm.ports import EngineError
from swarm.runner import labels

T = TypeVar("T")

QUICK_S = 10.0
START_S = 60.0
PULL_S = 900.0
"""Bounds of a look, a create or start (on an overloaded host both are slow), and a pull."""
STOP_MARGIN_S = 20.0
"""Beyond the grace: the engine kills, unmounts and records."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OURS = (labels.CLUSTER, labels.NODE, labels.TASK, labels.ATTEMPT)


class DockerEngine:
    """One engine at `url` (`unix:///...` or `tcp://...`) for one node. Implements `ports.Engine`."""

    def __init__(self, url: str, *, node_id: NodeId) -> None:
        self.url = url
        self.node_id = node_id
        self.starts = trio.CapacityLimiter(4)
        self.pulls = trio.CapacityLimiter(4)
        self.stops = trio.CapacityLimiter(32)
        self.looks = trio.CapacityLimiter(8)
        self._lock = threading.Lock()
        self._clients: dict[float, docker.APIClient] = {}

    # ---- looking ------------------------------------------------------------------------------------------------------------

    async def info(self) -> EngineInfo:
        """One call; some milliseconds of the engine's time."""
        return await self._in_thread(self.looks, QUICK_S, "ask the engine about itself", self._info)

    async def list(self, cluster_id: ClusterId) -> Sequence[ContainerSeen]:
        """One call, and one more for each container found."""
        return await self._in_thread(self.looks, 3 * QUICK_S, "list containers", self._list, cluster_id)

    async def inspect(self, container_id: str) -> ContainerSeen | None:
        """One call."""
        return await self._in_thread(self.looks, QUICK_S, f"inspect {container_id[:12]}", self._inspect, container_id)

    # ---- changing -----------------------------------------------------------------------------------------------------------

    async def create(self, plan: ContainerPlan, registry_auth: dict[str, str] | None) -> str:
        """Create or find; pulls when the engine lacks the image."""
        return await self._with_image(plan, registry_auth, lambda: self._create(plan))

    async def run(self, plan: ContainerPlan, registry_auth: dict[str, str] | None) -> ContainerSeen:
        """Both calls in one thread. A container that was found and had run already is returned as it is, not started again."""
        abandoned = threading.Event()
        try:
            return await self._with_image(plan, registry_auth, lambda: self._run(plan, abandoned))
        finally:
            abandoned.set()

    async def start(self, container_id: str) -> None:
        """One call."""
        await self._in_thread(self.starts, START_S, f"start {container_id[:12]}", self._start, container_id)

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """One call, as long as the grace at most. The signal is the container's own, given at its creation."""
        bound_s = grace_s + STOP_MARGIN_S
        await self._in_thread(self.stops, bound_s, f"stop {container_id[:12]}", self._stop, container_id, grace_s)

    async def remove(self, container_id: str) -> None:
        """One call. Kills what still runs: the runner removes only what it stopped or gave up."""
        await self._in_thread(self.stops, START_S, f"remove {container_id[:12]}", self._remove, container_id)

    # ---- streams ------------------------------------------------------------------------------------------------------------

    async def events(self, cluster_id: ClusterId) -> AsyncGenerator[EngineEvent, None]:
        """The first item has the action `connected`. Use `contextlib.aclosing`: the stream's socket closes with it."""
        client = await self._in_thread(self.looks, QUICK_S, "reach the engine", self._client, None)
        async with aclosing(engine_streams.events(client, self._filters(cluster_id))) as items:
            async for item in items:
                yield item

    async def logs(
        self, container_id: str, *, follow: bool, tail: int | None, since_utc: float
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """(`stdout` or `stderr`, bytes). Use `contextlib.aclosing`."""
        client = await self._in_thread(self.looks, QUICK_S, "reach the engine", self._client, None)
        chunks = engine_streams.logs(client, container_id, follow=follow, tail=tail, since_utc=since_utc)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    # ---- threads ------------------------------------------------------------------------------------------------------------

    async def _in_thread(
        self, limiter: trio.CapacityLimiter, bound_s: float, doing: str, call: Callable[..., T], *arguments: Any
    ) -> T:
        """Run `call` in a thread. Abandoned (cancelled, or over its bound, the wait for a slot included) it goes on alone, its
        result is dropped, and its slot is free again when it really ends."""
        with trio.move_on_after(bound_s):
            return await trio.to_thread.run_sync(
                self._translated, doing, call, *arguments, limiter=limiter, abandon_on_cancel=True
            )
        raise EngineError(EngineTrouble.UNREACHABLE, f"cannot {doing}: the engine did not answer within {bound_s:g} s")

    def _translated(self, doing: str, call: Callable[..., T], *arguments: Any) -> T:
        """Blocking. Every failure becomes an `EngineError`; a stale connection of the pool is tried once more."""
        for attempt in (1, 2):
            try:
                return call(*arguments)
            except docker.errors.APIError as error:
                raise error_of(error.status_code or 0, str(error.explanation or error), doing) from None
            except requests.ReadTimeout as error:
                raise EngineError(EngineTrouble.UNREACHABLE, f"cannot {doing}: the engine hangs ({error})") from None
            except (requests.RequestException, docker.errors.DockerException, OSError) as error:
                self._forget_clients()
                if attempt == 2 or not isinstance(error, requests.ConnectionError):
                    text = f"cannot {doing}: no engine answers at {self.url} ({error})"
                    raise EngineError(EngineTrouble.UNREACHABLE, text) from None
        raise AssertionError("unreachable")

    def _client(self, timeout_s: float | None) -> docker.APIClient:
        """Blocking. One client per timeout, shared by threads; made again after the engine was away, as its version may change.
        None: one of its own, for a stream."""
        if timeout_s is None:
            _knock(self.url)
            return docker.APIClient(base_url=self.url, version="auto", timeout=QUICK_S)
        with self._lock:
            client = self._clients.get(timeout_s)
        if client is None:
            _knock(self.url)
            client = docker.APIClient(base_url=self.url, version="auto", timeout=timeout_s, max_pool_size=40)
            with self._lock:
                client = self._clients.setdefault(timeout_s, client)
        return client

    def _forget_clients(self) -> None:
        """Without closing them: another thread may be in the middle of an answer."""
        with self._lock:
            self._clients.clear()

    def close(self) -> None:
        """Close idle connections. Calls that are under way end as they may."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _filters(self, cluster_id: ClusterId) -> dict[str, Any]:
        return {"label": [f"{labels.CLUSTER}={cluster_id}", f"{labels.NODE}={self.node_id}"]}

    # ---- blocking calls -----------------------------------------------------------------------------------------------------

    def _info(self) -> EngineInfo:
        client = self._client(QUICK_S)
        found = client.info()
        return EngineInfo(
            engine_id=found.get("ID", ""),
            version=found.get("ServerVersion", ""),
            api_version=client.api_version,
            arch=_ARCHITECTURES.get(found.get("Architecture", ""), found.get("Architecture", "")),
            cpus=int(found.get("NCPU", 0)),
            memory_bytes=int(found.get("MemTotal", 0)),
            root=found.get("DockerRootDir", ""),
            cgroup_driver=found.get("CgroupDriver", ""),
        )

    def _list(self, cluster_id: ClusterId) -> Sequence[ContainerSeen]:
        client = self._client(QUICK_S)
        found = [self._inspect(entry["Id"]) for entry in client.containers(all=True, filters=self._filters(cluster_id))]
        return [seen for seen in found if seen is not None]

    def _inspect(self, container_id: str) -> ContainerSeen | None:
        try:
            return seen_of(self._client(QUICK_S).inspect_container(container_id))
        except docker.errors.NotFound:
            return None

    def _create(self, plan: ContainerPlan) -> str:
        return self._create_or_find(plan)[0]

    def _create_or_find(self, plan: ContainerPlan) -> tuple[str, ContainerSeen | None]:
        """(id, what was found when it existed already)."""
        try:
            made = self._client(START_S).create_container_from_config(container_config(plan), plan.name)
            return made["Id"], None
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            found = self._inspect(plan.name)
            if found is None:  # it is being removed just now
                raise
            if any(found.labels.get(key) != plan.labels.get(key) for key in _OURS):
                text = f"the name {plan.name} is taken by a container that is not this task's"
                raise EngineError(EngineTrouble.CONFLICT, text) from None
            return found.container_id, found

    def _run(self, plan: ContainerPlan, abandoned: threading.Event) -> ContainerSeen:
        container_id, found = self._create_or_find(plan)
        if found is not None and found.status is not ContainerStatus.CREATED:
            return found
        if abandoned.is_set():
            raise EngineError(EngineTrouble.OTHER, f"{plan.name} was given up before it was started")
        self._start(container_id)
        return ContainerSeen(
            container_id=container_id,
            name=plan.name,
            labels=dict(plan.labels),
            status=ContainerStatus.RUNNING,
            started_utc=time.time(),
        )

    def _start(self, container_id: str) -> None:
        self._client(START_S).start(container_id)

    def _stop(self, container_id: str, grace_s: float) -> None:
        try:
            self._client(STOP_MARGIN_S).stop(container_id, timeout=max(0, round(grace_s + 0.49)))
        except docker.errors.NotFound:
            return

    def _remove(self, container_id: str) -> None:
        try:
            self._client(START_S).remove_container(container_id, v=True, force=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != 409:  # 409: its removal is in progress already
                raise

    async def _with_image(
        self, plan: ContainerPlan, registry_auth: dict[str, str] | None, call: Callable[[], T]
    ) -> T:
        """Try, and pull in between when the engine has no such image."""
        doing = f"start {plan.spec.name!r}"
        try:
            return await self._in_thread(self.starts, START_S * 2, doing, call)
        except EngineError as error:
            if error.trouble is not EngineTrouble.NO_IMAGE:
                raise
        await self._in_thread(
            self.pulls, PULL_S, f"pull {plan.spec.image!r}", lambda: self._pull(plan.spec.image, registry_auth)
        )
        return await self._in_thread(self.starts, START_S * 2, doing, call)

    def _pull(self, image: str, registry_auth: dict[str, str] | None) -> None:
        client = self._client(None)
        try:
            images.pull(client, image, registry_auth)
        finally:
            client.close()


def _knock(url: str) -> None:
    """Whether anybody listens at a Unix socket, before a client is built, which would leave its socket open. Raises OSError."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(QUICK_S)
            connection.connect(url.removeprefix("unix://"))
