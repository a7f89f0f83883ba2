"""Rotations through the API and the command line: what is asked, what is shown, and that no secret is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.client.client import Client
from swarm.errors import Conflict, Unauthorized
from swarm.model.command import AckSecret, AdvanceSecret, RotateSecret
from swarm.model.outcome import Applied
from tests.drivers.test_api_commands import Shell
from tests.drivers.test_api_secure import Authority
from tests.drivers.test_api_secure import served as served_securely
from tests.drivers.test_api_server import asked, served
from tests.fakes.node_face import MemoryFace


class Rotating(MemoryFace):
    """Members answer and the leader goes on by itself, as far as `through`."""

    through = 2

    def apply(self, command: Any, request_id: str = "") -> Applied:
        applied = super().apply(command, request_id)
        if isinstance(command, RotateSecret) and applied.outcome is None and not applied.repeated:
            for step in range(self.through):
                for node_id in self.catalog.nodes:
                    super().apply(AckSecret(node_id, command.number, command.number if step else 0))
                super().apply(AdvanceSecret(command.number, retire=bool(step)))
        return applied


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "swarm.sock"


async def test_a_rotation_is_asked_for_watched_and_repeated_without_effect(path: Path) -> None:
    async with served(path) as (face, _, client):
        before = (await asked(client.get, "/v1/secret")).content
        assert (before["number"], before["phase"], before["since_utc"]) == (0, "none", None)
        found = await asked(client.write, "POST", "/v1/secret/rotate", request_id="r" * 32)
        assert found.status == 202
        shown = found.content
        assert (shown["number"], shown["sending"], shown["phase"], shown["rotating"]) == (1, 0, "adding", True)
        assert shown["waits_for"] == ["n1", "n2", "n3"] and shown["away"] == []
        again = await asked(client.write, "POST", "/v1/secret/rotate", request_id="r" * 32)
        assert again.content == shown and len(face.submitted) == 1
        with pytest.raises(Conflict, match="cannot rotate the secret") as caught:
            await asked(client.write, "POST", "/v1/secret/rotate", request_id="s" * 32)
        assert "under way (adding)" in caught.value.cause and "swarm secret status" in caught.value.hint


async def test_the_same_request_at_a_node_that_does_not_know_it_yet_is_no_second_rotation(path: Path) -> None:
    """Its outcome was unknown, and it is sent again with another fresh secret in it."""
    async with served(path, Rotating()) as (face, _, client):
        await asked(client.write, "POST", "/v1/secret/rotate", request_id="r" * 32)
        command = await face.new_secret(remove="", reason="", request_id="r" * 32)  # type: ignore[arg-type]
        assert face.apply(command, "r" * 32).outcome is not None
        assert face.catalog.secrets.newest == 1


async def test_removing_a_node_rotates_in_the_same_entry_also_while_another_rotation_is_under_way(path: Path) -> None:
    async with served(path) as (face, _, client):
        await asked(client.write, "POST", "/v1/secret/rotate")
        await asked(client.write, "DELETE", "/v1/nodes/n3?force=1")
        assert [type(command).__name__ for command, _ in face.submitted] == ["RotateSecret", "RotateSecret"]
        shown = (await asked(client.get, "/v1/secret")).content
        assert (shown["number"], shown["reason"], shown["waits_for"]) == (2, "node n3 was removed", ["n1", "n2"])


async def test_the_command_line_waits_until_it_is_through_or_says_whom_it_waits_for(path: Path) -> None:
    face = Rotating()
    async with served(path, face):
        shell = Shell(path, face)
        assert "number 0 (never rotated)" in await shell.ok("secret", "status")
        assert "secret 1 is the only one" in await shell.ok("secret", "rotate")
        assert "swarm token show" in await shell.ok("secret", "rotate")
        face.through = 0
        assert "secret 3 is being brought in" in await shell.ok("secret", "rotate", "--detach")
        shown = await shell.ok("secret", "status")
        assert "every member is to accept the new one" in shown and "n1, n2, n3" in shown
        refused = await shell("secret", "rotate")
        assert refused.code == 4 and refused.err.count("error:") == 1
    face = Rotating()
    face.through = 1
    async with served(path, face):
        late = await Shell(path, face)("secret", "rotate", "--timeout", "0", "-o", "json")
        assert late.code == 11 and "every member is to send with the new one; no answer yet of n1, n2, n3" in late.err
        assert json.loads(await Shell(path, face).ok("secret", "status", "-o", "json"))["phase"] == "switching"


async def test_api_tokens_from_before_a_rotation_are_revoked_by_its_end_and_the_caller_is_told_why(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    async with served_securely(tmp_path, old) as (face, local, _):
        token = (await asked(local.write, "POST", "/v1/tokens")).content["token"]
        command = await face.new_secret(remove="", reason="", request_id="r" * 32)  # type: ignore[arg-type]
        face.apply(command)
        during = (await asked(local.write, "POST", "/v1/tokens")).content["id"]
        face.apply(AdvanceSecret(1))
        face.apply(AdvanceSecret(1, retire=True))
        assert list(face.catalog.api_tokens) == [during]
    async with served_securely(tmp_path, new) as (face, _, address):
        await retire(face, old.fingerprint)
        with pytest.raises(Unauthorized, match="before a rotation") as caught, Client(address=address, token=token) as remote:
            await asked(remote.get, "/v1/nodes")
        assert "swarm token api" in caught.value.hint


async def retire(face: MemoryFace, fingerprint: bytes) -> None:
    """Have the log retire the authority of that fingerprint."""
    command = await face.new_secret(remove="", reason="", request_id="r" * 32)  # type: ignore[arg-type]
    face.apply(replace(command, former=replace(command.former, fingerprint=fingerprint)))
    face.apply(AdvanceSecret(1))
    face.apply(AdvanceSecret(1, retire=True))
