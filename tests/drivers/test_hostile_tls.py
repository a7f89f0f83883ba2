"""Other ends of a TLS connection that do what no honest one does: they end that connection and nothing else."""

from __future__ import annotations

import os
import ssl
import struct
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from swarm.adapters.certificates import claimed_identity, contexts, issue
from swarm.adapters.tls import TlsStream, shake_hands
from swarm.errors import Unauthenticated
from swarm.ports import PROTOCOL_PEER
from swarm.wire.keys import cluster_salt
from tests.fakes.loopback_members import CLUSTER, SECRET, key_of, node_id_of

HANDSHAKE_RECORD = 22
KEY_UPDATE_BEGUN = bytes([24, 0, 0, 1])
"""A KeyUpdate's header without its body: who reads it is in the middle of a handshake until the rest comes."""


def certificate_of_version_2() -> bytes:
    """A node's certificate whose version field says 2, which no standard has with extensions; OpenSSL shows it all the same."""
    credentials = issue(SECRET, cluster_salt(CLUSTER), node_id_of(1), key_of(1))
    der = ssl.PEM_cert_to_DER_cert(credentials.certificate.decode())
    assert der.count(bytes.fromhex("a003020102")) == 1
    return der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"))


def test_a_certificate_of_a_version_that_does_not_exist_is_refused_like_any_other() -> None:
    with pytest.raises(Unauthenticated):
        claimed_identity(certificate_of_version_2())


def application_record(key_log: Path, content: bytes, *, kind: int) -> bytes:
    """The first record that the client of that connection sends after its handshake, made by hand (RFC 8446, section 5.2)."""
    [line] = [line for line in key_log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0 ")]
    secret = bytes.fromhex(line.split()[2])
    algorithm = hashes.SHA384() if len(secret) == 48 else hashes.SHA256()

    def expand(label: bytes, length: int) -> bytes:
        full = b"tls13 " + label
        info = struct.pack(">HB", length, len(full)) + full + b"\0"
        return HKDFExpand(algorithm=algorithm, length=length, info=info).derive(secret)

    inner = content + bytes([kind])
    header = struct.pack(">BHH", 23, 0x0303, len(inner) + 16)
    return header + AESGCM(expand(b"key", 32)).encrypt(expand(b"iv", 12), inner, header)


async def connected(key_log: Path) -> tuple[TlsStream, TlsStream]:
    """A client, whose keys are written down, and a server."""
    made = contexts(issue(SECRET, cluster_salt(CLUSTER), node_id_of(1), key_of(1)), PROTOCOL_PEER)
    made.client.keylog_filename = str(key_log)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    found: dict[str, TlsStream] = {}

    async def dial() -> None:
        plain = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        found["client"] = await shake_hands(plain, made.client, server_name="peer.swarm.internal")

    async def take() -> None:
        found["server"] = await shake_hands(await listener.accept(), made.server, server_side=True)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(take)
    return found["client"], found["server"]


async def test_a_handshake_begun_anew_and_not_finished_breaks_the_stream_for_its_writer(tmp_path: Path) -> None:
    """The reader waits for the rest of it; a writer that waited too would be two tasks at one descriptor, which Trio refuses with
    an error that is nobody's to catch."""
    client, server = await connected(tmp_path / "keys")
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.receive_some)
                record = application_record(tmp_path / "keys", KEY_UPDATE_BEGUN, kind=HANDSHAKE_RECORD)
                assert os.write(client._connection.fileno(), record) == len(record)  # past the TLS of this side
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await server.send_all(b"until what was sent has been read")
                        await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    finally:
        client.close()
        server.close()
