"""Bytes of a request's body to a checked value, and small values of queries and paths. Raises only `UsageError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from swarm.errors import UsageError
from swarm.schema.quantities import shown

REQUEST_ID_CHARS_MAX = 64
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
LABEL_VALUE_CHARS_MAX = 256
_LABEL_HINT = "write it like disk=ssd"


def read_object_untrusted(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the request's body", cause=f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError("cannot read the request's body", cause=f"an object is expected, found {shown(found)}")
    return found


def check_fields(found: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Every field known and of its type."""
    for name, value in found.items():
        if name not in known:
            raise UsageError(f"unknown field {shown(name)}", hint=f"known here: {', '.join(sorted(known)) or 'none'}")
        if not isinstance(value, known[name]) or (known[name] is not bool and isinstance(value, bool)):
            raise UsageError(f"bad value for '{name}': {shown(value)}", cause=f"{known[name].__name__} is expected")


def read_request_id(text: str) -> str:
    """A request id as the client sent it: 8 to 64 letters, digits, - and _."""
    if not _REQUEST_ID.fullmatch(text):
        raise UsageError(f"bad request id {shown(text)}", cause="8 to 64 letters, digits, - or _ are expected")
    return text


def read_number(text: str, *, field: str, low: float, high: float) -> float:
    """A number within bounds, from a query."""
    if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
        raise UsageError(f"bad value for '{field}': {shown(text)}", cause=f"a number from {low:g} to {high:g} is expected")
    return float(text)


def read_label_edits(labels: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """Labels to set, or with null to remove."""
    for key, value in labels.items():
        check_label(key, "" if value is None else value)
    return tuple(sorted(labels.items()))


def check_label(key: str, value: object) -> None:
    """A node's label: a key of letters, digits, . _ / - and a short text."""
    if not _LABEL_KEY.fullmatch(key):
        raise UsageError(f"bad label {shown(key)}", cause="a key is 1 to 128 letters, digits, . _ / -", hint=_LABEL_HINT)
    if not isinstance(value, str) or len(value) > LABEL_VALUE_CHARS_MAX or "\0" in value:
        raise UsageError(f"bad value of label {key}: {shown(value)}", cause="short text is expected", hint=_LABEL_HINT)
