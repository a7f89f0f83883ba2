"""The peer port over TCP: one listener for every protocol between nodes, and the way out to the others'.

A connection from outside costs as little as it can until it has proved something: it waits for its first byte without a buffer
(who connects only to see whether the kernel answers is let go and not called an error), then has a bounded time for its
handshake. At most `HANDSHAKES_MAX` are in that state; when one more comes, the oldest is dropped: an honest handshake takes
milliseconds, so a flood would have to bring thousands a second to push one out, where refusing newcomers would let 64 silent
connections lock everybody out.

Promises: only connections that hold the secret reach a handler; whatever arrives before that is counted by reason in
`counters` and raises nothing.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from swarm.adapters.certificates import Contexts, claimed_identity, server_name
from swarm.adapters.listeners import listener_words
from swarm.adapters.tls import TlsStream, shake_hands
from swarm.errors import StartRefused, Unauthenticated, Unreachable, UsageError
from swarm.ports import SecureStream
from swarm.wire.address import format_address, parse_address

HANDSHAKES_MAX = 64
HANDSHAKE_S = 5.0
"""A loaded host is late by up to 1.6 s (measured); a handshake has three legs."""
CONNECT_S = 1.5
"""One repeated SYN (after 1 s) fits. A dialer tries again soon, so a host that comes back is found within this and a back-off."""
UNACKNOWLEDGED_MS = 2_000
"""TCP_USER_TIMEOUT: the kernel gives a connection up when what was sent is not acknowledged for this long."""
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3))
_BACKLOG = 1_024

Handler = Callable[[SecureStream], Awaitable[None]]
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


async def open_listener(host: str, port: int) -> trio.SocketListener:
    """Listen on one address. Port 0 takes any free one. Raises `StartRefused` naming address and reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, ValueError) as error:
        listening.close()
        raise _cannot_listen(host, port, error) from None
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(listening)


def listener_port(listener: trio.SocketListener) -> int:
    """The port it listens on, also when it was opened with 0."""
    return int(listener.socket.getsockname()[1])


class PeerPort:
    """Both ends of the peer port. `use` adds a protocol as soon as its contexts exist; until then it is not spoken."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._contexts: dict[str, Contexts] = {}
        self._handlers: dict[str, Handler] = {}
        self._handshakes: dict[int, trio.CancelScope] = {}
        self._accepted = 0

    def use(self, protocol: str, contexts: Contexts) -> None:
        """Speak `protocol` from here on, or speak it with other contexts."""
        contexts.server.sni_callback = self._choose_context
        self._contexts[protocol] = contexts

    def handle(self, protocol: str, handler: Handler) -> None:
        """Hand verified connections of `protocol` to `handler`, which owns and closes them."""
        self._handlers[protocol] = handler

    # ---- out ----------------------------------------------------------------------------------------------------------------

    async def dial(self, address: str, protocol: str) -> SecureStream:
        """`ports.Dialer`. Raises `Unreachable` or `Unauthenticated`, both saying why in words for people."""
        try:
            host, port = parse_address(address)
        except UsageError as error:  # of the log, not of a person: a restored cluster's first node has none until it declares one
            raise Unreachable(error.message) from None
        plain = await _connect(host, port)
        try:
            with trio.fail_after(HANDSHAKE_S):
                stream = await shake_hands(plain, self._contexts[protocol].client, server_name=server_name(protocol))
        except trio.TooSlowError:
            raise Unreachable(f"connected, but no handshake within {HANDSHAKE_S:g} s: its daemon does not answer") from None
        except _BROKEN as error:
            raise _handshake_error(error) from None
        return self._verified(stream, protocol, address)

    # ---- in -----------------------------------------------------------------------------------------------------------------

    async def serve(
        self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept until cancelled. A lack of file descriptors pauses accepting, it does not end it."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                        raise
                    self.counters["accept_failed"] += 1
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._take, stream)

    async def _take(self, plain: trio.SocketStream) -> None:
        secure = None
        try:
            secure, protocol = await self._admit(plain)
        except (Unauthenticated, _Dropped) as error:
            self.counters[error.reason] += 1
        finally:
            if secure is None:
                plain.socket.close()
        if secure is not None:
            await self._handlers[protocol](secure)

    async def _admit(self, plain: trio.SocketStream) -> tuple[SecureStream, str]:
        """Everything before a connection has proved itself, within its slot and its time."""
        self._accepted += 1
        number = self._accepted
        with trio.move_on_after(HANDSHAKE_S) as scope:
            self._take_slot(number, scope)
            try:
                return await self._handshake(plain)
            except _BROKEN as error:
                raise _Dropped(_reason(error)) from None
            finally:
                self._handshakes.pop(number, None)
        raise _Dropped("handshake_timeout" if trio.current_time() >= scope.deadline else "handshakes_full")

    def _take_slot(self, number: int, scope: trio.CancelScope) -> None:
        if len(self._handshakes) >= HANDSHAKES_MAX:
            self._handshakes.pop(next(iter(self._handshakes))).cancel()
        self._handshakes[number] = scope

    async def _handshake(self, plain: trio.SocketStream) -> tuple[SecureStream, str]:
        first = await plain.socket.recv(1, socket.MSG_PEEK)
        if not first:
            raise _Dropped("bare_connect")
        if not self._contexts:
            raise _Dropped("not_ready")
        _tune(plain)
        some_context = next(iter(self._contexts.values())).server
        remote = _remote(plain)
        stream = await shake_hands(plain, some_context, server_side=True)
        if stream.protocol not in self._handlers:
            stream.close()
            raise _Dropped("unknown_protocol")
        return self._verified(stream, stream.protocol, remote), stream.protocol

    def _choose_context(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> int | None:
        """Called by OpenSSL while it reads the client's first message: the protocol's own authority and certificate."""
        for protocol, contexts in self._contexts.items():
            if name == server_name(protocol):
                connection.context = contexts.server
                return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def _verified(self, stream: TlsStream, protocol: str, address: str) -> SecureStream:
        """Closes what it does not accept."""
        try:
            if stream.protocol != protocol:
                raise Unauthenticated("it speaks another protocol")
            node_id, key_fingerprint = claimed_identity(stream.peer_certificate)
        except BaseException:
            stream.close()
            raise
        return SecureStream(stream, node_id, key_fingerprint, address)


class _Dropped(Exception):
    """A connection that ends before it proved anything; `reason` is what it is counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def _connect(host: str, port: int) -> trio.SocketStream:
    try:
        with trio.fail_after(CONNECT_S):
            plain = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        raise Unreachable(f"no answer to a connection within {CONNECT_S:g} s: the host is down or a firewall drops it") from None
    except socket.gaierror as error:
        raise Unreachable(f"the name {host!r} cannot be resolved: {error.strerror or error}") from None
    except OSError as error:
        raise Unreachable(_connect_error(error)) from None
    except ValueError as error:  # a name that no resolver takes, out of the log
        raise Unreachable(f"the name {host!r} cannot be resolved: {error}") from None
    _tune(plain)
    return plain


def _connect_error(error: OSError) -> str:
    """Trio wraps the errors of several addresses; the first says enough."""
    cause: BaseException = error
    if error.errno is None and isinstance(error.__cause__, BaseException):
        cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused: no swarm daemon listens there"
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


def _tune(plain: trio.SocketStream) -> None:
    """No Nagle delay; a dead connection is noticed by the kernel. A socket that is gone already says so on first use."""
    options: Mapping[int, Any] = {socket.TCP_NODELAY: 1, socket.TCP_USER_TIMEOUT: UNACKNOWLEDGED_MS, **dict(_KEEP_ALIVE)}
    with contextlib.suppress(OSError):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options.items():
            plain.setsockopt(socket.IPPROTO_TCP, option, value)


def _remote(plain: trio.SocketStream) -> str:
    try:
        host, port = plain.socket.getpeername()[:2]
    except OSError:
        return "?"
    return format_address(host, port)


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The TLS error behind Trio's `BrokenResourceError`, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__
    return None


def _handshake_error(error: BaseException) -> Unreachable | Unauthenticated:
    tls = _tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError) or (tls is not None and "ALERT" in (tls.reason or "")):
        return Unauthenticated("its certificate comes from another token or another cluster, or the secret was rotated since")
    if tls is not None and not isinstance(tls, ssl.SSLEOFError):
        return Unreachable(f"what listens there does not speak this protocol ({(tls.reason or 'TLS error').lower()})")
    return Unreachable("it closed the connection during the handshake")


def _reason(error: BaseException) -> str:
    tls = _tls_error(error)
    if tls is None or isinstance(tls, ssl.SSLEOFError):
        return "handshake_cut"
    if isinstance(tls, ssl.SSLCertVerificationError) or "ALERT" in (tls.reason or "") or "CERTIFICATE" in (tls.reason or ""):
        return Unauthenticated.reason
    return "not_tls"


def _cannot_listen(host: str, port: int, error: Exception) -> StartRefused:
    address = format_address(host, port)
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        cause, hint = f"{listener_words(port)} listens there", "stop it, or choose another port with --listen"
    elif number == errno.EADDRNOTAVAIL:
        cause, hint = f"no interface of this host has the address {host}", "give one of this host's addresses with --listen"
    elif number == errno.EACCES:
        cause, hint = "not permitted", "run as root, or choose a port above 1023 with --listen"
    else:
        cause, hint = getattr(error, "strerror", None) or str(error), "check --listen"
    return StartRefused(f"cannot listen on {address} (TCP)", cause=cause, hint=hint)
