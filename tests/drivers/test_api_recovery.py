"""`swarm recover` against a served API: what an operator reads before deciding, and in which order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from swarm.api.calls import Api
from swarm.api.face import ApiListeners
from swarm.api.server import Server
from swarm.cli.recover import YES
from swarm.consensus.recovery import Look, Survey
from swarm.drivers.recovery import refuse_needless
from swarm.errors import Conflict
from swarm.model.entry import Configuration, Voter
from swarm.model.generation import RANDOM_BITS
from swarm.model.ids import NodeId
from tests.drivers.test_api_commands import ActingFace, Shell

VOTERS = Configuration(tuple(Voter(f"id-n{number}", 1) for number in (1, 2, 3)))


def look(name: str, *, leads: bool = False, age_s: float = 60.0) -> Look:
    return Look(NodeId(f"id-{name}"), 1, 1, 9, 1, 9, 9, age_s, leads)


class SurveyedFace(ActingFace):
    """A face whose survey a test gives. `begun`: the recoveries it was told to begin, each confirmed with what."""

    survey = Survey(look("n1"), (), VOTERS)

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[str, bool]] = []

    async def survey_recovery(self) -> Survey:
        await trio.lowlevel.checkpoint()
        return self.survey

    def refuse_recovery(self, survey: Survey) -> None:
        if self.is_removed:
            raise Conflict("cannot recover here: this node was removed from the cluster")
        refuse_needless(survey, lambda node_id: self.catalog.nodes[node_id].name, even_behind=False)

    async def begin_recovery(self, *, confirm: str, even_behind: bool) -> int:
        await trio.lowlevel.checkpoint()
        self.begun.append((confirm, even_behind))
        self.status = {"recovery_generation": 1 << RANDOM_BITS}
        return 1 << RANDOM_BITS


@asynccontextmanager
async def surveyed(tmp_path: Path, survey: Survey) -> AsyncIterator[Shell]:
    face = SurveyedFace()
    face.survey = survey
    api = Api(face)
    path = tmp_path / "swarm.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(api, ApiListeners(str(path))).run)
        yield Shell(path, face)
        api.stop.set()


HEALTHY = [
    (Survey(look("n1", leads=True), (look("n2"), look("n3")), VOTERS), "n1 leads with 3 of 3 voters"),
    (Survey(look("n1"), (look("n2", leads=True),), VOTERS), "n2 leads with 2 of 3 voters"),
    (Survey(look("n1", age_s=1.0), (), VOTERS), "n1 heard a leader 1.0 s ago"),
    (Survey(look("n1"), (look("n3"),), VOTERS), "2 of 3 voters are here, and will elect a leader"),
]


@pytest.mark.parametrize(("survey", "why"), HEALTHY, ids=[why for _, why in HEALTHY])
async def test_where_nothing_is_to_be_recovered_that_comes_first_and_nothing_is_called_lost(
    tmp_path: Path, survey: Survey, why: str
) -> None:
    async with surveyed(tmp_path, survey) as swarm:
        said = await swarm.ok("recover", "--dry-run")
        assert said.splitlines()[0] == f"nothing to recover: {why}"
        assert "lost:" not in said and "kept:" not in said
        assert json.loads(await swarm.ok("recover", "--dry-run", "-o", "json"))["needless"] == why
        done = await swarm("recover")
        assert done.code == 4 and "cannot recover" in done.err and "hint: see swarm status" in done.err


async def test_what_the_missing_may_decide_is_said_in_whole_sentences(tmp_path: Path) -> None:
    async with surveyed(tmp_path, Survey(look("n1"), (), VOTERS)) as swarm:
        said = await swarm.ok("recover", "--dry-run")
        assert "nothing to recover" not in said and "kept: everything" in said
        assert "whatever n2, n3 decide from now on, should they be running where this node does not reach them" in said
    pair = Survey(look("n1"), (), Configuration(VOTERS.voters[:2]))
    async with surveyed(tmp_path, pair) as swarm:
        said = await swarm.ok("recover", "--dry-run")
        assert "whatever n2 decides from now on, should it be running where this node does not reach it" in said


async def test_on_a_removed_node_it_is_said_that_it_would_be_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    async with surveyed(tmp_path, Survey(look("n1"), (), VOTERS)) as swarm:
        swarm.face.is_removed = True
        assert "this node was removed from the cluster" in await swarm.ok("recover", "--dry-run")
        done = await swarm("recover")
        assert done.code == 4 and "cannot recover here" in done.err and "To go on without" not in done.err


async def recover(swarm: Shell, *arguments: str, typed: str) -> tuple[int, str]:
    """What somebody who types this is told, all into one pipe; and the exit code."""
    done = await trio.run_process(
        [sys.executable, "-m", "swarm", "recover", *arguments, "--socket", str(swarm.path)], stdin=typed.encode(),
        capture_stdout=True, stderr=subprocess.STDOUT, check=False, env={**os.environ},
    )  # fmt: skip
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("typed", ["n1\n", "  n1 \n"])
async def test_whoever_types_the_name_of_this_node_begins_the_recovery_with_it(tmp_path: Path, typed: str) -> None:
    async with surveyed(tmp_path, Survey(look("n1"), (), VOTERS)) as swarm:
        code, said = await recover(swarm, typed=typed)
        assert code == 0 and said.count("To go on without") == 1
        assert "n1 leads the cluster in recovery 1" in said and "next: start those of n2, n3 that can come back" in said
        assert swarm.face.begun == [("n1", False)]


@pytest.mark.parametrize("typed", ["\n", "n2\n", "", "N1\n", "n\n", "n1 n2\n", "y\n", "yes\nn1\n"])
async def test_whoever_types_anything_else_begins_nothing(tmp_path: Path, typed: str) -> None:
    async with surveyed(tmp_path, Survey(look("n1"), (), VOTERS)) as swarm:
        code, said = await recover(swarm, typed=typed)
        assert code == 2 and "not confirmed, nothing was changed" in said
        assert swarm.face.begun == []


async def test_a_script_that_accepts_the_loss_is_not_asked_and_what_it_began_is_what_it_asked_for(tmp_path: Path) -> None:
    async with surveyed(tmp_path, Survey(look("n1"), (), VOTERS)) as swarm:
        assert "n1 leads the cluster in recovery 1" in await swarm.ok("recover", YES, "--even-behind")
        assert swarm.face.begun == [("n1", True)]


@pytest.mark.parametrize("answer", ["\n", "n2\n", ""])
async def test_into_one_pipe_the_table_comes_before_the_question_and_the_error_last_and_an_empty_line_is_a_no(
    tmp_path: Path, answer: str
) -> None:
    async with surveyed(tmp_path, Survey(look("n1"), (), VOTERS)) as swarm:
        code, said = await recover(swarm, typed=answer)
    assert code == 2 and said.count("To go on without") == 1
    assert said.index("SURVIVOR") < said.index("lost:") < said.index("To go on without") < said.index("error: not confirmed")
