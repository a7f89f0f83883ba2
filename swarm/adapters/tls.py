"""A TLS connection over one non-blocking socket, as cheap as an idle cluster needs it.

Members exchange some ten small frames a second for ever. Trio's own `SSLStream` moves each through two memory buffers, four locks
and up to three turns of the loop; OpenSSL reads and writes the socket itself, so that a frame that has come is one turn and a
frame that leaves is none. The complication is TLS itself: in the handshake reading may want to write and writing to read,
so it waits for whichever OpenSSL names and then tries the same again.

Promises: nothing leaves before the handshake is over; `send_all` gives up its turn only when the kernel takes no more, or after a
large piece; an error of the connection is a `trio.BrokenResourceError` whose cause is the TLS error, as with Trio's streams;
after the handshake a reader waits only to read and a writer only to write, so the two never wait for the same (Trio refuses that
with an error that would end the daemon). Whoever begins another handshake, which none of ours does, is cut off.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

import trio

RECORD_BYTES = 16 * 1024
"""OpenSSL hands over at most one record at a time."""


class TlsStream:
    """Keeps `ports.ByteStream`. Made by `shake_hands`. One task may send while another receives."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection

    @property
    def protocol(self) -> str:
        """The application protocol both sides agreed on; empty for none."""
        return self._connection.selected_alpn_protocol() or ""

    @property
    def peer_certificate(self) -> bytes | None:
        """The other side's, DER."""
        return self._connection.getpeercert(binary_form=True)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand everything to the kernel. Cancelled in between, the stream is of no more use."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except ssl.SSLWantWriteError as wanted:
                await self._wait(wanted)
            except (OSError, ValueError) as error:
                raise self._broken(error) from error
        if len(data) >= RECORD_BYTES:
            await trio.lowlevel.checkpoint()

    def send_now(self, data: bytes) -> bool:
        """See `ports.PromptStream`. One record at most, which OpenSSL takes whole or not at all. An error of the connection shows
        when it is sent again."""
        if len(data) > RECORD_BYTES:
            return False
        try:
            return self._connection.send(data) == len(data)
        except (OSError, ValueError):
            return False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or none when the other side said goodbye."""
        waited = False
        while True:
            try:
                data = self._connection.recv(max_bytes or RECORD_BYTES)
            except ssl.SSLWantReadError as wanted:
                await self._wait(wanted)
                waited = True
            except (OSError, ValueError) as error:
                raise self._broken(error) from error
            else:
                break
        if not waited:
            await trio.lowlevel.checkpoint()
        return data

    async def aclose(self) -> None:
        """Close; the goodbye is sent if the kernel takes it at once."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """`aclose` without giving up the turn."""
        if self._connection.fileno() < 0:
            return
        with contextlib.suppress(OSError, ValueError):
            self._connection.unwrap()
        trio.lowlevel.notify_closing(self._connection)
        self._connection.close()

    async def _wait(self, wanted: ssl.SSLError) -> None:
        if isinstance(wanted, ssl.SSLWantReadError):
            await trio.lowlevel.wait_readable(self._connection)
        else:
            await trio.lowlevel.wait_writable(self._connection)

    def _broken(self, error: Exception) -> Exception:
        if self._connection.fileno() < 0:
            return trio.ClosedResourceError("this stream was closed")
        return trio.BrokenResourceError(str(error))

    async def _handshake(self) -> None:
        while True:
            try:
                self._connection.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                await self._wait(wanted)
            except (OSError, ValueError) as error:
                raise self._broken(error) from error
            else:
                return


async def shake_hands(
    plain: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool = False, server_name: str | None = None
) -> TlsStream:
    """The connection after its handshake; takes `plain` over and closes it on failure. Unbounded: the caller bounds it.

    Raises `trio.BrokenResourceError` with the TLS error as its cause, or `OSError`.
    """
    taken = socket.socket(fileno=plain.socket.detach())
    taken.setblocking(False)
    try:
        taken.getpeername()  # a connection that is reset already: `wrap_socket` would raise too, and leave its socket open
        connection = context.wrap_socket(
            taken,
            server_side=server_side,
            server_hostname=server_name,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
    except BaseException:
        taken.close()
        raise
    stream = TlsStream(connection)
    try:
        await stream._handshake()
    except BaseException:
        stream.close()
        raise
    return stream
