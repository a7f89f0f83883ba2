"""The API's client: requests, their errors as the exceptions of `swarm.errors`, repetition by request id, and event streams.

A write carries a request id made before its first attempt. When the connection breaks in the middle, the same id is sent again:
it is applied at most once. When the outcome stays unknown, `UnknownOutcome` names the id.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from swarm import errors
from swarm.client.connection import UnixConnection, secure_connection
from swarm.errors import NotFound, OperatorError, Unauthorized, Unavailable, UnknownOutcome

SOCKET_DEFAULT = "/run/swarm/swarm.sock"
REQUEST_S = 45.0
"""Above the API's own limits, so that the answer about a late outcome is the node's."""
STREAM_QUIET_S = 60.0
"""A stream sends something every ten seconds."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Between attempts: some four seconds, longer than an election takes."""
_BROKEN = (OSError, http.client.HTTPException)

_BY_CODE = {
    kind.code: kind
    for kind in (
        errors.UsageError, errors.TooLarge, NotFound, errors.Conflict, errors.NoMember, errors.HeldBack, Unauthorized,
        Unavailable, errors.DiskFull, UnknownOutcome, errors.Overloaded,
    )
}


class Interrupted(KeyboardInterrupt):
    """Somebody pressed Ctrl-C. `said` is what stands now, for people; `request_id` that of a write without an answer."""

    def __init__(self, said: str = "", *, request_id: str = "") -> None:
        super().__init__(said)
        self.said = said
        self.request_id = request_id


class Answer:
    """A response: status, headers with lower-case names, and parsed JSON (None when there is no body; bytes of a file)."""

    __slots__ = ("content", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], content: Any) -> None:
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def stale_s(self) -> str | None:
        """How old what was read may be, when no leader confirmed it."""
        return self.headers.get("swarm-stale-s")


def new_request_id() -> str:
    """128 random bits in hexadecimal."""
    return os.urandom(16).hex()


def task_path(reference: str, *more: str) -> str:
    """`/v1/tasks/...` with the reference quoted."""
    return "/".join(("/v1/tasks", quote(reference, safe=""), *more))


def node_path(reference: str, *more: str) -> str:
    """`/v1/nodes/...` with the reference quoted."""
    return "/".join(("/v1/nodes", quote(reference, safe=""), *more))


def queue_path(reference: str) -> str:
    """`/v1/queue/...` with the reference quoted."""
    return f"/v1/queue/{quote(reference, safe='')}"


class Client:
    """One node's API. Connections are not shared between threads."""

    def __init__(self, *, socket_path: str = SOCKET_DEFAULT, address: str = "", token: str = "") -> None:
        self.socket_path = socket_path
        self.address = address
        self.token = token
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connection, if any."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, query: dict[str, Any] | None = None, *, headers: dict[str, str] | None = None) -> Answer:
        """Read. A broken connection is tried again."""
        return self._attempts("GET", path, query, None, dict(headers or {}))

    def write(
        self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None, *, request_id: str = ""
    ) -> Answer:
        """Change something, at most once however often it must be sent. Ctrl-C raises `Interrupted` with the request id."""
        chosen = request_id or new_request_id()
        try:
            return self._attempts(method, path, query, json.dumps(body or {}).encode(), {"Request-Id": chosen})
        except KeyboardInterrupt:
            raise Interrupted("the outcome is unknown", request_id=chosen) from None

    def stream(
        self, path: str, query: dict[str, Any], *, headers: dict[str, str] | None = None
    ) -> Iterator[tuple[str, str, Any]]:
        """Server-sent events as (id, name, content), until the stream ends. Raises `Unavailable` when it breaks off."""
        connection = self._connect(STREAM_QUIET_S)
        try:
            whole = {**self._headers(), "Accept": "text/event-stream", **(headers or {})}
            connection.request("GET", _target(path, query), headers=whole)
            response = connection.getresponse()
            if response.status != 200:
                raise error_of(response.status, response.read())
            yield from _events(response)
        except _BROKEN as error:
            raise Unavailable("the stream broke off", cause=str(error) or type(error).__name__, hint="try again") from None
        finally:
            connection.close()

    def _attempts(
        self, method: str, path: str, query: dict[str, Any] | None, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        last: Exception | None = None
        refused = ""
        """Why it was refused after an attempt whose outcome is unknown: says nothing about that attempt."""
        for pause_s in (*PAUSES_S, None):
            try:
                return self._once(method, _target(path, query), body, headers)
            except UnknownOutcome as error:
                last = error
            except (Unavailable, errors.Overloaded) as error:
                if last is None:
                    raise  # nothing was carried out; after a broken attempt nobody can say so
                refused = error.cause or error.message
            except ssl.SSLCertVerificationError as error:
                raise Unauthorized(f"{self.where} did not prove that it belongs to the cluster", cause=str(error)) from None
            except _BROKEN as error:
                last = error
            self.close()
            if pause_s is not None:
                time.sleep(pause_s)
        if method == "GET":
            raise Unavailable(f"no answer from {self.where}", cause=str(last) or type(last).__name__)
        raise UnknownOutcome(
            "the outcome is unknown", cause=f"{_why(last)}; asked again, it was refused: {refused}" if refused else _why(last),
            hint=f"ask again with the same id, it is applied at most once: --request-id {headers['Request-Id']}",
        )  # fmt: skip

    def _once(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        if self._connection is None:
            self._connection = self._connect(REQUEST_S)
        self._connection.request(method, target, body, {**self._headers(), **headers})
        response = self._connection.getresponse()
        content = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        if response.status >= 400:
            raise error_of(response.status, content)
        raw = found.get("content-type") == "application/octet-stream"
        return Answer(response.status, found, content if raw else _parsed(content))

    @property
    def where(self) -> str:
        """For messages."""
        return self.address or self.socket_path

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.address else {}

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if not self.address:
            return UnixConnection(self.socket_path, timeout_s=timeout_s)
        if not self.token:
            hint = "make one on a member with: swarm token api, and put it into SWARM_API_TOKEN"
            raise Unauthorized(f"an API token is needed to talk to {self.address}", hint=hint)
        from swarm.schema.apitoken import parse_api_token

        return secure_connection(self.address, parse_api_token(self.token).fingerprint, timeout_s=timeout_s)


def _why(error: Exception | None) -> str:
    """Why nobody knows what became of an attempt."""
    said = error.cause if isinstance(error, OperatorError) else ""
    return said or str(error) or type(error).__name__


def _target(path: str, query: dict[str, Any] | None) -> str:
    chosen = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(chosen)}" if chosen else path


def _parsed(content: bytes) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        raise Unavailable("cannot read the answer", cause="it is not JSON", hint="is that a swarm node?") from None


def error_of(status: int, content: bytes) -> OperatorError:
    """The exception that an error answer means."""
    try:
        found = json.loads(content)
        message, cause, hint, code = (str(found.get(key, "")) for key in ("error", "cause", "hint", "code"))
    except (ValueError, AttributeError):
        return OperatorError(f"the node answered with status {status}")
    error = _BY_CODE.get(code, OperatorError)(message, cause=cause, hint=hint)
    if found.get("existing"):
        error.existing = found["existing"]  # type: ignore[attr-defined]
    return error


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, str, Any]]:
    event_id, name, data = "", "message", ""
    while line := response.readline():
        text = line.decode().rstrip("\r\n")
        if not text:
            if data:
                yield event_id, name, json.loads(data)
            event_id, name, data = "", "message", ""
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "event":
            name = value
        elif field == "data":
            data += value
