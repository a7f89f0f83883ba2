"""The exception tree: three families, told apart by who can do something about them.

- `OperatorError`: the person at the keyboard can fix it. Shown as `error:`, `cause:`, `hint:`; never a traceback.
- `PeerError`: the other side broke the rules or is out of reach. Counted, the input dropped, work goes on.
- `Bug`: one of our own invariants is broken. In a core it stops the node (containers keep running), whoever asked the core; in an
  API handler or a stream it ends that one request and is counted.

Every class says when it happens, whether state changed before it was raised, and what the caller should do.
"""

from __future__ import annotations


class SwarmError(Exception):
    """Root of everything this package raises on purpose."""


class OperatorError(SwarmError):
    """Somebody can fix this by doing something. No state changed.

    `message` says what was being done, to what, and what was found; `cause` why; `hint` what to do. `exit_code` is the
    process exit code of the CLI (documented in docs/cli.md); `http_status` the API's; `code` a stable word for programs.
    """

    code = "invalid"
    exit_code = 1
    http_status = 400

    def __init__(self, message: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hint = hint


class UsageError(OperatorError):
    """The request itself is malformed: a bad option, file or value. No state changed; correct it and try again."""

    code = "invalid"
    exit_code = 2
    http_status = 400


class TooLarge(UsageError):
    """The request is over a limit. Nothing was done."""

    code = "too_large"
    http_status = 413


class NotFound(OperatorError):
    """The named task, node or file does not exist, or the prefix names several. No state changed."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class Conflict(OperatorError):
    """The request contradicts what is there (a name in use, a request id with another payload). No state changed."""

    code = "conflict"
    exit_code = 4
    http_status = 409


class NoMember(Conflict):
    """The node that was asked was removed from its cluster. No state changed; ask another one."""

    code = "no_member"


class HeldBack(Conflict):
    """A member of the cluster runs a version that does not know what was to be written. No state changed; upgrade it first."""

    code = "held_back"


class Unauthorized(OperatorError):
    """The token is missing, wrong, or not good for this. No state changed."""

    code = "unauthorized"
    exit_code = 5
    http_status = 401


class Unavailable(OperatorError):
    """There is no leader in reach, or no quorum. The request was NOT carried out; try again when it is back."""

    code = "unavailable"
    exit_code = 6
    http_status = 503


class DiskFull(Unavailable):
    """The leader's disk, or those of a majority of the voters, are full, and nobody can step in. The request was NOT carried out;
    free space there and try again."""

    code = "disk_full"
    http_status = 507


class UnknownOutcome(OperatorError):
    """The request may or may not have been carried out. Ask again with the same request id: it is applied at most once."""

    code = "unknown_outcome"
    exit_code = 7
    http_status = 504


class Overloaded(OperatorError):
    """A queue or limit is full. The request was NOT carried out; try again after a moment."""

    code = "overloaded"
    exit_code = 8
    http_status = 429


class StartRefused(OperatorError):
    """The daemon cannot start (data folder, port, engine, token, another cluster). Nothing was changed on disk."""

    code = "start_refused"
    exit_code = 9


class IdentityTaken(StartRefused):
    """An elder daemon runs under this node's identity: a disk was copied. On disk only a mark that the log here is not to be
    trusted. Decide which host is the node; reset the other."""

    code = "identity_taken"
    exit_code = 13


class PeerError(SwarmError):
    """A peer broke the protocol or cannot be reached. No state changed; drop the input, count it by `reason`, carry on."""

    reason = "peer"


class BadMessage(PeerError):
    """Bytes that do not decode to what they claim to be. The only error that `*_untrusted` functions raise. No state changed."""

    reason = "bad_message"


class Unauthenticated(PeerError):
    """A seal that does not open, or a certificate that is not the one the log names. No state changed."""

    reason = "unauthenticated"


class OtherGeneration(PeerError):
    """The other side follows another recovery of this cluster (`generation`). No state changed; whoever has the earlier number
    gives its log up, unless the other one `has_log` false: then there would be none."""

    reason = "other_generation"

    def __init__(self, message: str, generation: int, *, has_log: bool = True) -> None:
        super().__init__(message)
        self.generation = generation
        self.has_log = has_log


class Unreachable(PeerError):
    """A peer that does not answer (in time). Whether it acted on the request is unknown."""

    reason = "unreachable"


class NotSent(Unreachable):
    """Nothing was sent to the peer: its queue here is full. It did not act; try again after a moment."""


class Bug(SwarmError):
    """A broken invariant of our own. State may be inconsistent: the owner (core, request, stream) must not go on."""


class StoreFailure(SwarmError):
    """The disk refused or damaged data (EIO, failed fsync, checksum mismatch). Never retried as if it had not happened:
    the process stops, containers run on."""


class StoreFull(SwarmError):
    """The disk has no room for a write, found out before anything of it was synced. Nothing was written: the same write may be
    tried again when there is room."""


class UnknownEntry(SwarmError):
    """A log entry of a kind or schema version that this program does not know. Nothing was applied: apply stops there, the
    node says "upgrade me", and its containers run on."""


class NewerSnapshot(BadMessage, UnknownEntry):
    """A snapshot that holds what this program does not know. Nothing was restored: the node says "upgrade me", and its containers
    run on."""

    reason = "newer_snapshot"
