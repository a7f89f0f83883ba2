"""`host:port` as people write it: a name or an IP address, the port optional, IPv6 in brackets when a port follows.

Promise: what `parse_address` returns, `format_address` writes in the one spelling used in logs, messages and the catalog.
"""

from __future__ import annotations

import ipaddress
import re

from swarm.errors import UsageError

PEER_PORT = 4747
"""UDP gossip and TCP peers."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")


def parse_address(text: str, default_port: int = PEER_PORT) -> tuple[str, int]:
    """Host and port. Raises `UsageError` naming what was given."""
    given = text.strip()
    host, port = given, str(default_port)
    if given.startswith("["):
        host, _, rest = given[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else port if not rest else "?"
    elif given.count(":") == 1:
        host, _, port = given.partition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise _bad(text, f"{port!r} is no port (1 to 65535)")
    if not _is_ip(host) and _HOST.fullmatch(host) is None:
        raise _bad(text, f"{host!r} is neither an IP address nor a host name")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """`host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bad(text: str, cause: str) -> UsageError:
    return UsageError(f"cannot read the address {text!r}", cause=cause, hint="write host or host:port, such as 10.77.0.11:4747")
