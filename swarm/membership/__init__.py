"""Membership: SWIM with Lifeguard, and death by kind of evidence. See README.md; `core.Membership` is the way in."""

from swarm.membership.config import Config
from swarm.membership.core import Membership
from swarm.membership.effects import Effect, MemberChanged, PingOverStream, PushPull, SendPacket, TryConnect, TwinSuspected
from swarm.membership.messages import MemberIdentity, Message, SyncState, decode_message_untrusted, encode_message

__all__ = [
    "Config",
    "Effect",
    "MemberChanged",
    "MemberIdentity",
    "Membership",
    "Message",
    "PingOverStream",
    "PushPull",
    "SendPacket",
    "SyncState",
    "TryConnect",
    "TwinSuspected",
    "decode_message_untrusted",
    "encode_message",
]
