"""Constraints and preferences: where a task may run and where it would rather.

A constraint is `<attribute>==<value>` or `<attribute>!=<value>`; all of a task's must hold. Attributes: `node.id`,
`node.name` (also `node.hostname`), `node.arch` (also `node.platform.arch`), `node.os` (also `node.platform.os`) and
`node.labels.<key>`. A preference is `spread=<attribute>`. A label a node does not have reads as empty text.

Promise: parsing raises only `UsageError`, which quotes what was written and says what can be.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from swarm.errors import UsageError
from swarm.model.node import Node

_FORM = re.compile(r"\s*([A-Za-z][A-Za-z0-9._/-]*)\s*(==|!=)\s*(.*?)\s*")
_LABEL = "node.labels."
_ATTRIBUTES = {
    "node.id": "id",
    "node.name": "name",
    "node.hostname": "name",
    "node.arch": "arch",
    "node.platform.arch": "arch",
    "node.os": "os",
    "node.platform.os": "os",
}
_ARCH_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_HINT = "write node.labels.<key>, node.name, node.id, node.arch or node.os, then == or !=, then a value"


class Constraint(msgspec.Struct, frozen=True):
    """One parsed condition on a node."""

    attribute: str
    equal: bool
    value: str

    def holds(self, node: Node) -> bool:
        """Whether `node` satisfies it."""
        return (attribute_of(node, self.attribute) == self.value) is self.equal


@lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """Parse one constraint. Raises `UsageError`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"cannot read constraint {text!r}", cause="it is not <attribute>==<value> or !=", hint=_HINT)
    attribute, operator, value = match.groups()
    _check_attribute(attribute, text, "constraint")
    if not value:
        raise UsageError(f"cannot read constraint {text!r}", cause="the value is missing", hint=_HINT)
    return Constraint(attribute, operator == "==", _common_arch(value) if _ATTRIBUTES.get(attribute) == "arch" else value)


@lru_cache(maxsize=4096)
def parse_preference(text: str) -> str:
    """The attribute that `spread=<attribute>` names. Raises `UsageError`."""
    kind, _, attribute = text.partition("=")
    if kind.strip() != "spread" or not attribute.strip():
        raise UsageError(f"cannot read preference {text!r}", cause="only spread=<attribute> is known", hint=_HINT)
    attribute = attribute.strip()
    _check_attribute(attribute, text, "preference")
    return attribute


def attribute_of(node: Node, attribute: str) -> str:
    """The value of a known attribute on `node`; empty when it has none."""
    if attribute.startswith(_LABEL):
        key = attribute[len(_LABEL) :]
        for name, value in node.labels:
            if name == key:
                return value
        return ""
    value = str(getattr(node, _ATTRIBUTES[attribute]))
    return _common_arch(value) if _ATTRIBUTES[attribute] == "arch" else value


def _check_attribute(attribute: str, text: str, what: str) -> None:
    if attribute in _ATTRIBUTES or (attribute.startswith(_LABEL) and len(attribute) > len(_LABEL)):
        return
    raise UsageError(f"cannot read {what} {text!r}", cause=f"nodes have no attribute {attribute!r}", hint=_HINT)


def _common_arch(value: str) -> str:
    return _ARCH_NAMES.get(value.lower(), value.lower())
