"""The API over HTTPS: a token is needed, the cluster proves itself before the token is sent, local matters stay local."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from swarm.api.calls import Api
from swarm.api.face import ApiListeners
from swarm.api.server import CONNECTIONS_MAX, Server
from swarm.client.client import Client
from swarm.errors import Unauthorized, Unavailable, UsageError
from tests.fakes.node_face import MemoryFace


def certificate(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    start = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer)).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
    builder = builder.not_valid_after(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


class Authority:
    """One cluster's authority."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = certificate(name, self.key, name, self.key, authority=True)
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = hashlib.sha256(spki).digest()
        self.name = name
        self.folder = folder

    def server_context(self) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificate("node", key, self.name, self.key, authority=False)
        files = (self.folder / f"{self.name}.pem", self.folder / f"{self.name}.key")
        files[0].write_bytes(leaf.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(*files)
        return context


@asynccontextmanager
async def served(
    folder: Path, authority: Authority, shown: Authority | None = None
) -> AsyncIterator[tuple[MemoryFace, Client, str]]:
    """A node of `authority`'s cluster that shows `shown`'s certificate; a local client, and its HTTPS address."""
    known = shown or authority
    face = MemoryFace(authority_pem=known.pem, fingerprint=authority.fingerprint)
    api = Api(face)
    path = folder / "swarm.sock"
    context = authority.server_context()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(Server(api, ApiListeners(str(path), ("127.0.0.1", 0), context)).run)
        with Client(socket_path=str(path)) as local:
            yield face, local, f"127.0.0.1:{port}"
        with trio.fail_after(5):
            api.stop.set()


async def asked(function: Any, *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(function, *arguments)


async def test_a_token_from_the_cluster_opens_the_api_from_afar_until_it_is_revoked(tmp_path: Path) -> None:
    async with served(tmp_path, Authority(tmp_path, "one")) as (_, local, address):
        made = (await asked(local.write, "POST", "/v1/tokens")).content
        with Client(address=address, token=made["token"]) as remote:
            assert len((await asked(remote.get, "/v1/nodes")).content) == 3
            with pytest.raises(Unauthorized, match="Unix socket only"):
                await asked(remote.get, "/v1/join-token")
            with pytest.raises(Unauthorized, match="Unix socket only"):
                await asked(remote.write, "POST", "/v1/shutdown", {"kind": "leave"})
            await asked(local.write, "DELETE", f"/v1/tokens/{made['id']}")
            with pytest.raises(Unauthorized, match="not good here"):
                await asked(remote.get, "/v1/nodes")


async def test_nobody_without_a_token_can_hold_the_api_shut(tmp_path: Path) -> None:
    async with served(tmp_path, Authority(tmp_path, "one")) as (_, local, address):
        token = (await asked(local.write, "POST", "/v1/tokens")).content["token"]
        host, _, port = address.rpartition(":")
        with ExitStack() as held, Client(address=address, token=token) as remote:
            for _ in range(CONNECTIONS_MAX + 10):
                held.enter_context(await asked(socket.create_connection, (host, int(port)), 5))
            assert len((await asked(remote.get, "/v1/nodes")).content) == 3
            for _ in range(CONNECTIONS_MAX + 10):
                held.enter_context(await asked(socket.create_connection, (host, int(port)), 5))
            assert len((await asked(remote.get, "/v1/nodes")).content) == 3
            counters = (await asked(local.get, "/v1/status")).content["counters"]
            assert counters["api_connections_refused"] >= CONNECTIONS_MAX


async def test_a_token_of_another_cluster_is_never_sent(tmp_path: Path) -> None:
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two")
    async with served(tmp_path, one) as (face, local, _):
        token = (await asked(local.write, "POST", "/v1/tokens")).content["token"]
        assert face.stopped == []
    async with served(tmp_path, two) as (_, _, address):
        with pytest.raises(Unauthorized, match="another cluster"), Client(address=address, token=token) as remote:
            await asked(remote.get, "/v1/nodes")


async def test_showing_the_right_authority_without_its_key_does_not_help(tmp_path: Path) -> None:
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two")
    async with served(tmp_path, one) as (_, local, _):
        token = (await asked(local.write, "POST", "/v1/tokens")).content["token"]
    async with served(tmp_path, two, shown=one) as (_, _, address):
        with pytest.raises(Unauthorized, match="did not prove"), Client(address=address, token=token) as remote:
            await asked(remote.get, "/v1/nodes")


async def test_no_token_a_join_token_and_a_damaged_one_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with served(tmp_path, Authority(tmp_path, "one")) as (_, _, address):
        for token, kind in (("", Unauthorized), ("swarm1-abc", UsageError), ("swarm-api1-abc", UsageError)):
            with pytest.raises(kind, match="token"), Client(address=address, token=token) as remote:
                await asked(remote.get, "/v1/nodes")


async def test_without_a_token_only_what_proves_the_cluster_is_served(tmp_path: Path) -> None:
    async with served(tmp_path, Authority(tmp_path, "one")) as (_, _, address):

        def statuses() -> dict[str, int]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            found = {}
            for path in ("/v1/authority", "/v1/openapi.json", "/v1/tasks", "/v1/events", "/v1/status", "/v1/join-token"):
                connection = http.client.HTTPSConnection(address, timeout=5, context=context)
                connection.request("GET", path, headers={"Authorization": "Bearer swarm1-abc"})
                found[path] = connection.getresponse().status
                connection.close()
            return found

        answers = await asked(statuses)
        assert answers.pop("/v1/authority") == answers.pop("/v1/openapi.json") == 200
        assert set(answers.values()) == {401}


async def test_random_bytes_to_the_port_end_their_connection_only(tmp_path: Path) -> None:
    async with served(tmp_path, Authority(tmp_path, "one")) as (_, local, address):
        host, port = address.split(":")
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 200, b"\xff" * 3000, b""):
            stream = await trio.open_tcp_stream(host, int(port))
            async with stream:
                await stream.send_all(data)
        assert (await asked(local.get, "/v1/tasks")).content == []


async def test_nobody_there_is_said_with_the_address() -> None:
    made = "swarm-api1-" + "a" * 109
    with pytest.raises((Unavailable, UsageError)), Client(address="127.0.0.1:1", token=made) as remote:
        await asked(remote.get, "/v1/nodes")
