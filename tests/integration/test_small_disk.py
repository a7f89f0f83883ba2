"""The testnet's own small file systems: full to the last block, freed, and unmounted without a record of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from testnet import small_disk

pytestmark = pytest.mark.testnet


def test_a_small_disk_is_filled_to_the_last_block_and_freed_and_gone_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    small_disk.mount(folder, 24)
    try:
        (folder / "kept").write_bytes(b"before")
        assert small_disk.free_bytes(folder) > 8 * small_disk.MIB
        assert small_disk.fill(folder) == 0
        with pytest.raises(OSError) as refused:
            (folder / "more").write_bytes(bytes(8192))
        assert refused.value.errno == errno.ENOSPC
        small_disk.free(folder)
        (folder / "more").write_bytes(bytes(4 * small_disk.MIB))
        assert (folder / "kept").read_bytes() == b"before"
    finally:
        small_disk.unmount_below(tmp_path)
    assert list(folder.iterdir()) == []
