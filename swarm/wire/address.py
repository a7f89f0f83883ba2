"""`host:port` as people write it: a name or an IP address, the port optional, IPv6 in brackets when a port follows.

Promise: what `parse_address` returns, `format_address` writes in the one spelling used in logs, messages and the catalog.
"""

from __future__ import annotations

import ipaddress
import re

from swarm.errors import UsageError

PEER_PORT = 4747
"""UDP gossip and TCP peers."""

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
"""RFC 1123, and the underscore. What it lets through can be asked of a resolver, which breaks on longer or empty labels."""


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


def is_ip_and_port(text: str) -> bool:
    """Whether it is what `format_address` makes of an IP address: what members say of themselves."""
    try:
        host, port = parse_address(text, 0)
    except UsageError:
        return False
    return _is_ip(host) and "%" not in host and text == format_address(host, port)


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
