"""Commands about the cluster's secret: a new one, a member's answer, and the leader's two steps.

A rotation may be asked for while another is under way only to remove a node (it may hold the secret being brought in): the
newer one then takes the older one's place, and both end together. Answers are kept while a rotation lasts. The same step twice
changes nothing, so a new leader repeats what it does not know to be done.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarm.catalog import nodes
from swarm.catalog.checks import clipped, conflict, invalid, not_found
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.model.command import AckSecret, AdvanceSecret, RemoveNode, RotateSecret
from swarm.model.ids import RequestId
from swarm.model.outcome import Rejected
from swarm.model.secret import SecretAck, SecretRecord, Secrets

Result = Rejected | str

RECORDS_MAX = 16
"""Secrets that are not retired: removals that follow each other while none of their rotations is through."""
RETIRED_MAX = 64
"""Retired authorities, some 400 bytes each: so many rotations may pass while a node is away."""
_SEALED_BYTES_MAX = 512
_CERTIFICATE_BYTES_MAX = 2_048


def apply_rotate(state: State, command: RotateSecret, turn: Turn) -> Result:
    """A new secret is accepted from here on; with `remove`, the node goes in the same step."""
    before = state.secrets
    what = f"cannot remove node {command.remove[:80]!r}" if command.remove else "cannot rotate the secret"
    fault = _rotation_fault(command)
    if fault:
        return invalid(what, fault)
    if command.remove and command.remove in state.removed_nodes:
        return ""
    if command.remove and command.remove not in state.nodes:
        return not_found(f"{what}: it is not in the cluster")
    refused = _refused(state, command)
    if refused:
        return conflict(what, *refused)
    records = before.records or (SecretRecord(0, command.former),)
    new = SecretRecord(
        command.number,
        command.authority,
        command.sealed,
        turn.index,
        turn.time_utc,
        clipped(command.reason),
        RequestId(clipped(command.request_id)),
    )
    state.secrets = replace(before, records=(*records, new))
    if command.remove:
        nodes.apply_remove_node(state, RemoveNode(command.remove), turn)
    why = f": {new.reason}" if new.reason else ""
    turn.tell("secret.rotating", f"secret {new.number} is brought in{why}", number=new.number)
    return str(new.number)


def _rotation_fault(command: RotateSecret) -> str | None:
    for authority in (command.authority, command.former):
        if len(authority.fingerprint) != 32 or not 0 < len(authority.certificate) <= _CERTIFICATE_BYTES_MAX:
            return "an authority needs a fingerprint of 32 bytes and a certificate"
    ids = [copy.node_id for copy in command.sealed]
    if len(set(ids)) != len(ids) or any(not 0 < len(copy.sealed) <= _SEALED_BYTES_MAX for copy in command.sealed):
        return "the secret must be sealed once per node"
    return None


def _refused(state: State, command: RotateSecret) -> tuple[str, str] | None:
    """(cause, hint), or None."""
    before = state.secrets
    if command.number != before.newest + 1:
        return f"secret {command.number} does not follow {before.newest}: another rotation came first", "try again"
    known = [record.authority.fingerprint for record in before.records]
    if command.authority.fingerprint in (command.former.fingerprint, *known, *(each.fingerprint for each in before.retired)):
        return "that secret was in use before", "make a fresh one"
    if known and command.former.fingerprint not in known:
        return "the node that asks does not follow the present secret", "try again"
    if before.rotating and not command.remove:
        return f"a rotation is under way ({before.phase})", "watch it with: swarm secret status"
    if len(before.records) >= RECORDS_MAX:
        return f"{len(before.records)} secrets are not retired yet", "wait until the rotation is done: swarm secret status"
    return None


def apply_ack(state: State, command: AckSecret, turn: Turn) -> Result:
    """A member's answer. What is older than what it said before, or comes when all is done, changes nothing."""
    secrets = state.secrets
    if command.node_id not in state.nodes:
        return not_found(f"cannot take the answer of node {command.node_id[:80]!r}: it is not in the cluster")
    if not secrets.rotating:
        return ""
    acks = {ack.node_id: ack for ack in secrets.acks}
    said = acks.get(command.node_id, SecretAck(command.node_id, -1, -1))
    newest = secrets.newest
    now = SecretAck(command.node_id, min(max(said.holds, command.holds), newest), min(max(said.sends, command.sends), newest))
    if now == said:
        return ""
    acks[command.node_id] = now
    state.secrets = replace(secrets, acks=tuple(acks[node_id] for node_id in sorted(acks)))
    return ""


def apply_advance(state: State, command: AdvanceSecret, turn: Turn) -> Result:
    """Send with the newest; or, once it is sent with, retire the others."""
    secrets, number = state.secrets, command.number
    if number != secrets.newest or not secrets.rotating:
        return ""  # a newer one came in between, or it is done
    if not command.retire:
        if secrets.sending < number:
            state.secrets = replace(secrets, sending=number)
            turn.tell("secret.sending", f"members now send with secret {number}", number=number)
        return ""
    if secrets.sending != number:
        return conflict(f"cannot retire what is older than secret {number}", "it is not sent with yet")
    _revoke_tokens(state, secrets.records[-1].index, turn)
    retired = (*secrets.retired, *(record.authority for record in secrets.records[:-1]))
    state.secrets = Secrets((replace(secrets.records[-1], sealed=()),), number, retired[-RETIRED_MAX:])
    turn.tell("secret.rotated", f"secret {number} is the only one; older ones are retired", number=number)
    return ""


def _revoke_tokens(state: State, before_index: int, turn: Turn) -> None:
    """API tokens made before the new secret name an authority that is retired now. Whoever has its key could have them sent to
    itself: they are good no more."""
    old = sorted(token_id for token_id, token in state.api_tokens.items() if token.created_index < before_index)
    for token_id in old:
        del state.api_tokens[token_id]
    if old:
        turn.tell("token.revoked", f"{len(old)} API tokens from before the rotation are good no more", *old)
