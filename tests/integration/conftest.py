"""Clusters that tests share: `cluster` is three hosts with a daemon each, mended after every test that used it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.integration.live_cluster import Cluster, Kept


@pytest.fixture(scope="session")
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.close()


@pytest.fixture
def cluster(kept: Kept) -> Iterator[Cluster]:
    with kept.lent(3) as lent:
        yield lent


@pytest.fixture
def untouched(kept: Kept) -> Iterator[Cluster]:
    """The same three hosts for a test that leaves them as they are."""
    with kept.lent(3, mend=False) as lent:
        yield lent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the cluster as it was, not only the assertion."""
    report = yield
    for cluster in [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Cluster)]:
        if report.failed and report.when == "call":
            try:
                report.sections.append(("the cluster", cluster.diagnosis()))
            except Exception as problem:
                report.sections.append(("the cluster", f"could not be asked: {problem!r}"))
    return report
