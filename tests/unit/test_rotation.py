"""A rotation: what the log keeps of it, when it advances, whom it waits for, and that no moment of it parts two members."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace as change_fields

from swarm.catalog import Catalog
from swarm.controllers import RotationConfig, RotationController
from swarm.model.command import AckSecret, AdvanceSecret, PassVerdict, RotateSecret, SetNode
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import NodeId
from swarm.model.node import Availability, VerdictKind
from swarm.model.secret import Authority, SealedSecret, Secrets, ack_of, wants
from swarm.model.view import ClusterView, FollowerView
from tests.catalog_kit import Log, make_node

N1, N2, N3 = (NodeId(f"id-n{number}") for number in (1, 2, 3))
CONFIG = RotationConfig()


def authority(number: int) -> Authority:
    return Authority(bytes([number]) * 32, b"certificate %d" % number)


def rotate(log: Log, *, remove: str = "", sends: int | None = None) -> RotateSecret:
    """What a member would propose now."""
    number = log.catalog.secrets.newest + 1
    former = log.catalog.secrets.sending if sends is None else sends
    sealed = tuple(SealedSecret(node_id, b"for " + node_id.encode()) for node_id in log.catalog.nodes)
    return RotateSecret(number, authority(number), authority(former), sealed, NodeId(remove))


def log_of(count: int = 3) -> Log:
    return Log(*(make_node(f"n{number}") for number in range(1, count + 1)))


def view(log: Log, now: float = 100.0, *, silent: tuple[NodeId, ...] = (), leader_since: float = 0.0) -> ClusterView:
    voters = tuple(Voter(node_id, 1) for node_id in sorted(log.catalog.nodes))
    followers = {
        node_id: FollowerView(node_id, 1, 1, 0.0 if node_id in silent else now) for node_id in log.catalog.nodes if node_id != N1
    }
    return log.catalog.view(
        now, N1, {}, is_leader=True, leader_since=leader_since, configuration=Configuration(voters), followers=followers
    )


def ack(log: Log, *nodes: NodeId, holds: int = 1, sends: int = 0) -> None:
    for node_id in nodes:
        log.must(AckSecret(node_id, holds, sends))


def test_a_rotation_goes_from_accepting_over_sending_to_retiring_and_each_step_waits_for_everybody() -> None:
    log, controller = log_of(), RotationController()
    assert controller.reconcile(view(log)) is None
    log.must(rotate(log))
    assert log.catalog.secrets.phase == "adding"
    ack(log, N1, N2)
    assert controller.reconcile(view(log)) is None
    assert log.catalog.secrets.unanswered(log.catalog.nodes) == (N3,)
    ack(log, N3)
    step = controller.reconcile(view(log))
    assert step == AdvanceSecret(1)
    log.must(step)
    assert (log.catalog.secrets.phase, log.catalog.secrets.sending) == ("switching", 1)
    ack(log, N1, N2, sends=1)
    assert controller.reconcile(view(log)) is None
    ack(log, N3, sends=1)
    step = controller.reconcile(view(log))
    assert step == AdvanceSecret(1, retire=True)
    log.must(step)
    secrets = log.catalog.secrets
    assert secrets == Secrets((replace_record(secrets),), 1, (authority(0),))
    assert controller.reconcile(view(log)) is None


def replace_record(secrets: Secrets) -> object:
    """The one record that is left, which holds no copies any more."""
    (record,) = secrets.records
    assert record.sealed == () and record.authority == authority(1)
    return record


def test_neither_a_dead_nor_a_silent_member_is_waited_for_but_one_in_contact_is() -> None:
    for away in ("dead", "silent"):
        log, controller = log_of(), RotationController()
        log.must(rotate(log))
        ack(log, N1, N2)
        if away == "dead":
            log.must(PassVerdict(N3, VerdictKind.HOST_SILENT, "nobody reaches it"))
            assert controller.reconcile(view(log)) == AdvanceSecret(1)
        else:
            assert controller.reconcile(view(log, 100.0, leader_since=99.0, silent=(N3,))) is None, "a new leader waits first"
            assert controller.reconcile(view(log, 105.0, leader_since=99.0, silent=(N3,))) == AdvanceSecret(1)


def test_a_daemon_that_is_being_restarted_is_waited_for_though_it_has_a_verdict() -> None:
    log, controller = log_of(), RotationController()
    log.must(rotate(log))
    ack(log, N1, N2)
    log.must(PassVerdict(N3, VerdictKind.DAEMON_GONE, "its kernel refuses the port"))
    assert controller.reconcile(view(log)) is None
    ack(log, N3)
    assert controller.reconcile(view(log)) == AdvanceSecret(1)


def test_a_member_that_is_there_but_never_answers_holds_a_rotation_up_for_a_bounded_time() -> None:
    log, controller = log_of(), RotationController()
    log.must(rotate(log))
    ack(log, N1, N2)
    assert controller.reconcile(view(log, 100.0)) is None
    assert controller.reconcile(view(log, 99.0 + CONFIG.patience_s)) is None
    assert controller.reconcile(view(log, 100.0 + CONFIG.patience_s)) == AdvanceSecret(1)


def test_nothing_advances_without_the_leader_and_a_majority_of_the_voters() -> None:
    for answered in ((N1,), (N2, N3)):
        log, controller = log_of(), RotationController()
        log.must(rotate(log))
        ack(log, *answered)
        silent = tuple(node for node in (N1, N2, N3) if node not in answered)
        controller.reconcile(view(log, 100.0, silent=silent))
        assert controller.reconcile(view(log, 10_000.0, silent=silent)) is None


def test_a_member_that_left_is_not_waited_for() -> None:
    log, controller = log_of(), RotationController()
    log.must(rotate(log))
    ack(log, N1, N2)
    log.must(SetNode(N3, Availability.LEFT))
    assert controller.reconcile(view(log)) == AdvanceSecret(1)


def test_answers_repeat_without_effect_and_never_go_back() -> None:
    log = log_of()
    log.must(rotate(log))
    ack(log, N1, holds=1, sends=0)
    before = log.catalog.secrets
    ack(log, N1, holds=1, sends=0)
    ack(log, N1, holds=0, sends=0)
    assert log.catalog.secrets == before
    ack(log, N1, holds=77, sends=77)
    assert log.catalog.secrets.acks[0].holds == 1, "an answer about what does not exist counts for what does"
    refused = log.apply(AckSecret(NodeId("id-stranger"), 1, 1)).outcome
    assert refused is not None and refused.code == "not_found"


def test_steps_repeat_without_effect_and_cannot_be_skipped() -> None:
    log = log_of()
    log.must(rotate(log))
    refused = log.apply(AdvanceSecret(1, retire=True)).outcome
    assert refused is not None and "not sent with" in refused.cause
    log.must(AdvanceSecret(1))
    before = log.catalog.secrets
    log.must(AdvanceSecret(1))
    log.must(AdvanceSecret(0))
    assert log.catalog.secrets == before
    log.must(AdvanceSecret(1, retire=True))
    before = log.catalog.secrets
    log.must(AdvanceSecret(1, retire=True))
    log.must(AdvanceSecret(1))
    assert log.catalog.secrets == before


def test_a_second_rotation_is_refused_while_one_is_under_way_unless_it_removes_a_node() -> None:
    log = log_of()
    log.must(rotate(log))
    refused = log.apply(rotate(log)).outcome
    assert refused is not None and refused.code == "conflict" and "under way (adding)" in refused.cause
    log.must(rotate(log, remove=N3))
    assert N3 not in log.catalog.nodes and log.catalog.secrets.newest == 2
    assert all(copy.node_id != N3 for record in log.catalog.secrets.records for copy in record.sealed)
    ack(log, N1, N2, holds=1)
    controller = RotationController()
    assert controller.reconcile(view(log)) is None, "the one that the removed node may know is passed over"
    ack(log, N1, N2, holds=2)
    step = controller.reconcile(view(log))
    assert step == AdvanceSecret(2)
    log.must(step)
    ack(log, N1, N2, holds=2, sends=2)
    log.must(AdvanceSecret(2, retire=True))
    assert log.catalog.secrets.retired == (authority(0), authority(1))


def test_one_entry_removes_a_node_and_begins_the_rotation_and_repeated_it_does_neither_twice() -> None:
    log = log_of()
    applied = log.must(rotate(log, remove=N3))
    assert {event.kind for event in applied.events} == {"node.removed", "secret.rotating"}
    assert N3 in log.catalog.removed_nodes and log.catalog.secrets.rotating
    before = log.catalog.secrets
    log.must(rotate(log, remove=N3))
    assert log.catalog.secrets == before


@pytest.mark.parametrize("change", ["number", "former", "known", "fingerprint", "twice", "unknown"])
def test_a_rotation_that_does_not_follow_what_is_there_changes_nothing(change: str) -> None:
    log = log_of()
    log.must(rotate(log))
    log.must(AdvanceSecret(1))
    log.must(AdvanceSecret(1, retire=True))
    good = rotate(log)
    bad = {
        "number": change_fields(good, number=1),
        "former": change_fields(good, former=authority(9)),
        "known": change_fields(good, authority=authority(0)),
        "fingerprint": change_fields(good, authority=Authority(b"short", b"x")),
        "twice": change_fields(good, sealed=(*good.sealed, good.sealed[0])),
        "unknown": change_fields(good, remove=NodeId("id-n9")),
    }[change]
    before = log.catalog.digest(), log.catalog.secrets
    assert log.apply(bad).outcome is not None
    assert log.catalog.secrets == before[1]
    log.must(good)


def test_a_snapshot_holds_the_secrets_records_and_one_without_any_reads_as_before() -> None:
    log = log_of()
    plain = Catalog()
    plain.restore(log.catalog.snapshot())
    assert plain.secrets == Secrets() and b"secrets" not in log.catalog.snapshot()
    log.must(rotate(log))
    ack(log, N1)
    other = Catalog()
    other.restore(log.catalog.snapshot())
    assert other.secrets == log.catalog.secrets and other.digest() == log.catalog.digest()


class Holder:
    """A member's data folder, and how it follows the log, with the durable step and the answer apart."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.held = {authority(0).fingerprint}
        self.sends = authority(0).fingerprint

    def follow(self, secrets: Secrets) -> bool:
        """One durable write."""
        todo = wants(secrets, held=frozenset(self.held), sends=self.sends)
        before = set(self.held), self.sends
        if todo.missing:
            assert any(record.sealed_to(self.node_id) for record in todo.missing)
            self.held |= {record.authority.fingerprint for record in todo.missing}
        elif todo.send:
            self.sends = todo.send
            self.held -= set(todo.forget)
        return (self.held, self.sends) != before

    def answer(self, secrets: Secrets) -> AckSecret | None:
        said = ack_of(secrets, self.node_id, held=frozenset(self.held), sends=self.sends)
        return AckSecret(said.node_id, said.holds, said.sends) if said is not None else None


@pytest.mark.parametrize("seed", range(60))
def test_in_every_order_of_steps_crashes_and_leaders_no_two_members_ever_part_and_it_ends_rotated(seed: int) -> None:
    """Members apply the log at their own pace (some from an old point again), answer late or twice; leaders change."""
    rng = random.Random(seed)
    log = log_of(rng.choice((1, 2, 3, 5)))
    members = {node_id: Holder(node_id) for node_id in log.catalog.nodes}
    history = [log.catalog.secrets]
    sees = dict.fromkeys(members, 0)
    controller, rotations = RotationController(), rng.choice((1, 2, 3))
    for _ in range(4_000):
        node_id = rng.choice(list(members))
        match rng.randrange(8):
            case 0 if rotations and not log.catalog.secrets.rotating:
                rotations -= 1
                log.must(rotate(log))
            case 1:
                controller = RotationController()  # another leader, who remembers nothing
            case 2 if (step := controller.reconcile(view(log))) is not None:
                log.must(step)
                if rng.random() < 0.3:
                    log.must(step)
            case 3 if rng.random() < 0.1:
                sees[node_id] = rng.randint(0, sees[node_id])  # a restart: it reads its log again
            case 4 if (said := members[node_id].answer(history[sees[node_id]])) is not None:
                log.must(said)
            case _:
                sees[node_id] = min(sees[node_id] + 1, len(history) - 1)
                members[node_id].follow(history[sees[node_id]])
        if log.catalog.secrets != history[-1]:
            history.append(log.catalog.secrets)
        for one in members.values():
            assert one.sends in one.held
            for other in members.values():
                assert one.sends in other.held, f"{other.node_id} cannot open what {one.node_id} seals"
        newest = authority(log.catalog.secrets.newest).fingerprint
        if not rotations and all((member.sends, member.held) == (newest, {newest}) for member in members.values()):
            break
    else:
        pytest.fail("never rotated")
