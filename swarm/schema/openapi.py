"""The OpenAPI document, made from the table of routes and the table of task fields, so that it cannot fall behind them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from swarm.schema.document import FIELDS, NETWORKS, POLICIES

_TYPES: dict[str, dict[str, Any]] = {
    "cpus": {"type": "number", "example": 0.5},
    "memory": {"oneOf": [{"type": "string"}, {"type": "integer"}], "example": "128M"},
    "pids_limit": {"type": "integer"},
    "volume_elsewhere": {"type": "boolean"},
    "init": {"type": "boolean"},
    "network": {"type": "string", "enum": list(NETWORKS)},
    "policy": {"type": "string", "enum": list(POLICIES)},
    "restart": {"type": "string", "example": "on-failure:5"},
    "on_node_loss": {"type": "string", "enum": ["replace", "wait"]},
    "stop_grace_s": {"oneOf": [{"type": "string"}, {"type": "number"}], "example": "10s"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "generic": {"type": "object", "additionalProperties": {"type": "integer"}},
    "env": {"oneOf": [{"type": "array", "items": {"type": "string"}}, {"type": "object"}], "example": ["NAME=value"]},
    "mounts": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "object"}]}},
}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_LISTS = ("command", "entrypoint", "ports", "volumes", "constraints", "preferences")
_OPEN = ("/v1/authority", "/v1/openapi.json")
_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/tasks"): {
        "type": "object", "required": ["task"],
        "properties": {"task": {"$ref": "#/components/schemas/Task"}, "registry_auth": {"type": "object"}},
    },
    ("POST", "/v1/tasks/{ref}/stop"): {"type": "object", "properties": {"reason": _TEXT}},
    ("PATCH", "/v1/nodes/{ref}"): {
        "type": "object",
        "properties": {"labels": {"type": "object"}, "availability": {"type": "string", "enum": ["active", "drain"]}},
    },
    ("POST", "/v1/tokens"): {"type": "object", "properties": {"note": _TEXT}},
    ("POST", "/v1/recovery"): {
        "type": "object", "required": ["confirm"], "properties": {"confirm": _TEXT, "even_behind": {"type": "boolean"}},
    },
    ("POST", "/v1/shutdown"): {"type": "object", "properties": {"kind": {"type": "string", "enum": ["pause", "leave"]}}},
}  # fmt: skip


_NUMBER = {"type": "number"}
_NUMBERS = {"type": "object", "additionalProperties": _NUMBER}
_MAYBE = {"type": ["number", "null"]}
_NODE_NAME = {"type": "object", "properties": {"id": _TEXT, "name": _TEXT}}
_EVENT = {
    "type": "object", "required": ["source", "index", "time_utc", "kind", "text", "subjects", "fields"],
    "properties": {
        "source": {"type": "string", "enum": ["log", "gossip"]},
        "index": {"type": ["integer", "null"], "description": "null for what gossip sees here: it has no place in the log"},
        "time_utc": _NUMBER, "kind": {**_TEXT, "example": "member.dead"}, "text": _TEXT, "subjects": _TEXTS,
        "fields": {"type": "object"}, "observer": _TEXT, "observer_id": _TEXT, "node": _TEXT, "node_id": _TEXT,
        "old_status": _TEXT, "status": _TEXT, "death_kind": {"type": ["string", "null"]}, "evidence": _TEXT,
        "number": {"type": "integer"},
    },
}  # fmt: skip
_ROUND_TRIPS = {
    "type": "object",
    "properties": {
        "nodes": {"type": "array", "items": _NODE_NAME},
        "rows": {"type": "array", "items": {"type": "object", "properties": {
            "id": _TEXT, "name": _TEXT, "reason": _TEXT,
            "rtt_ms": {"type": "object", "additionalProperties": _MAYBE},
            "missing": {"type": "object", "additionalProperties": _TEXT},
        }}},
    },
}  # fmt: skip
_GROUPS = ("packets", "bytes", "drops", "suspicions", "deaths", "cases", "loop_lag_ms", "other")
_ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/v1/events"): {"type": "array", "items": _EVENT},
    ("GET", "/v1/rtt"): _ROUND_TRIPS,
    ("GET", "/v1/counters"): {"type": "object", "properties": {"node": _NODE_NAME, **dict.fromkeys(_GROUPS, _NUMBERS)}},
    ("GET", "/v1/nodes"): {"type": "array", "items": {"type": "object", "properties": {
        "last_contact_ms": _MAYBE, "rtt_ms": _MAYBE, "health": _MAYBE,
    }}},
}  # fmt: skip
_QUERIES: dict[tuple[str, str], tuple[str, ...]] = {
    ("GET", "/v1/events"): ("since", "tail", "task", "node", "members", "follow"),
    ("GET", "/v1/history"): ("about", "since", "before", "limit"),
    ("GET", "/v1/state"): ("at", "index", "about", "limit"),
    ("GET", "/v1/diff"): ("from", "to", "limit"),
}


def task_schema() -> dict[str, Any]:
    """JSON Schema of a task document."""
    properties = {name: _TYPES.get(name) or (_TEXTS if name in _LISTS else _TEXT) for name in FIELDS}
    return {"type": "object", "required": ["image"], "additionalProperties": False, "properties": properties}


def openapi_document(routes: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """From (method, path, docstring of its handler)."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, text in routes:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, " ".join(text.split()))
    schemas = {"Task": task_schema(), "Error": _error_schema()}
    bearer = {"type": "http", "scheme": "bearer", "description": "An API token; not needed on the Unix socket."}
    return {
        "openapi": "3.1.0",
        "info": {"title": "swarm", "version": "1", "description": "One node's API; every node takes every command."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"apiToken": bearer}},
        "security": [{"apiToken": []}],
    }


def _operation(method: str, path: str, text: str) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [{"name": n, "in": "query", "required": False, "schema": _TEXT} for n in _QUERIES.get((method, path), ())]
    if method != "GET":
        parameters.append({"name": "Request-Id", "in": "header", "required": False, "schema": _TEXT})
    operation: dict[str, Any] = {
        "summary": text,
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "done"},
            "default": {
                "description": "an error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if (method, path) in _ANSWERS:
        operation["responses"]["2XX"]["content"] = {"application/json": {"schema": _ANSWERS[method, path]}}
    if path in _OPEN:
        operation["security"] = []
    if (method, path) in _BODIES:
        operation["requestBody"] = {"content": {"application/json": {"schema": _BODIES[method, path]}}}
    return operation


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["error", "cause", "hint", "code"],
        "properties": {"error": _TEXT, "cause": _TEXT, "hint": _TEXT, "code": _TEXT},
    }
