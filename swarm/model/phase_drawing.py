"""Draws the table of legal phases for the documentation: `python -m swarm.model.phase_drawing`.

The drawing in docs/architecture.md is this text; a test keeps the two the same.
"""

from __future__ import annotations

from swarm.model.phase import ENDS, LEGAL_MOVES


def draw() -> str:
    """One line per phase: where an assignment may go from there. The four ends are written once, as `end`."""
    width = max(len(phase.value) for phase in LEGAL_MOVES)
    lines = []
    for phase, targets in LEGAL_MOVES.items():
        if phase in ENDS:
            continue
        shown = [target.value for target in targets if target not in ENDS]
        if set(targets) >= ENDS:
            shown.append("end")
        lines.append(f"{phase.value:<{width}} -> {', '.join(shown)}")
    lines.append(f"{'end':<{width}} =  {', '.join(sorted(phase.value for phase in ENDS))}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(draw())
