"""The UDP socket: datagrams in and out, nothing more.

Never connected, so that one dead peer's ICMP answer does not close it. Errors of the network are counted and swallowed: gossip
expects loss. Keeps `ports.PacketSocket`.
"""

from __future__ import annotations

import socket
from collections import Counter

import trio

from swarm.errors import StartRefused

DRAIN_PACKETS_MAX = 64
"""A drain stops here, so that no step of the loop takes more than 5 ms."""
_DATAGRAM_BYTES_MAX = 2048
"""Larger than any packet of ours, so that a longer one is seen to be too long instead of being cut to fit."""
_BUFFER_BYTES = 1024 * 1024
"""What the kernel keeps for us during a stall: some 700 packets."""


class UdpSocket:
    """One bound UDP socket. `counters` tells what went wrong, by reason."""

    def __init__(self, host: str, port: int) -> None:
        """Bind. Raises `StartRefused` when the address is taken or not ours."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.counters: Counter[str] = Counter()
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise StartRefused(
                f"cannot listen on UDP {host}:{port}: {error.strerror}",
                cause="another program holds the port, or the address is not on this host",
                hint="stop the other program, or choose another address with --listen",
            ) from None

    @property
    def address(self) -> tuple[str, int]:
        """Where it is bound."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def receive(self) -> list[tuple[bytes, tuple[str, int]]]:
        """Wait for at least one datagram and drain what is there, at most 64."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            datagrams = self.drain()
            if datagrams:
                return datagrams

    def drain(self) -> list[tuple[bytes, tuple[str, int]]]:
        """What is there now, at most 64 datagrams."""
        datagrams: list[tuple[bytes, tuple[str, int]]] = []
        for _ in range(DRAIN_PACKETS_MAX):
            try:
                data, source = self._socket.recvfrom(_DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError as error:
                self.counters[f"receive_{error.errno}"] += 1
                continue
            datagrams.append((data, (source[0], source[1])))
        return datagrams

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        """Send or drop; a full buffer or a network error is counted."""
        try:
            self._socket.sendto(data, address)
        except (OSError, OverflowError) as error:
            self.counters[f"send_{getattr(error, 'errno', 'bad_address')}"] += 1

    def close(self) -> None:
        """Release the port."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
