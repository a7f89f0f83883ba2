"""Properties of membership: merging is a join, decoding refuses cleanly, and nothing that arrives breaks an invariant."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import BadMessage
from swarm.machine import Outbox
from swarm.membership import Config, MemberIdentity, Membership, decode_message_untrusted, encode_message
from swarm.membership.broadcast import Broadcasts
from swarm.membership.messages import (
    HEADER_BYTES_MAX,
    SAMPLE_BYTES_MAX,
    Ack,
    Claim,
    Ping,
    ProbeReport,
    ProbeRequest,
    Rumours,
    SyncState,
    claim_bytes,
    format_address,
    parse_address,
)
from swarm.membership.samples import newer
from swarm.membership.table import Record, Table
from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, MemberStatus, Sample
from swarm.model.node import VerdictKind
from swarm.wire import codec
from tests.fakes.gossip_network import address, node_id

IDS = st.integers(1, 5).map(node_id)
STATUSES = st.sampled_from(MemberStatus)
CLAIMS = st.builds(
    Claim,
    node_id=IDS,
    generation=st.integers(0, 3),
    incarnation=st.integers(0, 3),
    status=STATUSES,
    name=st.sampled_from(["a", "b"]),
    address=st.integers(1, 5).map(address),
    accuser=IDS,
    kind=st.none() | st.sampled_from(VerdictKind),
    paused_s=st.floats(0, 100),
)
SAMPLES = st.builds(Sample, node_id=IDS, generation=st.integers(0, 2), sequence=st.integers(0, 5))
SELVES = st.builds(
    Claim,
    node_id=IDS,
    generation=st.integers(0, 3),
    incarnation=st.integers(0, 3),
    status=st.sampled_from([MemberStatus.ALIVE, MemberStatus.LEFT]),
    name=st.just("n"),
    address=st.integers(1, 5).map(address),
)
NEWS = {"claims": st.lists(CLAIMS, max_size=4).map(tuple), "samples": st.lists(SAMPLES, max_size=3).map(tuple)}
SEQUENCES = st.integers(0, 50)
PACKETS = st.one_of(
    st.builds(Ping, me=SELVES, sequence=SEQUENCES, target=IDS, **NEWS),
    st.builds(Ack, me=SELVES, sequence=SEQUENCES, **NEWS),
    st.builds(ProbeRequest, me=SELVES, sequence=SEQUENCES, target=IDS, address=st.just(address(3)), **NEWS),
    st.builds(
        ProbeReport,
        me=SELVES,
        sequence=SEQUENCES,
        target=IDS,
        reached=st.booleans(),
        connect=st.sampled_from(["", "accepted", "refused", "silent", "unreachable"]),
        **NEWS,
    ),
    st.builds(Rumours, me=SELVES, **NEWS),
    st.builds(SyncState, me=SELVES, **NEWS),
)


def believed_after(claims: Iterable[Claim]) -> tuple[object, ...]:
    """What a table believes of n2 after these claims about it."""
    me = Record(node_id(1), "n1", address(1), 1, 0, MemberStatus.ALIVE, 0.0)
    table = Table(me, Outbox(), Broadcasts())
    record = table.add(node_id(2), "n2", address(2), 0.0)
    for claim in claims:
        table.adopt(record, msgspec.structs.replace(claim, node_id=node_id(2)), 1.0)
        table.check()
    return record.order


@given(st.lists(CLAIMS, max_size=4))
def test_merging_claims_is_commutative_and_associative(claims: list[Claim]) -> None:
    assert len({believed_after(order) for order in itertools.permutations(claims)}) == 1


@given(st.lists(CLAIMS, max_size=6))
def test_merging_claims_is_idempotent(claims: list[Claim]) -> None:
    assert believed_after(claims) == believed_after([*claims, *claims])


@given(st.lists(SAMPLES, max_size=4))
def test_the_latest_sample_wins_in_whatever_order_they_come(samples: list[Sample]) -> None:
    finals = set()
    for order in itertools.permutations(samples):
        kept: Sample | None = None
        for sample in order:
            kept = sample if newer(kept, sample) else kept
        finals.add((kept.generation, kept.sequence) if kept else None)
    assert len(finals) == 1


@given(st.binary(max_size=200))
def test_decoding_any_bytes_raises_only_bad_message(data: bytes) -> None:
    try:
        decode_message_untrusted(data)
    except BadMessage:
        pass


@given(PACKETS, st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=300)
def test_decoding_a_mutated_packet_raises_only_bad_message(packet: object, where: int, what: int) -> None:
    data = bytearray(encode_message(packet))  # type: ignore[arg-type]
    data[where % len(data)] = what
    try:
        decode_message_untrusted(bytes(data))
    except BadMessage:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=20,
)


@given(st.sampled_from(["ping", "ack", "request", "report", "rumours", "sync"]), st.lists(JSON, max_size=7))
@settings(max_examples=300)
def test_decoding_well_formed_nonsense_raises_only_bad_message(kind: str, fields: list[object]) -> None:
    try:
        decode_message_untrusted(codec.encode([kind, *fields]))
    except BadMessage:
        pass


@given(PACKETS)
def test_packets_survive_encoding(packet: object) -> None:
    assert decode_message_untrusted(encode_message(packet)) == packet  # type: ignore[arg-type]


@given(st.ip_addresses(), st.integers(1, 65535))
def test_addresses_survive_formatting(ip: object, port: int) -> None:
    assert parse_address(format_address(str(ip), port)) == (str(ip), port)


@given(st.lists(st.tuples(PACKETS, st.floats(0, 1)), max_size=30), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_packets_breaks_an_invariant_or_makes_a_packet_too_long(
    steps: list[tuple[object, float]], seed: int
) -> None:
    identity = MemberIdentity(node_id(1), "n1", address(1), 1)
    core = Membership(identity=identity, config=Config(), rng=random.Random(seed), now=0.0)
    core.set_admitted({node_id(n): (f"n{n}", address(n)) for n in range(1, 6)}, 0.0)
    now, before = 0.0, (1, 0)
    for packet, gap_s in steps:
        now += gap_s
        core.on_packet(("10.0.0.9", 4747), packet, now)  # type: ignore[arg-type]
        core.tick(now)
        core.check()
        for effect in core.take_effects():
            message = getattr(effect, "message", None)
            assert message is None or len(encode_message(message)) <= Config().packet_bytes_max
            if hasattr(effect, "probe_id"):
                core.on_connect_result(effect.probe_id, random.Random(seed).choice(["accepted", "silent", "refused"]), now)
        mine = core.members()[node_id(1)]
        assert (mine.generation, mine.incarnation) >= before, "one's own counters only grow"
        assert mine.status is MemberStatus.ALIVE
        before = (mine.generation, mine.incarnation)
    core.tick(now)  # the last connect's result may have made something due
    assert core.next_deadline > now - 1e-9


def test_stated_sizes_are_upper_bounds() -> None:
    longest = NodeId("f" * 32)
    where = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535"
    me = Claim(longest, 2**53, 2**53, MemberStatus.SUSPECT, "n" * 63, where, longest, VerdictKind.DAEMON_STALLED, 86399.999)
    assert len(codec.encode(me)) <= claim_bytes(me)
    assert len(encode_message(ProbeReport(me, 2**53, longest, False, "unreachable"))) <= HEADER_BYTES_MAX
    assert len(encode_message(ProbeRequest(me, 2**53, longest, where))) <= HEADER_BYTES_MAX
    sample = Sample(longest, *[2**53] * 7, EngineState.UNKNOWN, 2**53, 2**53)  # type: ignore[arg-type]
    assert len(codec.encode(sample)) <= SAMPLE_BYTES_MAX
