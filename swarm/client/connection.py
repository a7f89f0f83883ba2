"""HTTP connections of the two kinds: to the local Unix socket, and to a node by HTTPS that proves it belongs to the cluster.

HTTPS trusts no public authority. The API token names the fingerprint of its cluster's authority; the node tells its authority's
certificate, which is only believed when its key has that fingerprint; then a second handshake must be signed by it. Only after
that is the token sent.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl

from swarm.errors import NotFound, Unauthorized, Unavailable
from swarm.schema.waiting import read_note

API_PORT = 4748
CONNECT_S = 5.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        """Raises `Unavailable` or `NotFound` when there is no daemon to talk to."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        try:
            self.sock.connect(self.path)
        except PermissionError:
            self.close()
            hint = "run it as root or as a member of the socket's group, or use --addr with an API token"
            raise Unauthorized(f"cannot use the daemon's socket {self.path}", cause="permission denied", hint=hint) from None
        except OSError as error:
            self.close()
            waiting = read_note(self.path)
            if waiting is not None:
                hint = "it goes on by itself; swarm down ends it"
                raise Unavailable("the daemon here belongs to no cluster yet", cause=waiting.text, hint=hint) from None
            cause = "no such socket" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            hint = "is swarm up running on this host? --socket or SWARM_SOCKET names its socket, --addr another node"
            raise Unavailable(f"no daemon answers at {self.path}", cause=cause, hint=hint) from None
        self.sock.settimeout(self.timeout)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[v6]:port` or `https://...`."""
    text = address.removeprefix("https://").rstrip("/")
    if text.startswith("http://"):
        raise NotFound(f"cannot use {address}", cause="the API speaks HTTPS only", hint="write host or host:port")
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, str(API_PORT)
    if not port.isdigit() or not 0 < int(port) < 65536 or not host.strip("[]"):
        raise NotFound(f"cannot read the address {address!r}", hint="write host or host:port")
    return host.strip("[]"), int(port)


def secure_connection(address: str, fingerprint: bytes, *, timeout_s: float) -> http.client.HTTPSConnection:
    """A connection to a node that holds a certificate of the authority with this fingerprint."""
    host, port = split_address(address)
    certificate, retired = _authority_of(host, port, address)
    if _fingerprint_of(certificate) != fingerprint:
        if fingerprint.hex() in retired:
            raise Unauthorized(
                f"the API token is from before a rotation of the secret of {address}'s cluster",
                cause="it names an authority that the cluster has retired: nothing that shows it can be believed any more",
                hint="make a new one on a member's own host with: swarm token api",
            )
        raise Unauthorized(
            f"{address} belongs to another cluster than the API token", cause="its authority has another key",
            hint="check the address, or make a token on a member's own host with: swarm token api; "
            "one made while the secret is being rotated is good when that is done",
        )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # any member may answer; the authority is the identity
    context.load_verify_locations(cadata=certificate)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _authority_of(host: str, port: int, address: str) -> tuple[str, list[str]]:
    """What the node says its authority is, and which it retired; not believed yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
    try:
        connection.request("GET", "/v1/authority")
        content = json.loads(connection.getresponse().read(65536))
        return str(content["certificate"]), [str(each) for each in content.get("retired", ())]
    except (OSError, http.client.HTTPException) as error:
        hint = "is swarm up running there, and is its API port open (4748 by default)? --addr or SWARM_ADDR names it"
        cause = getattr(error, "strerror", "") or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError):
            cause = "what listens there ends the connection: it is not an API port"
        raise Unavailable(f"no node answers at {address}", cause=cause, hint=hint) from None
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"no swarm node answers at {address}", cause="something else answers there") from None
    finally:
        connection.close()


def _fingerprint_of(certificate: str) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo; empty when it is no certificate."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except ValueError:
        return b""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
