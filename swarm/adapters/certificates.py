"""Certificates and TLS contexts: TLS 1.3 only, both sides verified against an authority that every member can rebuild.

The authority's key comes from the cluster's secret (`wire.keys`), so no node is special and nothing is sent. A node signs its own
certificate at each start; the subject is its node id. It is valid from 2000 to 9999: nothing expires while a cluster is switched
off. The certificate proves only that its owner holds the secret; *who* it is, is decided by the key's fingerprint in the log.

One port takes two protocols under two authorities. The client names the protocol as the server name and in ALPN; the server
chooses the context by the first and checks the second. There is no session resumption: it would skip the certificates.

Promise: the private key is read from memory by way of an anonymous file, never from a second place on disk.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.errors import Unauthenticated
from swarm.model.ids import NodeId, is_id
from swarm.model.secret import Authority
from swarm.wire.keys import authority_key

_FROM = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_AUTHORITY_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm authority")])


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node shows and trusts under one authority, in PEM. `key` is secret."""

    authority: bytes
    certificate: bytes
    key: bytes
    authority_fingerprint: bytes
    """SHA-256 of the authority's SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The two ends of one protocol."""

    client: ssl.SSLContext
    server: ssl.SSLContext


def public_key_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER: what `Node.public_key` holds."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key: bytes) -> bytes:
    """SHA-256 of a SubjectPublicKeyInfo: what the log pins."""
    return hashlib.sha256(public_key).digest()


def server_name(protocol: str) -> str:
    """The name by which a client asks for a protocol's context."""
    return protocol.partition("/")[0] + ".swarm.internal"


def issue(secret: bytes, salt: bytes, node_id: NodeId, key: ec.EllipticCurvePrivateKey) -> Credentials:
    """A certificate for this node's key, signed by the authority of (secret, salt). About 0.3 ms."""
    signer = authority_key(secret, salt)
    authority = _authority_certificate(signer)
    leaf = _leaf_certificate(signer, node_id, key.public_key())
    pem = serialization.Encoding.PEM
    return Credentials(
        authority=authority.public_bytes(pem),
        certificate=leaf.public_bytes(pem),
        key=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        authority_fingerprint=fingerprint(public_key_der(signer.public_key())),
    )


def authority_of(secret: bytes, salt: bytes) -> Authority:
    """What is public of the authority of (secret, salt). The certificate's signature differs each time; nobody checks it."""
    signer = authority_key(secret, salt)
    certificate = _authority_certificate(signer).public_bytes(serialization.Encoding.DER)
    return Authority(fingerprint(public_key_der(signer.public_key())), certificate)


def contexts(credentials: Credentials, protocol: str, trusted: Iterable[Authority] = ()) -> Contexts:
    """Both contexts of a protocol between nodes, who may also come under the `trusted` authorities. Some milliseconds: call it
    in a thread."""
    made = Contexts(
        client=_context(credentials, ssl.PROTOCOL_TLS_CLIENT, protocol),
        server=_context(credentials, ssl.PROTOCOL_TLS_SERVER, protocol),
    )
    _trust(made.client, trusted)
    _trust(made.server, trusted)
    return made


def rejoin_contexts(credentials: Credentials, protocol: str, trusted: Iterable[Authority]) -> Contexts:
    """Both contexts of the rejoin handshake. The server takes whom any of the `trusted` authorities signed, retired ones too; the
    client cannot know the server's authority. Both prove their keys, and each compares the other's with what the log pins."""
    made = contexts(credentials, protocol)
    made.client.verify_mode = ssl.CERT_NONE
    _trust(made.server, trusted)
    return made


def _trust(context: ssl.SSLContext, authorities: Iterable[Authority]) -> None:
    """All have one name; OpenSSL tells them apart by the key identifiers in the certificates."""
    certificates = b"".join(authority.certificate for authority in authorities)
    if certificates:
        context.load_verify_locations(cadata=certificates)


def api_context(credentials: Credentials) -> ssl.SSLContext:
    """A server's context for people: our certificate with the authority's behind it; nobody's certificate is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    _load(context, credentials, chain=True)
    return context


class ApiDoor:
    """The API's context for a listener, whose certificate can change while it serves: each handshake takes the present one."""

    def __init__(self, credentials: Credentials) -> None:
        self.context = self._present = api_context(credentials)
        self.context.sni_callback = self._choose

    def replace(self, present: ssl.SSLContext) -> None:
        """Take another context, made by `api_context`, for the handshakes to come."""
        self._present = present

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Called by OpenSSL for every handshake, whether or not the client names a server."""
        connection.context = self._present


def claimed_identity(certificate: bytes | None) -> tuple[NodeId, bytes]:
    """The node id and key fingerprint of a verified peer's certificate (DER). Raises `Unauthenticated`."""
    if certificate is None:
        raise Unauthenticated("no certificate was shown")
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = parsed.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise Unauthenticated(f"a certificate that cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(names) != 1 or not is_id(str(names[0].value)):
        raise Unauthenticated("a certificate that is no node's")
    return NodeId(str(names[0].value)), fingerprint(public_key_der(key))


def _context(credentials: Credentials, kind: int, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([protocol])
    context.options |= ssl.OP_NO_TICKET
    if kind == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    _load(context, credentials, chain=False)
    return context


def _load(context: ssl.SSLContext, credentials: Credentials, *, chain: bool) -> None:
    """The ssl module takes a key from a file only: an anonymous one, gone when closed."""
    pem = credentials.certificate + (credentials.authority if chain else b"") + credentials.key
    descriptor = os.memfd_create("swarm-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    if not chain:
        context.load_verify_locations(cadata=credentials.authority.decode("ascii"))


def _authority_certificate(signer: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    public = signer.public_key()
    usage = _usage(signs_certificates=True)
    return (
        x509.CertificateBuilder()
        .subject_name(_AUTHORITY_NAME)
        .issuer_name(_AUTHORITY_NAME)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _leaf_certificate(
    signer: ec.EllipticCurvePrivateKey, node_id: NodeId, public: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    names = [x509.DNSName(node_id), x509.DNSName("swarm.internal")]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)]))
        .issuer_name(_AUTHORITY_NAME)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
