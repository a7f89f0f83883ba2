"""The join token: what a person copies from one host to the next.

`swarm1-` and 56 letters and digits: base32 in lower case of the cluster's 32-byte secret and a checksum of 3 bytes. 35 bytes are
exactly 56 base32 digits, so there is no padding and every token has one spelling. Whoever holds it may ask to join; what it
may derive is in `wire.keys`.

Promise: a mistyped token is told apart from a wrong one (a single wrong character always changes the checksum or passes it with
a chance of 2**-24), and no error repeats the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable

from swarm.errors import UsageError

SECRET_BYTES = 32
PREFIX = "swarm1-"
_CHECKSUM_BYTES = 3
_DIGITS = (SECRET_BYTES + _CHECKSUM_BYTES) * 8 // 5


def new_token(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh secret as a token. Hand in `os.urandom` outside of tests."""
    return format_token(random_bytes(SECRET_BYTES))


def format_token(secret: bytes) -> str:
    """The one spelling of a secret."""
    assert len(secret) == SECRET_BYTES
    return PREFIX + base64.b32encode(secret + _checksum(secret)).decode("ascii").lower()


def parse_token(text: str) -> bytes:
    """The secret in a token as a person or file gives it: surrounding blanks and the case of letters do not matter.

    Raises `UsageError`, which says what is wrong and never shows the token.
    """
    token = text.strip().lower()
    if not token:
        raise _not_a_token("it is empty")
    if not token.startswith(PREFIX):
        raise _not_a_token(f"it does not start with '{PREFIX}'")
    digits = token.removeprefix(PREFIX)
    if len(digits) != _DIGITS:
        raise _not_a_token(f"it has {len(digits)} characters after '{PREFIX}' instead of {_DIGITS}")
    try:
        plain = base64.b32decode(digits.upper().encode("ascii"))
    except (binascii.Error, UnicodeEncodeError):
        raise _not_a_token("it contains a character that no token has (only a-z and 2-7 occur)") from None
    secret, checksum = plain[:SECRET_BYTES], plain[SECRET_BYTES:]
    if checksum != _checksum(secret):
        raise _not_a_token("its checksum does not match: a character is wrong or two are swapped")
    return secret


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode("ascii") + secret).digest()[:_CHECKSUM_BYTES]


def _not_a_token(cause: str) -> UsageError:
    return UsageError(
        "cannot read the join token", cause=cause, hint="copy it again from 'swarm token show' on a node of the cluster"
    )
