"""A rolling upgrade across one schema version, on real hosts under running containers; and one step back.

The older program is this one without what its newest schema brought: a copy of its source in which the registry of entries
ends one schema earlier.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from swarm.model.command import COMMANDS, SCHEMA_KNOWN, SCHEMA_SINCE
from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.host import SWARM
from testnet.layout import REPOSITORY
from testnet.observer import Observer
from tests.integration.live_cluster import WORK, Cluster, assert_clear_error, eventually

pytestmark = pytest.mark.testnet


def older_program(folder: Path) -> Path:
    """An executable `swarm` that knows one schema less."""
    shutil.copytree(REPOSITORY / "swarm", folder / "swarm")
    registry = folder / "swarm/model/command.py"
    text, count = re.subn(r"^SCHEMA_KNOWN = \d+$", f"SCHEMA_KNOWN = {SCHEMA_KNOWN - 1}", registry.read_text(), flags=re.M)
    assert count == 1
    newest = [kind for (kind, version), since in SCHEMA_SINCE.items() if since == SCHEMA_KNOWN]
    assert newest and all(COMMANDS[kind][0] == 1 for kind in newest), "a kind's new version needs its class as it was"
    text += f"\nfor _kind in {newest!r}:\n    del COMMANDS[_kind], SCHEMA_SINCE[_kind, 1]\n"
    registry.write_text(text)
    script = folder / "older-swarm"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(folder)!r})\n"
        "from swarm.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return script


@pytest.mark.timeout(600)
def test_a_rolling_upgrade_restarts_no_container_and_new_entries_wait_for_the_last_host(tmp_path: Path) -> None:
    older = older_program(tmp_path)
    many = tmp_path / "many.yml"
    many.write_text("\n---\n".join(f"name: batch-{n}\nimage: {WORK[0]}\ncommand: [sleep, '1000']" for n in (1, 2)))
    with reserved_instance() as instance, Testnet.up(hosts=3, instance=instance, daemons=False) as net, Observer(net) as seen:
        net.new_token()
        for number in net.hosts:
            net.start_daemon(number, net.daemon_arguments(number, together=True), program=str(older), wait=False)
        net.wait_for_nodes(net.hosts)
        cluster = Cluster(net, seen)
        cluster.wait_voters(3)
        cluster.submit("a")
        ran_all_along = cluster.runs()

        last = cluster.leader()  # an older leader is asked by newer nodes
        first, second = cluster.others(last)
        for number in (first, second):
            upgrade(cluster, number)
            refused = cluster.swarm(first, "task", "submit", "--detach", "--file", str(many))
            assert_clear_error(refused)
            assert "did not declare to know" in refused.stderr, refused.stderr
        upgrade(cluster, last)
        eventually(
            lambda: cluster.swarm(first, "task", "submit", "--detach", "--file", str(many)).returncode == 0,
            "the new kind of entry to be written once all know it",
        )
        cluster.wait_runs("batch-2")
        rows = cluster.json(second, "history")["rows"]
        batch = {row["index"] for row in rows if row["kind"] == "task.submitted" and "batch-" in row["text"]}
        assert len(batch) == 1, "both in one entry"
        assert ran_all_along <= cluster.runs()

        restart(cluster, first, program=str(older))
        eventually(lambda: "upgrade" in cluster.swarm(first, "status").stdout, "the older program to say that it is too old")
        assert cluster.daemon_alive(first)
        cluster.watch_nothing_changes(cluster.runs(), seconds=2)
        restart(cluster, first)
        eventually(lambda: "upgrade" not in cluster.swarm(first, "status").stdout, "the newer program to go on")
        assert {"batch-1", "batch-2"} <= cluster.tasks(first).keys()


def upgrade(cluster: Cluster, number: int) -> None:
    """Restart one host's daemon as this program; what ran goes on running."""
    before = cluster.runs()
    restart(cluster, number)
    cluster.net.wait_for_nodes(cluster.net.hosts, seen_by=number)
    assert cluster.runs() == before


def restart(cluster: Cluster, number: int, *, program: str = str(SWARM)) -> None:
    cluster.net.stop_daemon(number)
    cluster.net.start_daemon(number, cluster.net.record.hosts[number].daemon_arguments, program=program)
