"""A pytest plugin of tests/run: tests that need an engine or hosts run on one worker, one after the other."""

from __future__ import annotations

import pytest


# First, since xdist reads the groups in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("docker") or item.get_closest_marker("testnet"):
            item.add_marker(pytest.mark.xdist_group("hosts"))
