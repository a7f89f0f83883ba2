"""Full collections are put off while somebody wants it, and nothing is lost to them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from swarm.drivers.collector import DUE, EVERY_S, FULL_COLLECTIONS, collect_now_and_then


class Ring:
    """Freed by the collector alone."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """A collector that takes every occasion."""
    before = gc.get_threshold()
    gc.set_threshold(10, 1, 1)
    yield
    gc.set_threshold(*before)


def collections(generation: int) -> int:
    return int(gc.get_stats()[generation]["collections"])


def grow() -> int:
    """Take so much memory, for long, that a full collection is due; how many there were."""
    before = collections(2)
    kept: list[list[object]] = [[] for _ in range(len(gc.get_objects()))]
    assert kept
    return collections(2) - before


def test_no_full_collection_begins_by_itself_while_they_are_put_off_and_young_ones_do() -> None:
    assert grow() > 0
    with FULL_COLLECTIONS.put_off():
        young = collections(0)
        assert grow() == 0
        assert collections(0) > young
    assert grow() > 0


def test_two_who_want_it_may_end_in_any_order() -> None:
    before = gc.get_threshold()
    first, second = FULL_COLLECTIONS.put_off(), FULL_COLLECTIONS.put_off()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert grow() == 0
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_they_are_back_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="broke"), FULL_COLLECTIONS.put_off():
        raise ValueError("broke")
    assert gc.get_threshold() == before


def test_what_stood_meanwhile_and_is_a_cycle_is_freed_after_it() -> None:
    ring = Ring()
    known = weakref.ref(ring)
    with FULL_COLLECTIONS.put_off():
        grow()
    del ring
    gc.collect()
    assert known() is None


async def passed(*, due: bool) -> int:
    """Full collections in a while, after as many of the younger ones as make one due, or after none."""
    gc.collect()
    if due:
        for _ in range(DUE):
            gc.collect(1)
    before = collections(2)
    await trio.sleep(1.5 * EVERY_S)
    return collections(2) - before


async def test_a_full_collection_that_is_due_gets_a_step_of_its_own_unless_they_are_put_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gc.set_threshold(100_000, 100_000, 100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_now_and_then)
        assert await passed(due=True) == 1
        assert await passed(due=False) == 0
        with FULL_COLLECTIONS.put_off():
            assert await passed(due=True) == 0
        nursery.cancel_scope.cancel()
