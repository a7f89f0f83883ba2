"""What the cluster's secret becomes: one key per purpose, by HKDF-SHA256 (RFC 5869).

The salt is the cluster id, so that two clusters given the same token share nothing; before a cluster id is known it is the word
`found`, and only the authority for the bootstrap handshake is derived from that. Each purpose has its own label.

Promise: the same secret and salt give the same keys on every node, so no key is ever sent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarm.model.ids import ClusterId

FOUND_SALT = b"found"
"""The salt before a cluster id is known. No cluster id has its length, so it can be nobody's."""

KEY_ID_BYTES = 4

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SCALAR_BYTES = 48
"""128 bits more than the order has, so that reducing them leaves no measurable bias (FIPS 186-5, A.2.1)."""


def cluster_salt(cluster_id: ClusterId) -> bytes:
    """The salt of a cluster: the 16 bytes of its id."""
    return bytes.fromhex(cluster_id)


def derive(secret: bytes, salt: bytes, label: bytes, length: int = 32) -> bytes:
    """`length` bytes for one purpose. About 5 us."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=b"swarm " + label).derive(secret)


def gossip_key(secret: bytes, cluster_id: ClusterId) -> bytes:
    """The AES-256 key from which every sender's packet key comes (`wire.envelope`)."""
    return derive(secret, cluster_salt(cluster_id), b"gossip 1")


def authority_key(secret: bytes, salt: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key of the certificate authority that every holder of the secret can rebuild."""
    scalar = int.from_bytes(derive(secret, salt, b"authority 1", _SCALAR_BYTES)) % (_P256_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


def key_id(key: bytes) -> bytes:
    """A short public name of a key, so that a packet says which one sealed it."""
    return hashlib.sha256(b"swarm key id" + key).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key that seals, and every key that may still open. Invariant: `sending` opens too."""

    sending: bytes
    accepted: tuple[bytes, ...] = ()

    def by_id(self) -> dict[bytes, bytes]:
        """Every key that opens, by its id."""
        return {key_id(key): key for key in (*self.accepted, self.sending)}
