"""The phases of an assignment: forward only, and drawn truly in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.model.phase import ENDS, LEGAL_MOVES, Phase, may_move
from swarm.model.phase_drawing import draw

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_drawing_in_the_documentation_is_the_table() -> None:
    assert draw() in ARCHITECTURE.read_text()


@pytest.mark.parametrize("end", sorted(ENDS))
def test_an_end_is_final(end: Phase) -> None:
    assert not any(may_move(end, phase) for phase in Phase)


@pytest.mark.parametrize("phase", sorted(set(Phase) - ENDS))
def test_every_phase_may_end_and_none_may_return_to_assigned(phase: Phase) -> None:
    assert all(may_move(phase, end) for end in ENDS)
    assert not may_move(phase, Phase.ASSIGNED)
    assert not may_move(phase, phase)


def test_only_running_and_restarting_alternate() -> None:
    back = [
        (one, other)
        for one, targets in LEGAL_MOVES.items()
        for other in targets
        if other in LEGAL_MOVES and one in LEGAL_MOVES[other]
    ]
    assert {frozenset(pair) for pair in back} <= {
        frozenset({Phase.RUNNING, Phase.RESTARTING}),
        frozenset({Phase.STARTING, Phase.RESTARTING}),
    }
