"""Connect tries: what a host's kernel does with a SYN tells whether the host lives, however busy its daemon is.

A kernel with a listener answers SYN-ACK (accepted), one without RST (refused), a dead host nothing (silent), and the way there
may itself say that it leads nowhere (unreachable). Keeps `ports.Connects`.
"""

from __future__ import annotations

import errno
import select
import socket

import trio


class KernelConnects:
    """TCP connects that are closed as soon as they are answered."""

    async def try_connect(self, address: tuple[str, int], timeout_s: float) -> str:
        """`accepted`, `refused`, `silent` or `unreachable`. Takes at most `timeout_s`.

        When the time is over the socket is looked at once more: a loop that was late itself must not call the other side silent.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as attempt:
            code = attempt.connect_ex(address)
            if code == errno.EINPROGRESS:
                with trio.move_on_after(timeout_s):
                    await trio.lowlevel.wait_writable(attempt)
                if not _ready(attempt):
                    return "silent"
                code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            else:
                await trio.lowlevel.checkpoint()
            return outcome_of(code)


def outcome_of(code: int) -> str:
    """An errno of connect as an outcome. Trouble of our own (no descriptors left) is unreachable, never refused."""
    if code == 0:
        return "accepted"
    if code in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    if code == errno.ETIMEDOUT:
        return "silent"
    return "unreachable"


def _ready(attempt: socket.socket) -> bool:
    poll = select.poll()
    poll.register(attempt, select.POLLOUT)
    return bool(poll.poll(0))
