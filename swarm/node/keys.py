"""The cluster's secrets on this node: in the data folder, and in force in everything that is sealed or shown with them.

What hangs on them: the packets' keyring, the certificates and trust of the three protocols on the peer port, the API's
certificate, the join token. A change is written to the data folder first; then contexts are built in a thread, and all of it is
exchanged in one step of the loop. Connections that stand are left as they are: who is at their other end was checked against
the log.

Promises: one writer of cluster.json, whoever wants something in it changed; a secret that was forgotten opens and signs nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import trio

from swarm.adapters.certificates import (
    ApiDoor,
    Contexts,
    Credentials,
    api_context,
    authority_of,
    contexts,
    fingerprint,
    rejoin_contexts,
)
from swarm.adapters.identity import CLUSTER, DISPLACED, GENERATION, REMOVED, ClusterFile
from swarm.adapters.seal import open_as_node, seal_to_node
from swarm.adapters.store_file import GenerationFile
from swarm.errors import Unauthenticated, Unavailable
from swarm.model.command import RotateSecret
from swarm.model.ids import ClusterId, NodeId, RequestId
from swarm.model.node import Availability, Node
from swarm.model.removal import Removal
from swarm.model.secret import Authority, SealedSecret, Secrets
from swarm.node.belong import join_line
from swarm.node.site import Site
from swarm.ports import PROTOCOL_BOOT, PROTOCOL_PEER, PROTOCOL_REJOIN
from swarm.wire.codec import encode
from swarm.wire.envelope import Sealer
from swarm.wire.keys import Keyring, cluster_salt, gossip_key
from swarm.wire.rejoin import Handed, copy_purpose, decode_handed_untrusted, handed_purpose
from swarm.wire.token import SECRET_BYTES, format_token

LOG = logging.getLogger("swarm.keys")
FORMER_MAX = 64
"""Hashes of retired secrets that are kept."""


@dataclass(frozen=True, slots=True)
class _Built:
    """Everything that is exchanged at once."""

    boot: Contexts
    peer: Contexts
    rejoin: Contexts
    api: Credentials
    api_context: ssl.SSLContext


class Keys:
    """Keeps `drivers.keys.KeyStore`, and what the API shows of the secret."""

    def __init__(self, site: Site, cluster: ClusterFile) -> None:
        self._folder = site.folder
        self._port = site.port
        self._address = site.facts.address
        self._cluster_id: ClusterId = cluster.cluster_id
        self._saving = trio.Lock()
        self._changing = trio.Lock()
        self._has_gone_over = False
        self._public = Secrets()
        self._secrets: dict[bytes, bytes] = {}
        self._authorities: dict[bytes, Authority] = {}
        self._read(cluster)
        self._api = self._folder.credentials_of(cluster.secret)
        self._door: ApiDoor | None = None
        self.sealer = Sealer(cluster.cluster_id, self._keyring(), self._folder.node_id, self._folder.generation)

    # ---- drivers.keys.KeyStore ----------------------------------------------------------------------------------------------

    @property
    def held(self) -> frozenset[bytes]:
        return frozenset(self._secrets)

    @property
    def sends(self) -> bytes:
        return next(iter(self._secrets))

    @property
    def pinned(self) -> frozenset[NodeId]:
        return frozenset(self._folder.cluster.pinned if self._folder.cluster is not None else ())

    def fingerprint_of(self, secret: bytes) -> bytes:
        return authority_of(secret, cluster_salt(self._cluster_id)).fingerprint

    def open_copy(self, sealed: bytes, fingerprint: bytes) -> bytes | None:
        try:
            secret = open_as_node(self._folder.private_key, sealed, copy_purpose(self._cluster_id))
        except Unauthenticated:
            return None
        return secret if len(secret) == SECRET_BYTES and self.fingerprint_of(secret) == fingerprint else None

    def open_handed(self, sealed: bytes) -> Handed:
        plain = open_as_node(self._folder.private_key, sealed, handed_purpose(self._cluster_id))
        return decode_handed_untrusted(plain, self._cluster_id)

    def hand_to(self, node: Node) -> bytes:
        sending, *accepted = self._secrets.values()
        handed = Handed(self._cluster_id, sending, tuple(accepted))
        return _seal_to(node, encode(handed), handed_purpose(self._cluster_id))

    async def change(
        self, *, add: tuple[bytes, ...] = (), send: bytes = b"", forget: tuple[bytes, ...] = (), members: tuple[NodeId, ...] = ()
    ) -> None:
        async with self._changing:
            self._refuse_if_gone_over()
            held = self._secrets | {self.fingerprint_of(secret): secret for secret in add}
            if send and send not in held:
                raise Unavailable("cannot send with a secret that is not held", cause="it was replaced meanwhile")
            sending = held[send or self.sends]
            kept = [secret for name, secret in held.items() if name not in forget or secret == sending]
            await self._adopt(sending, kept, members if add else tuple(sorted(self.pinned)))

    async def learn(self, secrets: Secrets, members: tuple[NodeId, ...]) -> None:
        async with self._changing:
            self._refuse_if_gone_over()
            named = {authority.fingerprint for authority in _authorities(secrets)}
            if not self.pinned and self.held <= named:
                await self._save(pinned=members)
            known, self._public = self._public, secrets
            if secrets.retired != known.retired or _authorities(secrets) != _authorities(known):
                await self._install()

    async def replace(self, handed: Handed) -> None:
        """Hold exactly what other members hold: this node was away."""
        async with self._changing:
            self._refuse_if_gone_over()
            await self._adopt(handed.sending, handed.accepted, ())

    def _refuse_if_gone_over(self) -> None:
        if self._has_gone_over:
            raise Unavailable("the secrets are not changed any more", cause="this node starts anew in a recovered cluster")

    # ---- the data folder ----------------------------------------------------------------------------------------------------

    async def save_nodes(self, nodes: tuple[Node, ...]) -> None:
        """Who is admitted, for a start before the log is read."""
        await self._save(nodes=nodes)

    async def save_generation(self, generation: int) -> None:
        """Others heard of a later start of this node: starts are counted from there. Raises `Unavailable`."""
        async with self._saving:
            await self._write(GENERATION, lambda: self._folder.raise_generation(generation))

    async def save_begun(self, generation: int) -> None:
        """Keeps `drivers.recovery.RecoveryStore`: the next start begins this generation with the log that is here."""
        assert self._folder.cluster is not None
        former, store_generation = self._folder.cluster.recovery_generation, GenerationFile(self._folder.path).read()
        await self._save(recovery_generation=generation, recovering=store_generation, recovering_from=former)

    async def save_followed(self, generation: int, reason: str, handed: Handed | None) -> None:
        """The same store: the next start follows this generation, without the log that is here. The mark first: a log of an
        earlier generation must never be read in a later one. The secrets in the same write: with those of one side and the
        generation of the other a node could speak with neither; so nothing else changes them until the daemon ends."""
        if not await trio.to_thread.run_sync(self._folder.mark_displaced, reason):
            raise Unavailable(f"cannot write {self._folder.path / DISPLACED}", cause="the disk refuses")
        async with self._changing:
            secrets = {} if handed is None else self._holding(handed.sending, handed.accepted, ())
            self._read(await self._save(recovery_generation=generation, recovering=0, recovering_from=0, **secrets))
            self._has_gone_over = True

    async def save_removal(self, removal: Removal) -> None:
        """What this node knows of its own removal. Raises `Unavailable` when the disk refuses."""
        await self._write(REMOVED, lambda: self._folder.mark_removal(removal))

    async def _adopt(self, sending: bytes, accepted: Iterable[bytes], pinned: tuple[NodeId, ...]) -> None:
        self._read(await self._save(**self._holding(sending, accepted, pinned)))
        await self._install()

    def _holding(self, sending: bytes, accepted: Iterable[bytes], pinned: tuple[NodeId, ...]) -> dict[str, object]:
        """What of `cluster.json` says that these are the secrets."""
        others = tuple(dict.fromkeys(secret for secret in accepted if secret != sending))
        gone = [secret for secret in self._secrets.values() if secret not in (sending, *others)]
        former = self._folder.cluster.former if self._folder.cluster is not None else ()
        former = (*former, *(hashlib.sha256(secret).digest() for secret in gone))[-FORMER_MAX:]
        return {"secret": sending, "accepted": others, "former": former, "pinned": pinned}

    async def _save(self, **changes: object) -> ClusterFile:
        async with self._saving:
            assert self._folder.cluster is not None
            file = msgspec.structs.replace(self._folder.cluster, **changes)
            await self._write(CLUSTER, lambda: self._folder.save_cluster(file))
            return file

    async def _write(self, name: str, write: Callable[[], None]) -> None:
        try:
            await trio.to_thread.run_sync(write)
        except OSError as error:
            LOG.warning("cannot write %s: %s", self._folder.path / name, error.strerror or error)
            raise Unavailable(f"cannot write {self._folder.path / name}", cause=error.strerror or str(error)) from None

    def _read(self, file: ClusterFile) -> None:
        authorities = [authority_of(secret, cluster_salt(file.cluster_id)) for secret in file.secrets]
        self._authorities = {authority.fingerprint: authority for authority in authorities}
        self._secrets = dict(zip(self._authorities, file.secrets, strict=True))

    # ---- in force -----------------------------------------------------------------------------------------------------------

    async def open_door(self) -> ApiDoor:
        """Put everything in force for the first time; the API's door."""
        await self._install()
        self._door = ApiDoor(self._api)
        return self._door

    async def _install(self) -> None:
        """What is held goes into force. All is built first, then exchanged without giving the loop away."""
        built = await trio.to_thread.run_sync(self._build)
        self._port.use(PROTOCOL_BOOT, built.boot)
        self._port.use(PROTOCOL_PEER, built.peer)
        self._port.use(PROTOCOL_REJOIN, built.rejoin)
        self.sealer.set_keyring(self._keyring())
        self._api = built.api
        if self._door is not None:
            self._door.replace(built.api_context)

    def _build(self) -> _Built:
        held = tuple(self._authorities.values())
        sending = self._secrets[self.sends]
        credentials = self._folder.credentials_of(sending)
        boot = contexts(self._folder.boot_credentials(sending), PROTOCOL_BOOT)
        peer = contexts(credentials, PROTOCOL_PEER, held)
        known = (*self._public.retired, *_authorities(self._public), *held)
        rejoin = rejoin_contexts(credentials, PROTOCOL_REJOIN, {each.fingerprint: each for each in known}.values())
        api = self._folder.credentials_of(self._secrets[self._shown_by_api()])
        return _Built(boot, peer, rejoin, api, api_context(api))

    def _keyring(self) -> Keyring:
        sending, *accepted = (gossip_key(secret, self._cluster_id) for secret in self._secrets.values())
        return Keyring(sending, tuple(accepted))

    def _shown_by_api(self) -> bytes:
        """The oldest that is not retired: API tokens that name it are good as long as it is."""
        for authority in _authorities(self._public):
            if authority.fingerprint in self._secrets:
                return authority.fingerprint
        return self.sends

    # ---- for the API --------------------------------------------------------------------------------------------------------

    def join_token(self) -> tuple[str, str]:
        """The token, and the line for another host."""
        secret = self._secrets[self.sends]
        return format_token(secret), join_line(secret, self._address)

    def authority(self) -> tuple[bytes, str]:
        """Of the API's certificate: its fingerprint, and it itself in PEM."""
        return self._api.authority_fingerprint, self._api.authority.decode()

    def authority_to_come(self) -> bytes:
        """Of the API's certificate when the rotation under way is through: what a new API token names."""
        newest = _authorities(self._public)[-1:]
        return newest[0].fingerprint if newest else self.sends

    async def new_secret(
        self, secrets: Secrets, nodes: Iterable[Node], *, remove: NodeId, reason: str, request_id: RequestId
    ) -> RotateSecret:
        """A fresh secret, sealed once per member that stays. In a thread: some 150 us a member."""
        recipients = [node for node in nodes if node.id != remove and node.availability is not Availability.LEFT]
        former = self._authorities[self.sends]
        return await trio.to_thread.run_sync(
            lambda: self._new_secret(secrets.newest + 1, former, recipients, remove, reason, request_id)
        )

    def _new_secret(
        self, number: int, former: Authority, recipients: list[Node], remove: NodeId, reason: str, request_id: RequestId
    ) -> RotateSecret:
        secret = os.urandom(SECRET_BYTES)
        purpose, sealed = copy_purpose(self._cluster_id), []
        for node in recipients:
            try:
                sealed.append(SealedSecret(node.id, _seal_to(node, secret, purpose)))
            except Unauthenticated:
                LOG.warning("%s has no usable key in the log: it will be cut off by the rotation", node.name)
        authority = authority_of(secret, cluster_salt(self._cluster_id))
        return RotateSecret(number, authority, former, tuple(sealed), remove, reason, request_id)


def _authorities(secrets: Secrets) -> tuple[Authority, ...]:
    return tuple(record.authority for record in secrets.records)


def _seal_to(node: Node, plaintext: bytes, purpose: bytes) -> bytes:
    """Only to the key whose fingerprint the log pins."""
    if fingerprint(node.public_key) != node.fingerprint:
        raise Unauthenticated(f"the record of {node.name} holds another key than the pinned one")
    return seal_to_node(node.public_key, plaintext, purpose)
