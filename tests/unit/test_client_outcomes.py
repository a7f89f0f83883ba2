"""What a client says of a write whose connection broke: that nothing was carried out only when nothing can have been."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarm import errors
from swarm.client import client as client_module
from swarm.client.client import Client, error_of
from swarm.errors import Unavailable, UnknownOutcome

REFUSAL = json.dumps({"error": "no leader", "cause": "", "hint": "", "code": "unavailable"}).encode()
Act = Callable[[socket.socket], None]


def read_request(connection: socket.socket) -> None:
    """All of it: closing a connection with something unread resets it, and the answer with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)


def hang_up(connection: socket.socket) -> None:
    """The request was read, and then the node died."""
    read_request(connection)


def refuse(connection: socket.socket, status: str = "503 Service Unavailable", content: bytes = REFUSAL) -> None:
    read_request(connection)
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + content)


def cannot_say(connection: socket.socket) -> None:
    content = {"error": "may or may not", "cause": "the leader h1 did not answer", "hint": "", "code": "unknown_outcome"}
    refuse(connection, "504 Gateway Timeout", json.dumps(content).encode())


NODES_OWN = {"start_refused", "identity_taken", "bug"}
"""Of a daemon that does not start, or of one request: no answer of the API becomes these."""


def every_kind(root: type[errors.OperatorError]) -> list[type[errors.OperatorError]]:
    return [each for kind in root.__subclasses__() for each in (kind, *every_kind(kind)) if each.__module__ == errors.__name__]


@contextmanager
def node(path: Path, *acts: Act) -> Iterator[Client]:
    """A daemon that treats its first connections so, and is gone after them."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for act in acts:
                connection, _ = listener.accept()
                with connection:
                    act(connection)
            listener.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(socket_path=str(path)) as client:
            yield client
        thread.join(timeout=5)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSES_S", (0.0, 0.0))


def test_a_refusal_at_once_means_that_nothing_was_carried_out(tmp_path: Path) -> None:
    with node(tmp_path / "s", refuse) as client, pytest.raises(Unavailable):
        client.write("POST", "/v1/tasks", {"task": {}})


@pytest.mark.parametrize("second", [refuse, hang_up])
def test_after_a_broken_attempt_no_refusal_makes_the_outcome_certain(tmp_path: Path, second: Act) -> None:
    with node(tmp_path / "s", hang_up, second) as client, pytest.raises(UnknownOutcome) as caught:
        client.write("POST", "/v1/tasks", {"task": {}}, request_id="r1")
    assert "--request-id r1" in caught.value.hint


def test_an_unknown_outcome_is_explained_by_the_attempt_that_left_it_unknown(tmp_path: Path) -> None:
    """And not by the refusal of a later one, which contradicts it."""
    with node(tmp_path / "s", cannot_say, refuse, refuse) as client, pytest.raises(UnknownOutcome) as caught:
        client.write("POST", "/v1/tasks", {"task": {}})
    assert caught.value.cause == "the leader h1 did not answer; asked again, it was refused: no leader"


def test_a_node_that_is_not_there_carried_nothing_out(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Client(socket_path=str(tmp_path / "none")).write("POST", "/v1/tasks", {"task": {}})


@pytest.mark.parametrize("kind", [each for each in every_kind(errors.OperatorError) if each.code not in NODES_OWN])
def test_an_error_is_the_same_on_both_sides_of_the_api(kind: type[errors.OperatorError]) -> None:
    """Else its exit code is another one than docs/cli.md promises."""
    content = json.dumps({"error": "what", "cause": "why", "hint": "how", "code": kind.code}).encode()
    told = error_of(kind.http_status, content)
    assert (told.exit_code, told.code, told.message, told.cause, told.hint) == (kind.exit_code, kind.code, "what", "why", "how")
