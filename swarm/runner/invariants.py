"""What must hold in a runner between any two inputs. Asserted by tests and the simulation.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from swarm.runner.effects import Run, Start

if TYPE_CHECKING:
    from swarm.runner.core import Runner


def check(runner: Runner) -> None:
    """Assert every invariant of `runner`."""
    busy = {id(copy) for copy in (*runner.copies.values(), *runner.strays.values()) if copy.operation is not None}
    for number, copy in runner.operations.items():
        assert copy.operation is not None and copy.operation_number == number, "an operation without its copy"
        assert id(copy) in busy, "an operation of a copy that was forgotten"
    assert len(busy) == len(runner.operations), "a copy believes in an operation that is not in flight"
    claimed = {copy.container.container_id for copy in runner.copies.values() if copy.container is not None}
    assert not claimed & runner.strays.keys(), "a container that is claimed and a stray"
    for assignment_id, copy in runner.copies.items():
        assert copy.assignment_id == assignment_id
        assert copy.record is not None and (copy.gone or assignment_id in runner.held), "a copy nobody holds"
        assert not (copy.ended and copy.waiting), "an ended copy that waits for a start"
        assert copy.report.sequence >= 0 and not math.isnan(copy.try_at)
        if isinstance(copy.operation, (Run, Start)):
            assert copy.record.node_id == runner.node_id, "another node's assignment"
