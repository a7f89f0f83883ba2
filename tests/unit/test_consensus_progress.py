"""What a leader knows of a follower whose log is not what it acknowledged, on a disk that was set back."""

from __future__ import annotations

from swarm.consensus.progress import Progress, Way


def acknowledged(index: int) -> Progress:
    progress = Progress("b", 1, index)  # type: ignore[arg-type]
    progress.hear(1, index, 0.0)
    progress.acknowledge(index)
    return progress


def test_a_refusal_below_what_was_acknowledged_is_not_answered_at_once() -> None:
    progress = acknowledged(10)
    progress.refuse(3)
    assert (progress.way, progress.probe_pending, progress.next) == (Way.PROBE, True, 11), "asked again, it would refuse again"


def test_a_refusal_above_it_is() -> None:
    progress = acknowledged(10)
    progress.next = 21
    progress.refuse(15)
    assert (progress.way, progress.probe_pending, progress.next) == (Way.PROBE, False, 16)


def test_an_answered_round_tells_an_old_refusal_from_a_log_that_has_shrunk() -> None:
    for theirs, match in ((10, 10), (3, 0)):
        progress = acknowledged(10)
        progress.refuse(3)
        progress.forgot(theirs, 12)
        assert progress.match == match
