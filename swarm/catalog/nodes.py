"""Commands about nodes: founding, admission, declarations, an operator's edits, verdicts, removal.

A node's id is admitted once; a removed id is refused for ever, since its key may be in a stranger's hands and its log is gone
(PROTOCOLS S12). Names are unique among present nodes, those that have not left. A verdict keeps the phases of the node's
assignments and marks them unreachable; only the entry that replaces one, or removes the node, makes it lost.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarm.catalog import lifecycle
from swarm.catalog.checks import clipped, conflict, invalid, is_plain_id, labels_fault, not_found, resources_fault
from swarm.catalog.state import State
from swarm.catalog.turn import Turn
from swarm.model.apitoken import ApiToken
from swarm.model.command import Admit, CreateApiToken, Declare, Found, PassVerdict, RemoveNode, RevokeApiToken, SetNode
from swarm.model.entry import Configuration
from swarm.model.generation import generation_text, number_of
from swarm.model.ids import NodeId, is_name
from swarm.model.node import Availability, Node, Verdict, VerdictKind
from swarm.model.outcome import Rejected
from swarm.model.secret import without

Result = Rejected | str


def apply_found(state: State, command: Found, turn: Turn) -> Result:
    """Entry 1: the cluster begins."""
    what = "cannot found a cluster"
    if state.cluster_id:
        return conflict(what, f"this log belongs to cluster {state.cluster_id}")
    if not is_plain_id(command.cluster_id) or not command.nodes:
        return invalid(what, "a cluster id and at least one node are needed")
    ids = [node.id for node in command.nodes]
    if len(set(ids)) != len(ids) or len({node.name for node in command.nodes}) != len(ids):
        return invalid(what, "two founding members share an id or a name")
    if not {voter.node_id for voter in command.voters} <= set(ids):
        return invalid(what, "a voter is not among the members")
    for node in command.nodes:
        fault = _node_fault(node)
        if fault:
            return invalid(what, fault)
    state.cluster_id = command.cluster_id
    state.configuration, state.configuration_index = Configuration(command.voters), turn.index
    for node in command.nodes:
        state.put_node(_fresh(node, turn))
        turn.touch_node(node.id)
    names = ", ".join(node.name for node in command.nodes)
    turn.tell("cluster.founded", f"cluster {command.cluster_id} founded by {names}", *ids, cluster_id=command.cluster_id)
    return command.cluster_id


def apply_configuration(state: State, command: Configuration, turn: Turn) -> Result:
    """The voter set in force; consensus has obeyed it since it was appended. Kept here for people."""
    is_recovery = _begins_generation(state.configuration, command, turn)
    state.configuration, state.configuration_index = command, turn.index
    ids = [voter.node_id for voter in command.voters]
    for voter in (*command.voters, *command.outgoing):
        turn.touch_node(NodeId(voter.node_id))
    if not command.outgoing:
        names = ", ".join(_name(state, node_id) for node_id in ids)
        if is_recovery:
            generation = generation_text(turn.recovery_generation)
            number = number_of(turn.recovery_generation)
            turn.tell("cluster.recovered", f"cluster recovered on {names}: begins {generation}", *ids, recovery=number)
        turn.tell("voters.changed", f"voters are {names}", *ids, voters=len(ids))
    return ""


def _begins_generation(before: Configuration, command: Configuration, turn: Turn) -> bool:
    """Whether this is the first entry of a recovery (`consensus.recovery`): one voter, which no joint change has announced."""
    is_announced = bool(before.outgoing) and before.voters == command.voters
    return turn.recovery_generation != 0 and len(command.voters) == 1 and not command.outgoing and not is_announced


def apply_admit(state: State, command: Admit, turn: Turn) -> Result:
    """Admission; the same id with the same key again brings its address and store generation up to date."""
    node = command.node
    what = f"cannot admit node {node.name[:80]!r}"
    fault = _node_fault(node)
    if fault:
        return invalid(what, fault)
    if node.id in state.removed_nodes:
        return conflict(what, f"node {node.id} was removed from this cluster", "run 'swarm reset' on that host and join anew")
    known = state.nodes.get(node.id)
    if known is not None and known.fingerprint != node.fingerprint:
        return conflict(what, f"node {node.id} is known by another key", "run 'swarm reset' on that host and join anew")
    named = state.node_named(node.name)
    if named is not None and named.id != node.id and named.availability is not Availability.LEFT:
        return conflict(
            what,
            f"a node named {node.name!r} is in the cluster (id {named.id})",
            f"start it with another --name, or remove the other: swarm node rm {node.name}",
        )
    if any(other.fingerprint == node.fingerprint and other.id != node.id for other in state.nodes.values()):
        return conflict(what, "its key belongs to another node", "run 'swarm reset' on that host: its data folder was copied")
    turn.touch_node(node.id)
    if known is None:
        state.put_node(_fresh(node, turn))
        turn.tell("node.admitted", f"node {node.name} admitted at {node.address}", node.id, name=node.name, address=node.address)
        return node.id
    back = Availability.ACTIVE if known.availability is Availability.LEFT else known.availability
    generation = max(known.store_generation, node.store_generation)
    state.put_node(
        replace(
            known,
            name=node.name,
            address=node.address,
            api_address=node.api_address,
            store_generation=generation,
            availability=back,
        )
    )
    if generation != known.store_generation or back is not known.availability:
        turn.tell("node.returned", f"node {node.name} is back with store generation {generation}", node.id, name=node.name)
    return node.id


def apply_declare(state: State, command: Declare, turn: Turn) -> Result:
    """What a member says of itself. An operator's labels stay on top."""
    node = state.nodes.get(command.node_id)
    if node is None:
        return not_found(f"cannot update node {command.node_id[:80]!r}: it is not in the cluster")
    what = f"cannot update node {node.name!r}"
    fault = resources_fault(command.capacity) or labels_fault(command.labels)
    if not is_name(command.name):
        fault = f"{command.name[:80]!r} cannot name a node"
    if fault:
        return invalid(what, fault)
    named = state.node_named(command.name)
    if named is not None and named.id != node.id and named.availability is not Availability.LEFT:
        return conflict(what, f"a node named {command.name!r} is in the cluster (id {named.id})", "choose another --name")
    new = replace(
        node,
        name=command.name,
        address=command.address,
        api_address=command.api_address,
        store_generation=max(node.store_generation, command.store_generation),
        labels=_with_edits(command.labels, node.label_edits),
        arch=command.arch,
        os=command.os,
        capacity=command.capacity,
        engine_version=command.engine_version,
        schema_known=max(node.schema_known, command.schema_known),
        witness=command.witness,
    )
    if new != node:
        state.put_node(new)
        turn.touch_node(node.id)
        turn.tell("node.declared", f"node {new.name} is at {new.address}, engine {new.engine_version}", node.id, name=new.name)
    return ""


def apply_set_node(state: State, command: SetNode, turn: Turn) -> Result:
    """An operator's wish: availability, labels."""
    node = state.nodes.get(command.node_id)
    if node is None:
        return not_found(f"cannot change node {command.node_id[:80]!r}: it is not in the cluster")
    what = f"cannot change node {node.name!r}"
    edits = dict(node.label_edits)
    edits.update(command.labels)
    new_edits = tuple(sorted(edits.items()))
    fault = labels_fault(command.labels) or labels_fault(new_edits)
    if fault:
        return invalid(what, fault)
    if command.availability is Availability.LEFT and state.by_node[node.id]:
        count = len(state.by_node[node.id])
        return conflict(what, f"{count} assignments on it have not ended", "drain it first: swarm node drain " + node.name)
    new = replace(
        node,
        availability=command.availability or node.availability,
        labels=_with_edits(node.labels, new_edits),
        label_edits=new_edits,
    )
    if new == node:
        return ""
    state.put_node(new)
    turn.touch_node(node.id)
    if new.availability is not node.availability:
        turn.tell(f"node.{new.availability}", f"node {node.name} is set to {new.availability}", node.id, name=node.name)
    if new.labels != node.labels:
        turn.tell("node.labelled", f"labels of node {node.name} changed", node.id, name=node.name)
    return ""


def apply_remove_node(state: State, command: RemoveNode, turn: Turn) -> Result:
    """The node is no member any more and never will be; what it ran is lost and waits for another place."""
    node = state.nodes.get(command.node_id)
    if node is None:
        if command.node_id in state.removed_nodes:
            return ""
        return not_found(f"cannot remove node {command.node_id[:80]!r}: it is not in the cluster")
    for assignment_id in sorted(state.by_node[node.id]):
        lifecycle.lose(state, turn, state.assignments[assignment_id], f"node {node.name} was removed")
    state.drop_node(node.id)
    state.secrets = without(state.secrets, node.id)
    state.removed_nodes[node.id] = turn.index
    turn.touch_node(node.id)
    turn.tell("node.removed", f"node {node.name} was removed", node.id, name=node.name)
    return ""


def apply_verdict(state: State, command: PassVerdict, turn: Turn) -> Result:
    """The leader's verdict: marks or clears what runs there. The same verdict again changes nothing."""
    node = state.nodes.get(command.node_id)
    if node is None:
        return not_found(f"cannot pass a verdict on node {command.node_id[:80]!r}: it is not in the cluster")
    if node.verdict.kind is command.kind:
        return ""
    evidence = clipped(command.evidence)
    state.put_node(replace(node, verdict=Verdict(command.kind, evidence, turn.index)))
    turn.touch_node(node.id)
    alive = command.kind is VerdictKind.ALIVE
    for assignment_id in sorted(state.by_node[node.id]):
        assignment = state.assignments[assignment_id]
        mark = 0 if alive else (assignment.unreachable_since_index or turn.index)
        state.put_assignment(replace(assignment, unreachable_since_index=mark))
        turn.touch_task(assignment.task_id)
        task = state.tasks[assignment.task_id]
        if alive and task.assignment == assignment.id and task.reason:
            state.put_task(replace(task, reason=""))
    word = "alive" if alive else f"dead ({command.kind.value.replace('_', ' ')})"
    turn.tell("node.verdict", f"node {node.name} is {word}: {evidence}", node.id, name=node.name, verdict=command.kind.value)
    return ""


def apply_create_token(state: State, command: CreateApiToken, turn: Turn) -> Result:
    """An API token is good from here on."""
    what = f"cannot create API token {command.token_id[:80]!r}"
    if not is_plain_id(command.token_id) or len(command.secret_sha256) != 32:
        return invalid(what, "an id and a SHA-256 of 32 bytes are needed")
    if command.token_id in state.api_tokens:
        return conflict(what, "a token of that id exists")
    state.api_tokens[command.token_id] = ApiToken(
        command.token_id, command.secret_sha256, clipped(command.note), turn.index, turn.time_utc
    )
    turn.tell("token.created", f"API token {command.token_id} created", command.token_id)
    return command.token_id


def apply_revoke_token(state: State, command: RevokeApiToken, turn: Turn) -> Result:
    """An API token is good no more."""
    if state.api_tokens.pop(command.token_id, None) is None:
        return not_found(f"cannot revoke API token {command.token_id[:80]!r}: there is none of that id")
    turn.tell("token.revoked", f"API token {command.token_id} revoked", command.token_id)
    return ""


def _node_fault(node: Node) -> str | None:
    if not is_plain_id(node.id):
        return f"{node.id[:80]!r} cannot be a node's id"
    if not is_name(node.name):
        return f"{node.name[:80]!r} cannot name a node (1 to 63 of a-z 0-9 . _ -, a letter or digit at both ends)"
    return resources_fault(node.capacity) or labels_fault(node.labels)


def _fresh(node: Node, turn: Turn) -> Node:
    """Only what a newcomer may say of itself; what the log decides begins at its defaults."""
    return replace(
        node, availability=Availability.ACTIVE, verdict=Verdict(), joined_index=turn.index, label_edits=()
    )


def _with_edits(
    labels: tuple[tuple[str, str], ...], edits: tuple[tuple[str, str | None], ...]
) -> tuple[tuple[str, str], ...]:
    merged: dict[str, str | None] = dict(labels)
    merged.update(edits)
    return tuple(sorted((key, value) for key, value in merged.items() if value is not None))


def _name(state: State, node_id: str) -> str:
    node = state.nodes.get(NodeId(node_id))
    return node.name if node is not None else node_id
