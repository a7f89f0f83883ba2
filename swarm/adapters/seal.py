"""Sealing bytes that go through the log: to one node's key, or under a random key that is itself sealed to nodes.

To a node: a one-time P-256 key, ECDH with the node's public key, HKDF-SHA256, AES-256-GCM (the construction of ECIES). `purpose`
is bound in as associated data, so that what was sealed for one use does not open for another.

Promise: what does not open raises `Unauthenticated`, for any bytes.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarm.errors import Unauthenticated

_NONCE_BYTES = 12
_POINT_BYTES = 65
_TAG_BYTES = 16


def seal_with_key(key: bytes, plaintext: bytes, purpose: bytes) -> bytes:
    """Seal under a 32-byte key; a random nonce stands in front."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, purpose)


def open_with_key(key: bytes, sealed: bytes, purpose: bytes) -> bytes:
    """The inverse of `seal_with_key`. Raises `Unauthenticated`."""
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise Unauthenticated("too short to be sealed")
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose)
    except InvalidTag:
        raise Unauthenticated("the seal does not open") from None


def seal_to_node(public_key: bytes, plaintext: bytes, purpose: bytes) -> bytes:
    """Seal so that only the holder of `public_key` (DER, P-256: `Node.public_key`) can open. About 150 us."""
    try:
        recipient = serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise Unauthenticated("not a public key") from None
    if not isinstance(recipient, ec.EllipticCurvePublicKey) or not isinstance(recipient.curve, ec.SECP256R1):
        raise Unauthenticated("not a P-256 key")
    once = ec.generate_private_key(ec.SECP256R1())
    point = _point(once.public_key())
    key = _shared_key(once, recipient, point, _point(recipient))
    return point + seal_with_key(key, plaintext, purpose)


def open_as_node(private_key: ec.EllipticCurvePrivateKey, sealed: bytes, purpose: bytes) -> bytes:
    """The inverse of `seal_to_node`, with the node's own key. Raises `Unauthenticated`."""
    point = sealed[:_POINT_BYTES]
    try:
        once = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise Unauthenticated("not sealed to a node") from None
    key = _shared_key(private_key, once, point, _point(private_key.public_key()))
    return open_with_key(key, sealed[_POINT_BYTES:], purpose)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _shared_key(mine: ec.EllipticCurvePrivateKey, theirs: ec.EllipticCurvePublicKey, once: bytes, recipient: bytes) -> bytes:
    shared = mine.exchange(ec.ECDH(), theirs)
    info = b"swarm seal to node 1" + once + recipient
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(shared)
