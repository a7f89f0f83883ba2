"""Scenarios of consensus as text files: commands, and the trace they must give (as etcd/raft keeps them).

A file is a sequence of blocks: commands, a line of dashes, the expected trace, an empty line. Commands:

    cluster ABC [DE]        founders, and nodes that begin with nothing
    timeout A               the time comes at which A has something to do
    deliver [MS]            let messages and writes arrive for so long (1 ms: one hop)
    run SECONDS             let everything happen; the trace is not shown
    propose A TEXT          crash A    start A    wipe A    isolate A    heal    slow A (its disk)    fast A
    voters A BCD            A proposes these voters
    transfer A B            compact A
    copy A                  keep a copy of its disk
    put_back A              put that copy in its disk's place, under the same store generation
    status                  role, term, log, commit, voters of every node, and who holds a lease

`SCENARIOS_WRITE=1` rewrites the expected traces; review the difference.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import OperatorError
from swarm.model.entry import Voter
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import Cluster
from tests.fakes.memory_store import MemoryStore

FOLDER = Path(__file__).with_name("consensus")


class Play:
    """Plays one file."""

    def __init__(self) -> None:
        self.cluster = Cluster("a")
        self.shown = 0
        self.copies: dict[str, MemoryStore] = {}

    def block(self, commands: list[str]) -> list[str]:
        lines: list[str] = []
        for command in commands:
            word, *arguments = command.split()
            action: Callable[..., list[str] | None] = getattr(self, f"do_{word}")
            try:
                lines += action(*arguments) or []
            except OperatorError as error:
                lines.append(f"refused: {error}")
            self.cluster.collect()
            lines += self.cluster.trace[self.shown :]
            self.shown = len(self.cluster.trace)
        return lines or ["(nothing)"]

    def do_cluster(self, names: str, others: str = "") -> None:
        self.cluster = Cluster(names, others)
        self.shown = 0

    def do_timeout(self, name: str) -> None:
        node = self.cluster.nodes[name]
        self.cluster.now = max(self.cluster.now, node.next_deadline)
        node.tick(self.cluster.now + 1e-9)

    def do_deliver(self, milliseconds: str = "1") -> None:
        ticking, self.cluster._true = self.cluster._true, lambda name: float("inf")  # type: ignore[method-assign]
        self.cluster.run(int(milliseconds) / 1000 + 1e-6)
        self.cluster._true = ticking  # type: ignore[method-assign]

    def do_run(self, seconds: str) -> None:
        self.cluster.run(float(seconds))
        self.shown = len(self.cluster.trace)

    def do_propose(self, name: str, text: str) -> None:
        self.cluster.propose(text, name)

    def do_crash(self, name: str) -> None:
        self.cluster.crash(name)

    def do_start(self, name: str) -> None:
        self.cluster.start(name)

    def do_wipe(self, name: str) -> None:
        self.cluster.wipe(name)

    def do_copy(self, name: str) -> None:
        self.copies[name] = copy.deepcopy(self.cluster.disks[name])

    def do_put_back(self, name: str) -> None:
        self.cluster.disks[name] = self.copies.pop(name)

    def do_isolate(self, name: str) -> None:
        self.cluster.isolate(name)

    def do_heal(self) -> None:
        self.cluster.cuts.clear()

    def do_slow(self, name: str) -> None:
        self.cluster.slow_disks.add(name)

    def do_fast(self, name: str) -> None:
        self.cluster.slow_disks.discard(name)

    def do_voters(self, name: str, names: str) -> None:
        target = tuple(Voter(other, 1) for other in names)
        self.cluster.nodes[name].propose_configuration(target, self.cluster.now, self.cluster.now)

    def do_transfer(self, name: str, to: str) -> None:
        self.cluster.nodes[name].transfer_leadership(NodeId(to), self.cluster.now)

    def do_compact(self, name: str) -> None:
        self.cluster.compact(name)

    def do_status(self) -> list[str]:
        lines = []
        for name, node in sorted(self.cluster.nodes.items()):
            voters = "".join(voter.node_id for voter in node.configuration.voters) or "nobody"
            outgoing = "".join(voter.node_id for voter in node.configuration.outgoing)
            lease = ", holds the lease" if node.lease_valid(self.cluster.now) else ""
            lines.append(
                f"{name}: {node.role}, term {node.term}, log to {node.last_index}, commit {node.commit_index}, "
                f"voters {voters}{' and ' + outgoing if outgoing else ''}{lease}"
            )
        return lines


def blocks(text: str) -> list[tuple[list[str], list[str]]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        place = lines.index("----") if "----" in lines else len(lines)
        found.append((lines[:place], lines[place + 1 :]))
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_trace_is_the_one_written_down(path: Path) -> None:
    play = Play()
    text = path.read_text()
    played = [(commands, play.block(commands)) for commands, _ in blocks(text)]
    if os.environ.get("SCENARIOS_WRITE"):
        path.write_text(rewritten(text, played))
    assert played == blocks(path.read_text())


def rewritten(text: str, played: list[tuple[list[str], list[str]]]) -> str:
    parts = []
    for block, (commands, trace) in zip(text.strip().split("\n\n"), played, strict=True):
        comments = [line for line in block.splitlines() if line.startswith("#")]
        parts.append("\n".join([*comments, *commands, "----", *trace]))
    return "\n\n".join(parts) + "\n"
