"""API tokens as text: `swarm-api1-` and base32 of the authority's fingerprint, a secret and a checksum.

The fingerprint (SHA-256 of the authority's SubjectPublicKeyInfo) lets the caller know the cluster before it sends the secret;
the cluster keeps only a hash of the secret. Standard library only: the command line reads tokens too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from dataclasses import dataclass

from swarm.errors import UsageError

PREFIX = "swarm-api1-"
_FINGERPRINT_BYTES = 32
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class ApiTokenText:
    """A parsed token. Never logged: `repr` hides the secret."""

    fingerprint: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"ApiTokenText({self.token_id})"

    @property
    def secret_sha256(self) -> bytes:
        return hashlib.sha256(self.secret).digest()

    @property
    def token_id(self) -> str:
        """Twelve hexadecimal digits of the secret's hash: names the token in lists, and finds it."""
        return self.secret_sha256.hex()[:12]

    def text(self) -> str:
        """As the user keeps it."""
        content = self.fingerprint + self.secret
        content += zlib.crc32(content).to_bytes(4, "big")
        return PREFIX + base64.b32encode(content).decode().rstrip("=").lower()


def parse_api_token(text: str) -> ApiTokenText:
    """Raises `UsageError` for anything that is not whole; never quotes it."""
    text = text.strip()
    if not text.startswith(PREFIX):
        hint = "make one on a member with: swarm token api"
        if text.startswith("swarm1-"):
            raise UsageError("this is a join token, not an API token", cause="a join token is never sent to the API", hint=hint)
        raise UsageError("cannot read the API token", cause=f"it does not begin with {PREFIX}", hint=hint)
    body = text.removeprefix(PREFIX).upper()
    try:
        content = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != _FINGERPRINT_BYTES + _SECRET_BYTES + 4 or zlib.crc32(content[:-4]).to_bytes(4, "big") != content[-4:]:
        raise UsageError("cannot read the API token", cause="it is damaged or cut short", hint="copy it whole")
    return ApiTokenText(content[:_FINGERPRINT_BYTES], content[_FINGERPRINT_BYTES:-4])
