"""The seal around one UDP packet: who sent it, that nobody changed it, and that it was not seen before.

    version 1 | key id 4 | sender 16 | counter 8 | nonce 12 | ciphertext and tag

AES-256-GCM over the plaintext, with the cluster id and everything before the ciphertext as associated data. Each sender seals
under a key of its own, HMAC-SHA256(gossip key, sender id): random 96-bit nonces stay safe for 2**32 packets of one sender (over a
year at a hundred a second), where one key shared by a thousand senders would be used up in half a day. The nonce is random
and not the counter, because a virtual machine set back to an earlier moment repeats its counters.

The counter starts at (boot generation << 40), so a restarted daemon is always ahead of its former self, and it runs on across a
change of the key. A window of the last 1,024 counters per key and sender refuses what was seen (RFC 6479's idea, on one Python
integer); per key, so that a holder of a key that is being retired cannot push the window under the next one ahead.

A window is lost with its process, and a recording would fill it anew. So a sender is heard only after it has said, over an
authenticated stream, where its counter stands (`prove`): nothing at or below that is taken, whenever it was recorded.

Promises: `open_untrusted` raises only `Unauthenticated` and `BadMessage`, and looks at nothing it has not authenticated but
the header; a packet is accepted once, also across restarts of its reader.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections import OrderedDict
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from swarm.errors import BadMessage, Unauthenticated
from swarm.model.ids import ClusterId, NodeId
from swarm.wire.keys import Keyring, key_id
from swarm.wire.limits import PACKET_BYTES_MAX

VERSION = 1
_HEADER = struct.Struct(">B4s16sQ12s")
_TAG_BYTES = 16
SEAL_BYTES = _HEADER.size + _TAG_BYTES
"""What the seal adds to a packet: 57 bytes."""
PLAINTEXT_BYTES_MAX = PACKET_BYTES_MAX - SEAL_BYTES

WINDOW = 1_024
"""Counters remembered per sender. A packet that arrives behind so many later ones is lost; gossip repeats."""
_WINDOW_MASK = (1 << WINDOW) - 1
SENDERS_MAX = 4_096
"""Senders remembered; beyond, the one not heard for longest is forgotten. Far above the members of any cluster we aim for."""
_GENERATION_SHIFT = 40
_COUNTER_END = 1 << 64


class OtherVersion(BadMessage):
    """Sealed by a program of another packet version. No state changed; count and drop. Its streams say more."""

    reason = "other_version"


class UnknownKey(Unauthenticated):
    """Sealed with a key this node does not hold: another cluster, or a retired key. No state changed; count and drop."""

    reason = "unknown_key"


class Replayed(Unauthenticated):
    """Seen before, older than the window, or our own packet thrown back. No state changed; count and drop."""

    reason = "replayed"


class Unproven(Unauthenticated):
    """Its sender has not yet said over a stream where its counter stands: it may be a recording. No state changed."""

    reason = "unproven"


class ReplayWindow:
    """Which of a sender's newest counters were seen. Bit `i` of `seen` stands for the counter `newest - i`.

    Everything up to `floor` counts as seen.
    """

    __slots__ = ("newest", "seen")

    def __init__(self, floor: int = -1) -> None:
        self.newest = floor
        self.seen = _WINDOW_MASK

    def fresh(self, counter: int) -> bool:
        """Whether `counter` was not seen and is not behind the window."""
        age = self.newest - counter
        return age < 0 or (age < WINDOW and not (self.seen >> age) & 1)

    def mark(self, counter: int) -> None:
        """Remember a fresh counter."""
        ahead = counter - self.newest
        if ahead > 0:
            self.seen = ((self.seen << ahead) | 1) & _WINDOW_MASK if ahead < WINDOW else 1
            self.newest = counter
        else:
            self.seen |= 1 << -ahead


class _Sender:
    """One sender under one key: its cipher and its window."""

    __slots__ = ("cipher", "window")

    def __init__(self, cipher: AESGCM, window: ReplayWindow) -> None:
        self.cipher = cipher
        self.window = window


class Sealer:
    """Seals this node's packets and opens everybody's. Not shared between threads."""

    def __init__(
        self,
        cluster_id: ClusterId,
        keyring: Keyring,
        sender: NodeId,
        generation: int,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        assert 0 <= generation < 1 << (64 - _GENERATION_SHIFT)
        self._cluster = bytes.fromhex(cluster_id)
        self._sender = sender
        self._sender_bytes = bytes.fromhex(sender)
        self._counter = generation << _GENERATION_SHIFT
        self._random_bytes = random_bytes
        self._floors: dict[bytes, int] = {}
        self._senders: OrderedDict[tuple[bytes, bytes], _Sender] = OrderedDict()
        self.set_keyring(keyring)

    def set_keyring(self, keyring: Keyring) -> None:
        """From here on seal with its sending key and open with any of its keys. What was seen stays remembered."""
        self._keys = keyring.by_id()
        self._sending_id = key_id(keyring.sending)
        self._cipher = AESGCM(_sender_key(keyring.sending, self._sender_bytes))
        for known in [known for known in self._senders if known[0] not in self._keys]:
            del self._senders[known]

    @property
    def counter(self) -> int:
        """Of the last packet sealed here: what the others are told over streams."""
        return self._counter

    def prove(self, sender: NodeId, counter: int) -> None:
        """That member said so over an authenticated stream: its packets are taken from here on, above `counter`. A window that is
        open stays as it is; one under another key begins there. Raises `BadMessage`."""
        if not 0 <= counter < _COUNTER_END:
            raise BadMessage(f"a packet counter of {counter}")
        name = bytes.fromhex(sender)
        self._floors[name] = max(counter, self._floors.get(name, -1))

    def seal(self, sender: NodeId, plaintext: bytes) -> bytes:
        """One packet of at most `PLAINTEXT_BYTES_MAX` + `SEAL_BYTES` bytes. `sender` can only be this node."""
        assert sender == self._sender, "a node seals for itself only"
        assert len(plaintext) <= PLAINTEXT_BYTES_MAX, f"{len(plaintext)} bytes do not fit a packet"
        self._counter += 1
        assert self._counter < _COUNTER_END
        nonce = self._random_bytes(12)
        header = _HEADER.pack(VERSION, self._sending_id, self._sender_bytes, self._counter, nonce)
        return header + self._cipher.encrypt(nonce, plaintext, self._cluster + header)

    def advance(self, generation: int) -> None:
        """Seal as a daemon of `generation` from here on: whoever heard a later one takes the counters of this one for replays."""
        assert 0 <= generation < 1 << (64 - _GENERATION_SHIFT)
        self._counter = max(self._counter, generation << _GENERATION_SHIFT)

    def open_untrusted(self, packet: bytes) -> tuple[NodeId, bytes]:
        """Who sealed it and what, once. Raises `Unauthenticated` (or a kind of it) or `BadMessage`."""
        if not SEAL_BYTES <= len(packet) <= PACKET_BYTES_MAX:
            raise BadMessage(f"a packet of {len(packet)} bytes")
        version, name, sender_bytes, counter, nonce = _HEADER.unpack_from(packet)
        if version != VERSION:
            raise OtherVersion(f"a packet of version {version}; this program knows {VERSION}")
        key = self._keys.get(name)
        if key is None:
            raise UnknownKey("sealed with a key that is not held here")
        if sender_bytes == self._sender_bytes:
            raise Replayed("this node's own packet, thrown back")
        floor = self._floors.get(sender_bytes)
        if floor is None:
            raise Unproven("nobody has vouched yet for where its sender's counter stands")
        known = self._senders.get((name, sender_bytes))
        if known is None and counter <= floor:
            raise Replayed("older than what its sender has said of itself")
        if known is not None and not known.window.fresh(counter):
            raise Replayed("a packet seen before, or behind the window")
        cipher = known.cipher if known is not None else AESGCM(_sender_key(key, sender_bytes))
        try:
            plaintext = cipher.decrypt(nonce, packet[_HEADER.size :], self._cluster + packet[: _HEADER.size])
        except InvalidTag:
            raise Unauthenticated("the seal does not open") from None
        self._remember((name, sender_bytes), known or _Sender(cipher, ReplayWindow(floor)), counter)
        return NodeId(sender_bytes.hex()), plaintext

    def _remember(self, who: tuple[bytes, bytes], sender: _Sender, counter: int) -> None:
        sender.window.mark(counter)
        self._senders[who] = sender
        self._senders.move_to_end(who)
        if len(self._senders) > SENDERS_MAX:
            self._senders.popitem(last=False)


def _sender_key(key: bytes, sender: bytes) -> bytes:
    return hmac.digest(key, b"swarm sender 1" + sender, hashlib.sha256)
