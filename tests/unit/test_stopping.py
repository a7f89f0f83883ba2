"""Who asked the daemon to end, and how, decides what it does last; a leave that a recovery meets goes on where it belongs."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from swarm.node.stopping import LEAVING, Stopping, remember_leaving, take_leaving


class Ways:
    """A departure that says what it did. Leaving ends when it `may_leave`."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.may_leave = trio.Event()

    async def pause(self) -> None:
        await trio.lowlevel.checkpoint()
        self.story.append("paused")

    async def leave(self) -> None:
        self.story.append("leaves")
        await self.may_leave.wait()
        self.story.append("left")


@pytest.mark.parametrize(
    ("asked", "ended", "story"),
    [
        (("pause",), "pause", ["paused"]),
        (("again",), "again", ["paused"]),
        (("pause", "leave"), "pause", ["paused"]),
        (("leave", "pause"), "leave", ["leaves", "left"]),
        (("again", "pause"), "pause", ["paused"]),
        (("pause", "again"), "pause", ["paused"]),
        (("again", "leave"), "leave again", ["leaves", "paused"]),
    ],
)
async def test_who_asks_first_decides_between_pause_and_leave_and_beginning_anew_comes_after_a_pause(
    asked: tuple[str, ...], ended: str, story: list[str]
) -> None:
    stopping, ways = Stopping(), Ways()
    for kind in asked:
        stopping.request(kind)  # type: ignore[arg-type]
    if "again" not in asked:
        ways.may_leave.set()
    assert stopping.wanted.is_set() and stopping.is_leaving == (ended.startswith("leave"))
    assert await stopping.carry_out(ways) == ended
    assert ways.story == story


async def test_a_recovery_breaks_a_leave_off_that_nobody_can_answer_any_more_and_it_goes_on_after_the_start() -> None:
    stopping, ways = Stopping(), Ways()
    stopping.request("leave")
    ended: list[str] = []

    async def go() -> None:
        ended.append(await stopping.carry_out(ways))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go)
        await trio.testing.wait_all_tasks_blocked()
        assert ways.story == ["leaves"] and ended == []
        stopping.request("again")
    assert ended == ["leave again"] and ways.story == ["leaves", "paused"]


@pytest.mark.parametrize(("ended", "goes_on"), [("leave again", True), ("again", False), ("leave", False), ("pause", False)])
def test_only_a_leave_that_was_broken_off_goes_on_in_the_next_image_and_once(
    monkeypatch: pytest.MonkeyPatch, ended: str, goes_on: bool
) -> None:
    monkeypatch.delenv(LEAVING, raising=False)
    remember_leaving(ended)  # type: ignore[arg-type]
    assert take_leaving() is goes_on
    assert take_leaving() is False and LEAVING not in os.environ
