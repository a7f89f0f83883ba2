"""Ports and mounts as people write them: `6379:6379`, `127.0.0.1:8080:80/udp`, `name:/path:ro`, `type=bind,src=..,dst=..`.

Promise: what comes out is complete and canonical, or `UsageError` says which part of which value is wrong. Pure.
"""

from __future__ import annotations

import ipaddress
import re

from swarm.model.task import Mount, MountKind, Port
from swarm.schema.quantities import bad_value

PORTS_MAX = 200
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORT_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")
_PORT_HINT = "write it like 8080:80, 127.0.0.1:8080:80 or 53:53/udp (host port first)"
_VOLUME_HINT = "write it like data:/var/lib/data, /srv/site:/usr/share/site:ro"
_MOUNT_HINT = "write it like type=bind,src=/srv/site,dst=/site,ro or type=volume,src=data,dst=/data"
_MOUNT_KEYS = {
    "type": "type", "source": "source", "src": "source", "target": "target", "dst": "target", "destination": "target",
    "ro": "read_only", "readonly": "read_only", "read_only": "read_only",
}  # fmt: skip


def parse_ports(value: object, *, field: str = "ports") -> tuple[Port, ...]:
    """The ports of one `[ip:]host:container[/protocol]`; ranges of equal length give several."""
    if not isinstance(value, str):
        raise bad_value(field, value, cause="text is expected", hint=_PORT_HINT + "; in YAML, in quotes")
    text, _, protocol = value.strip().partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise bad_value(field, value, cause=f"the protocol is none of {', '.join(_PROTOCOLS)}", hint=_PORT_HINT)
    host_ip, _, rest = _split_host_ip(text, field, value)
    host, separator, container = rest.partition(":")
    if not separator:
        raise bad_value(field, value, cause="no port on the host is named", hint=_PORT_HINT)
    hosts, containers = _port_range(host, field, value), _port_range(container, field, value)
    if len(hosts) != len(containers):
        raise bad_value(field, value, cause="the two ranges differ in length", hint=_PORT_HINT)
    return tuple(Port(one, other, protocol, host_ip) for one, other in zip(hosts, containers, strict=True))


def _split_host_ip(text: str, field: str, value: object) -> tuple[str, str, str]:
    if text.startswith("["):
        address, _, rest = text[1:].partition("]:")
    elif text.count(":") >= 2:
        address, _, rest = text.partition(":")
    else:
        return "", "", text
    try:
        return str(ipaddress.ip_address(address)), ":", rest
    except ValueError:
        raise bad_value(field, value, cause=f"{address!r} is not an IP address", hint=_PORT_HINT) from None


def _port_range(text: str, field: str, value: object) -> range:
    match = _PORT_RANGE.fullmatch(text)
    if match is None:
        raise bad_value(field, value, cause=f"{text!r} is not a port", hint=_PORT_HINT)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise bad_value(field, value, cause=f"{text} is not within 1 to 65535", hint=_PORT_HINT)
    if last - first >= PORTS_MAX:
        raise bad_value(field, value, cause=f"more than {PORTS_MAX} ports", hint="publish fewer, or use network host")
    return range(first, last + 1)


def parse_volume(value: object, *, field: str = "volumes") -> Mount:
    """One `name:/path[:ro]`, `/host:/path[:ro]`, or `/path` (an anonymous volume)."""
    if not isinstance(value, str):
        raise bad_value(field, value, cause="text is expected", hint=_VOLUME_HINT)
    parts = value.split(":")
    read_only = False
    if len(parts) == 3:
        if parts[2] not in ("ro", "rw"):
            raise bad_value(field, value, cause=f"{parts[2]!r} is neither ro nor rw", hint=_VOLUME_HINT)
        read_only = parts.pop() == "ro"
    if len(parts) == 1:
        return _mount(MountKind.VOLUME, "", parts[0], False, field=field, value=value)
    if len(parts) != 2:
        raise bad_value(field, value, cause="not of the form source:target", hint=_VOLUME_HINT)
    kind = MountKind.BIND if parts[0].startswith(("/", ".", "~")) else MountKind.VOLUME
    if parts[0] == "":
        raise bad_value(field, value, cause="the source is empty", hint=_VOLUME_HINT)
    return _mount(kind, parts[0], parts[1], read_only, field=field, value=value)


def parse_mount(value: object, *, field: str = "mounts") -> Mount:
    """One `type=bind|volume|tmpfs,src=..,dst=..[,ro]`, or a map with those keys."""
    items = value if isinstance(value, dict) else _mount_items(value, field)
    found: dict[str, object] = {}
    for key, item in items.items():
        name = _MOUNT_KEYS.get(key) if isinstance(key, str) else None
        if name is None:
            raise bad_value(field, value, cause=f"unknown key {key!r}", hint=_MOUNT_HINT)
        found[name] = item
    try:
        kind = MountKind(str(found.get("type", "volume")))
    except ValueError:
        raise bad_value(field, value, cause="the type is none of bind, volume, tmpfs", hint=_MOUNT_HINT) from None
    source, target = found.get("source", ""), found.get("target", "")
    if not isinstance(source, str) or not isinstance(target, str):
        raise bad_value(field, value, cause="source and target are paths", hint=_MOUNT_HINT)
    read_only = found.get("read_only", False)
    if read_only not in (True, False, "true", "false", "1", "0", ""):
        raise bad_value(field, value, cause="read_only is true or false", hint=_MOUNT_HINT)
    return _mount(kind, source, target, read_only in (True, "true", "1", ""), field=field, value=value)


def _mount_items(value: object, field: str) -> dict[str, object]:
    if not isinstance(value, str):
        raise bad_value(field, value, cause="text or a map is expected", hint=_MOUNT_HINT)
    pairs = (part.partition("=") for part in value.split(","))
    return {key.strip(): item for key, _, item in pairs}


def _mount(kind: MountKind, source: str, target: str, read_only: bool, *, field: str, value: object) -> Mount:
    if not target.startswith("/") or "\0" in target or target == "/":
        raise bad_value(field, value, cause=f"the target {target!r} is not an absolute path", hint=_VOLUME_HINT)
    if kind is MountKind.BIND and (not source.startswith("/") or "\0" in source):
        raise bad_value(
            field, value, cause=f"the source {source!r} is not an absolute path",
            hint="a path is looked up on the node that runs the task, so it must be absolute",
        )  # fmt: skip
    if kind is MountKind.VOLUME and source and not _VOLUME_NAME.fullmatch(source):
        raise bad_value(field, value, cause=f"{source!r} cannot name a volume", hint="use two or more letters, digits, _ . -")
    if kind is MountKind.TMPFS and source:
        raise bad_value(field, value, cause="a tmpfs has no source", hint=_MOUNT_HINT)
    return Mount(kind, source, target, read_only)
