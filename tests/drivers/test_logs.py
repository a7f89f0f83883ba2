"""Logs relayed between nodes: in order, each byte once, bounded, and never held up for ever by a node that is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from swarm.drivers.logs import CALL, READER_IDLE_S, LogPlace, LogRelay, LogRequest, LogSource
from swarm.errors import BadMessage, NotFound, PeerError, Unavailable
from swarm.model.container import EngineTrouble
from swarm.model.ids import NodeId
from swarm.ports import EngineError
from swarm.wire.codec import encode
from tests.fakes.memory_peers import MemoryNetwork

HERE, THERE = NodeId("here"), NodeId("there")


class WritingEngine:
    """Containers that have written something; those in `running` go on."""

    def __init__(self) -> None:
        self.written: dict[str, list[tuple[str, bytes]]] = {}
        self.running: set[str] = set()
        self.read = 0
        self.closed = 0
        self.asked: list[tuple[str, int | None, float]] = []

    async def logs(
        self, container_id: str, *, follow: bool, tail: int | None, since_utc: float
    ) -> AsyncIterator[tuple[str, bytes]]:
        self.asked.append((container_id, tail, since_utc))
        if container_id not in self.written:
            raise EngineError(EngineTrouble.NOT_FOUND, f"no such container: {container_id}")
        try:
            place = 0
            while True:
                chunks = self.written[container_id]
                while place < len(chunks):
                    self.read += 1
                    yield chunks[place]
                    place += 1
                if not follow or container_id not in self.running:
                    return
                await trio.sleep(0.01)
        finally:
            self.closed += 1


class Utc:
    """A clock that follows Trio's."""

    def now(self) -> float:
        return trio.current_time()

    def utc(self) -> float:
        return 1000.0 + trio.current_time()


class Pair:
    """Two nodes; the containers are `there`."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.engine = WritingEngine()
        self.source = LogSource(self.engine, Utc())  # type: ignore[arg-type]
        LogRelay(self_id=THERE, source=self.source, peers=self.network.peers(THERE))
        self.relay = LogRelay(self_id=HERE, source=LogSource(WritingEngine(), Utc()), peers=self.network.peers(HERE))  # type: ignore[arg-type]
        self.place: LogPlace | None = LogPlace(THERE, "c1", 1, False)

    def read(self, *, follow: bool = False, tail: int | None = None, since_utc: float = 0.0) -> Any:
        return self.relay.follow(lambda: self.place, follow=follow, tail=tail, since_utc=since_utc)


async def with_source(pair: Pair, work: Callable[[], Any]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(pair.source.run)
        await work()
        nursery.cancel_scope.cancel()


async def test_what_was_written_comes_whole_and_in_order(autojump_clock: MockClock) -> None:
    pair = Pair()
    chunks = [("stdout" if n % 3 else "stderr", bytes([n % 256]) * 5000) for n in range(500)]
    pair.engine.written["c1"] = chunks

    async def work() -> None:
        assert [chunk async for chunk in pair.read()] == chunks
        assert pair.engine.closed == 1

    await with_source(pair, work)


async def test_nobody_reading_stops_the_reading_at_the_source(autojump_clock: MockClock) -> None:
    pair = Pair()
    pair.engine.written["c1"] = [("stdout", b"x" * 1000)] * 5000

    async def work() -> None:
        reading = pair.read()
        assert (await anext(reading))[0] == "stdout"
        await trio.sleep(READER_IDLE_S / 2)
        assert pair.engine.read < 1000
        await trio.sleep(READER_IDLE_S * 2)
        assert pair.engine.closed == 1, "a reader that nobody asks for is closed"
        await reading.aclose()

    await with_source(pair, work)


async def test_a_follower_goes_on_where_the_task_has_gone(autojump_clock: MockClock) -> None:
    pair = Pair()
    pair.engine.written = {"c1": [("stdout", b"one")], "c2": [("stdout", b"two")]}
    pair.engine.running = {"c1", "c2"}
    seen: list[bytes] = []

    async def follow() -> None:
        async for _, data in pair.read(follow=True):
            seen.append(data)

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(1)
            assert seen == [b"one"]
            pair.engine.written["c1"].append(("stdout", b"more"))
            await trio.sleep(1)
            pair.place = LogPlace(THERE, "c2", 2, False)
            pair.engine.running.discard("c1")
            await trio.sleep(7)
            assert seen == [b"one", b"more", b"two"]
            pair.place = LogPlace(THERE, "c2", 2, True)
            pair.engine.running.clear()

    await with_source(pair, work)


async def test_a_node_that_is_gone_is_said_within_a_bound(autojump_clock: MockClock) -> None:
    pair = Pair()
    pair.engine.written["c1"], pair.engine.running = [("stdout", b"one")], {"c1"}

    async def work() -> None:
        reading = pair.read(follow=True)
        assert await anext(reading) == ("stdout", b"one")
        pair.network.isolate(THERE)
        with trio.fail_after(60), pytest.raises(Unavailable, match="does not answer"):
            await anext(reading)

    await with_source(pair, work)


async def test_a_lost_answer_is_given_again(autojump_clock: MockClock) -> None:
    pair = Pair()
    pair.engine.written["c1"] = [("stdout", b"one")]

    async def work() -> None:
        opened = await pair.source.carry_out(HERE, LogRequest("open", "c1"))
        first = await pair.source.carry_out(HERE, LogRequest("next", reader=opened.reader, received=0))
        again = await pair.source.carry_out(HERE, LogRequest("next", reader=opened.reader, received=0))
        assert first == again
        assert first.chunks == (("stdout", b"one"),)
        with pytest.raises(NotFound):
            await pair.source.carry_out(NodeId("stranger"), LogRequest("next", reader=opened.reader))

    await with_source(pair, work)


async def test_who_waits_for_more_is_told_when_the_reading_is_closed(autojump_clock: MockClock) -> None:
    pair = Pair()
    pair.engine.written["c1"] = []
    pair.engine.running.add("c1")

    async def wait_for_more(reader: int) -> None:
        with pytest.raises(NotFound, match="was closed"):
            await pair.source.carry_out(HERE, LogRequest("next", reader=reader))

    async def work() -> None:
        opened = await pair.source.carry_out(HERE, LogRequest("open", "c1", follow=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_more, opened.reader)
            await trio.testing.wait_all_tasks_blocked()
            await pair.source.carry_out(HERE, LogRequest("close", reader=opened.reader))

    await with_source(pair, work)


async def test_no_container_and_no_task_are_told_apart_from_silence(autojump_clock: MockClock) -> None:
    pair = Pair()

    async def work() -> None:
        with pytest.raises(NotFound) as caught:
            await anext(pair.read())
        assert "no such container: c1" in caught.value.cause
        pair.place = LogPlace(THERE, "", 0, False)
        with pytest.raises(NotFound, match="no container yet"):
            await anext(pair.read())
        pair.place = None
        with pytest.raises(NotFound, match="gone"):
            await anext(pair.read(follow=True))

    await with_source(pair, work)


async def test_odd_requests_are_refused(autojump_clock: MockClock) -> None:
    pair = Pair()
    with pytest.raises(BadMessage):
        await pair.source.answer(HERE, b"\xff" * 10)
    with pytest.raises(BadMessage):
        await pair.source.answer(HERE, encode(LogRequest("dance")))
    with pytest.raises((PeerError, Unavailable)):
        await pair.network.nodes[HERE].call(THERE, CALL, encode(LogRequest("open", "c1")), timeout_s=1)
