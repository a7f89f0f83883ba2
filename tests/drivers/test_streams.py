"""Streams over real TLS on loopback: who is let in, what travels, and what ends a connection."""

from __future__ import annotations

import gc
import os
import re
import ssl
import weakref
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing

from swarm.adapters import tcp
from swarm.adapters.certificates import contexts, issue
from swarm.drivers.link import StreamsConfig, close_now
from swarm.errors import Bug, Conflict, Overloaded, PeerError, Unauthenticated, Unreachable, UsageError
from swarm.model.ids import ClusterId, NodeId
from swarm.ports import PROTOCOL_BOOT, PROTOCOL_PEER, Dialer, SecureStream
from swarm.wire.frame import Call, Hello, Message, encode_frame
from swarm.wire.keys import FOUND_SALT, cluster_salt
from tests.fakes.loopback_members import CLUSTER, SECRET, LoopbackMember, connect, introduce, key_of, node_of, pair


async def echo(source: NodeId, payload: bytes) -> bytes:
    return payload


async def until_counted(counters: dict[str, int], reason: str) -> None:
    """Turn the loop until something was counted: the other end of a socket has no event to wait for."""
    with trio.fail_after(10):
        while not counters[reason]:
            await trio.lowlevel.checkpoint()


async def test_calls_travel_both_ways_and_name_their_caller() -> None:
    async with pair() as (one, two):

        async def who(source: NodeId, payload: bytes) -> bytes:
            return source.encode() + payload

        one.streams.on_call("who", who)
        two.streams.on_call("who", who)
        assert await one.streams.call(two.node_id, "who", b"!", timeout_s=5) == one.node_id.encode() + b"!"
        assert await two.streams.call(one.node_id, "who", b"?", timeout_s=5) == two.node_id.encode() + b"?"
        assert one.streams.connected(two.node_id) and one.streams.why_not(two.node_id) == ""
        assert one.streams.store_generation(two.node_id) == 1


async def test_many_calls_are_in_flight_at_once() -> None:
    async with pair() as (one, two):
        arrived, release = 0, trio.Event()

        async def gather(source: NodeId, payload: bytes) -> bytes:
            nonlocal arrived
            arrived += 1
            if arrived == 50:
                release.set()
            await release.wait()
            return payload

        two.streams.on_call("gather", gather)
        answers: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answers[number] = await one.streams.call(two.node_id, "gather", b"%d" % number, timeout_s=5)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert answers == {number: b"%d" % number for number in range(50)}


async def test_messages_arrive_in_order() -> None:
    async with pair() as (one, two):
        received: list[bytes] = []
        done = trio.Event()

        def take(source: NodeId, payload: bytes) -> None:
            assert source == one.node_id
            received.append(payload)
            if payload == b"last":
                done.set()

        two.streams.on_message("consensus", take)
        sent = [b"%d" % number for number in range(500)] + [b"last"]
        for payload in sent:
            assert one.streams.send(two.node_id, "consensus", payload)
        with trio.fail_after(5):
            await done.wait()
        assert received == sent


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Conflict("taken", cause="by another", hint="choose"), Conflict),
        (UsageError("bad"), UsageError),
        (Overloaded("full"), Overloaded),
        (Unauthenticated("no"), Unauthenticated),
        (Unreachable("gone"), Unreachable),
        (Bug("broken"), PeerError),
    ],
)
async def test_errors_travel_as_what_they_are(raised: Exception, expected: type[Exception]) -> None:
    async with pair() as (one, two):

        async def fail(source: NodeId, payload: bytes) -> bytes:
            raise raised

        two.streams.on_call("fail", fail)
        two.streams.on_call("echo", echo)
        with pytest.raises(expected) as caught:
            await one.streams.call(two.node_id, "fail", b"", timeout_s=5)
        assert str(caught.value) == str(raised)
        if isinstance(raised, Conflict):
            assert isinstance(caught.value, Conflict) and (caught.value.cause, caught.value.hint) == ("by another", "choose")
        assert await one.streams.call(two.node_id, "echo", b"on", timeout_s=5) == b"on", "the stream goes on"


async def test_an_error_nobody_foresaw_ends_its_call_only() -> None:
    async with pair() as (one, two):

        async def stumble(source: NodeId, payload: bytes) -> bytes:
            raise trio.ClosedResourceError

        two.streams.on_call("stumble", stumble)
        two.streams.on_call("echo", echo)
        with pytest.raises(PeerError, match="ClosedResourceError"):
            await one.streams.call(two.node_id, "stumble", b"", timeout_s=5)
        assert await one.streams.call(two.node_id, "echo", b"on", timeout_s=5) == b"on", "the stream goes on"
        assert two.streams.counters["calls_ended_by_bug"] == 1


async def test_a_bug_that_a_peer_can_meet_at_will_is_counted_always_and_written_down_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair() as (one, two):

        async def stumble(source: NodeId, payload: bytes) -> bytes:
            raise {b"k": KeyError, b"v": ValueError}[payload]("nobody foresaw it")

        two.streams.on_call("stumble", stumble)
        for payload in (b"k", b"k", b"v", b"k"):
            with pytest.raises(PeerError, match="nobody foresaw it"):
                await one.streams.call(two.node_id, "stumble", payload, timeout_s=5)
        assert two.streams.counters["calls_ended_by_bug"] == 4
        said = [record.exc_info[0] for record in caplog.records if record.exc_info and "a bug ended" in record.message]
        assert said == [KeyError, ValueError]


async def test_an_unknown_call_is_an_error_of_the_peer() -> None:
    async with pair() as (one, two):
        with pytest.raises(PeerError, match="no such call"):
            await one.streams.call(two.node_id, "nothing", b"", timeout_s=5)


async def test_a_call_ends_at_its_timeout_on_both_sides() -> None:
    async with pair() as (one, two):
        cancelled = trio.Event()

        async def hang(source: NodeId, payload: bytes) -> bytes:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
            raise AssertionError

        two.streams.on_call("hang", hang)
        with pytest.raises(Unreachable, match=r"no answer from 127\.0\.0\.1:\d+ within 0.05 s"):
            await one.streams.call(two.node_id, "hang", b"", timeout_s=0.05)
        with trio.fail_after(5):
            await cancelled.wait()


async def test_large_calls_go_over_a_connection_of_their_own() -> None:
    async with pair() as (one, two):
        two.streams.on_call("echo", echo)
        payload = bytes(3_000_000)
        assert await one.streams.call(two.node_id, "echo", payload, timeout_s=10) == payload
        assert sorted(bulk for _, bulk in two.streams._incoming) == [False, True]
        assert one.events == [(two.node_id, True)], "bulk is no news about the member"


async def test_a_call_to_a_stranger_fails_at_once() -> None:
    async with pair() as (one, _):
        with pytest.raises(Unreachable, match="not a member known here"):
            await one.streams.call(NodeId("99" * 16), "echo", b"", timeout_s=5)
        assert not one.streams.send(NodeId("99" * 16), "consensus", b"")


async def test_a_member_that_is_down_is_named_with_the_reason() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    introduce(one, two)
    await two.open()
    assert two.listener is not None
    await two.listener.aclose()
    async with one.running():
        connect(one, two)
        with pytest.raises(Unreachable, match="connection refused"):
            await one.streams.call(two.node_id, "echo", b"", timeout_s=5)


@pytest.mark.parametrize("address", ["", "nonsense:", "127.0.0.1:0", "a..b:4747", "[fe80::1%\0]:4747"])
async def test_a_member_that_the_log_has_at_no_address_is_out_of_reach_until_it_is_at_one(address: str) -> None:
    """As the founder of a cluster made from a backup, to whoever reads the log up to its first declaration."""
    one, two = LoopbackMember(1), LoopbackMember(2)
    introduce(one, two)
    async with one.running(), two.running():
        one.streams.set_members({two.node_id: address})
        with pytest.raises(Unreachable, match=r"cannot read the address|cannot be resolved"):
            await one.streams.call(two.node_id, "echo", b"", timeout_s=5)
        connect(one, two)
        await one.until(two.node_id, True)


async def test_a_restarted_member_is_found_again_and_waiting_calls_hear_of_the_end() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    introduce(one, two)
    async with one.running():
        failed = trio.Event()

        async def ask_for_ever() -> None:
            with pytest.raises(Unreachable, match="ended before the answer came"):
                await one.streams.call(two.node_id, "hang", b"", timeout_s=30)
            failed.set()

        async def hang(source: NodeId, payload: bytes) -> bytes:
            asked.set()
            return await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            asked = trio.Event()
            async with two.running():
                two.streams.on_call("hang", hang)
                connect(one, two)
                await one.until(two.node_id, True)
                nursery.start_soon(ask_for_ever)
                await asked.wait()
            await one.until(two.node_id, False)
            with trio.fail_after(5):
                await failed.wait()
        port = int(two.address.rpartition(":")[2])
        again = LoopbackMember(2)
        introduce(one, again)
        await again.open(port)
        again.streams.on_call("echo", echo)
        async with again.running():
            connect(one, again)
            await one.until(two.node_id, True)
            assert await one.streams.call(two.node_id, "echo", b"back", timeout_s=5) == b"back"


async def test_a_member_is_dialed_back_when_it_dials() -> None:
    """The back-off of the side that failed before is cut short by the other's connection."""
    one, two = LoopbackMember(1), LoopbackMember(2)
    introduce(one, two)
    one.streams = one.new_streams(StreamsConfig(backoff_first_s=3_000, backoff_max_s=3_000))
    await two.open()
    assert two.listener is not None
    port = int(two.address.rpartition(":")[2])
    await two.listener.aclose()
    async with one.running():
        connect(one, two)
        await until_counted(one.streams.counters, "dial_unreachable")
        await two.open(port)
        async with two.running():
            connect(one, two)
            await one.until(two.node_id, True)


async def test_a_node_that_the_log_does_not_name_is_refused_in_words() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    one.admitted[two.node_id] = node_of(2)
    async with one.running(), two.running():
        connect(one, two)
        await until_counted(two.streams.counters, "refused_unauthenticated")
        await until_counted(one.streams.counters, "dial_unauthenticated")
        assert "admits no node of this id with this key" in one.streams.why_not(two.node_id)
        assert not one.events


async def test_a_refusal_stands_while_the_next_attempt_is_made() -> None:
    """`swarm status` shows it, and who is asked about a recovery: neither should blink."""
    one, two = LoopbackMember(1), LoopbackMember(2)
    one.admitted[two.node_id] = node_of(2)
    async with one.running(), two.running():
        connect(one, two)
        await until_counted(one.streams.counters, "dial_unauthenticated")
        outgoing, dialing = one.streams._outgoing[two.node_id], trio.Event()

        async def dial(address: str, protocol: str) -> SecureStream:
            dialing.set()
            await trio.sleep_forever()
            raise AssertionError

        outgoing._dialer = cast(Dialer, SimpleNamespace(dial=dial))
        outgoing.wake()
        await dialing.wait()
        assert [node_id for node_id, _ in one.streams.refusals()] == [two.node_id]


async def test_a_key_that_is_not_the_pinned_one_is_refused_on_both_ends() -> None:
    """A former member that knows the secret cannot speak for a present one."""
    one, impostor = LoopbackMember(1), LoopbackMember(2, key_number=66)
    introduce(one, impostor)
    async with one.running(), impostor.running():
        connect(one, impostor)
        await until_counted(one.streams.counters, "refused_unauthenticated")
        await until_counted(one.streams.counters, "dial_unauthenticated")
        assert not one.events and not impostor.events


async def test_a_removed_node_is_cut_off_and_stays_out() -> None:
    async with pair() as (one, two):
        del one.admitted[two.node_id]
        one.streams.set_members({})
        await two.until(one.node_id, False)
        assert not one.streams.connected(two.node_id)
        await until_counted(one.streams.counters, "refused_unauthenticated")


async def test_another_clusters_authority_is_refused_in_the_handshake() -> None:
    one, other = LoopbackMember(1), LoopbackMember(2, cluster=ClusterId("cd" * 16))
    introduce(one, other)
    async with one.running(), other.running():
        connect(one, other)
        await until_counted(one.streams.counters, "dial_unauthenticated")
        assert "another token or another cluster" in one.streams.why_not(other.node_id)
        await until_counted(other.port.counters, "unauthenticated")


async def test_a_hello_of_another_recovery_is_refused_by_both() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    two.hello = Hello(CLUSTER, two.node_id, 1, 1, 5)
    two.streams = two.new_streams()
    introduce(one, two)
    async with one.running(), two.running():
        connect(one, two)
        await until_counted(one.streams.counters, "refused_other_generation")
        await until_counted(two.streams.counters, "refused_other_generation")
        assert not one.events and not two.events
        assert not one.streams.refusals() and not one.streams.estranged(), "it is a member all the same"


async def test_each_side_is_told_which_recovery_the_other_follows_whoever_dials() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    two.hello = Hello(CLUSTER, two.node_id, 1, 1, 5)
    two.streams = two.new_streams()
    introduce(one, two)
    async with one.running(), two.running():
        one.streams.set_members({two.node_id: two.address})  # two dials nobody
        with trio.fail_after(10):
            while not (one.generations and two.generations):
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert one.generations[0] == (two.node_id, 5) and two.generations[0] == (one.node_id, 0)


async def test_who_holds_nothing_of_its_recovery_is_not_followed_into_it_and_follows_all_the_same() -> None:
    """The only one that held the recovered log may be gone by now; an old log that is whole must not be set aside for nothing."""
    one, two = LoopbackMember(1), LoopbackMember(2)
    two.hello, two.has_log = Hello(CLUSTER, two.node_id, 1, 1, 5), False
    two.streams = two.new_streams()
    introduce(one, two)
    async with one.running(), two.running():
        connect(one, two)
        for member in (one, two):
            await until_counted(member.streams.counters, "refused_other_generation")
        with trio.fail_after(10):
            while not two.generations:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert one.generations == [] and two.generations[0] == (one.node_id, 0)


async def dial_raw(member: LoopbackMember, number: int) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection of an admitted node that then does what it likes."""
    made = contexts(issue(SECRET, cluster_salt(CLUSTER), node_of(number).id, key_of(number)), PROTOCOL_PEER)
    plain = await trio.open_tcp_stream("127.0.0.1", int(member.address.rpartition(":")[2]))
    stream = trio.SSLStream(plain, made.client, server_hostname=tcp.server_name(PROTOCOL_PEER))
    await stream.do_handshake()
    return stream


async def drain(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    received = bytearray()
    with trio.fail_after(10):
        try:
            while data := await stream.receive_some():
                received += data
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)
    return bytes(received)


HELLO = encode_frame(Hello(CLUSTER, node_of(7).id, 1, 1, 0))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        encode_frame(Message("consensus", b"")),
        encode_frame(Hello(CLUSTER, node_of(8).id, 1, 1, 0)),
        encode_frame(Hello(CLUSTER, node_of(7).id, 99, 1, 0)),
        encode_frame(Hello(ClusterId("cd" * 16), node_of(7).id, 1, 1, 0)),
    ],
)
async def test_a_first_frame_that_is_not_the_right_hello_is_refused(sent: bytes) -> None:
    member = LoopbackMember(1)
    member.admitted[node_of(7).id] = node_of(7)
    async with member.running():
        stream = await dial_raw(member, 7)
        await stream.send_all(sent)
        await drain(stream)
        assert member.streams.counters["refused_bad_message"] == 1


@pytest.mark.parametrize("sent", [b"\xff" * 100, HELLO, encode_frame(Call(1, "x", 10, b""))[:-3] + b"\xff\xff\xff"])
async def test_bad_bytes_after_the_hello_end_the_stream_and_are_counted(sent: bytes) -> None:
    member = LoopbackMember(1)
    member.admitted[node_of(7).id] = node_of(7)
    async with member.running():
        stream = await dial_raw(member, 7)
        await stream.send_all(HELLO + sent)
        await drain(stream)
        assert member.streams.counters["bad_message"] == 1


async def test_a_new_connection_replaces_the_old_one_of_the_same_member() -> None:
    member = LoopbackMember(1)
    member.admitted[node_of(7).id] = node_of(7)
    async with member.running():
        streams = []
        for _ in range(2):
            stream = await dial_raw(member, 7)
            await stream.send_all(HELLO)
            assert await stream.receive_some()
            streams.append(stream)
        assert await drain(streams[0]) == b""
        assert len(member.streams._incoming) == 1
        await trio.aclose_forcefully(streams[1])


async def test_a_connection_that_has_ended_is_freed_at_once_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with pair() as (one, two):
            ends = [weakref.ref(end) for each in (one, two) for end in each.streams._incoming.values()]
            assert len(ends) == 2 and all(end() is not None for end in ends)
        assert all(end() is None for end in ends)
    finally:
        gc.enable()


async def test_a_peer_that_takes_no_bytes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    member = LoopbackMember(1)
    member.admitted[node_of(7).id] = node_of(7)
    member.streams = member.new_streams(StreamsConfig(write_stall_s=0.1))

    async def flood(source: NodeId, payload: bytes) -> bytes:
        return bytes(4_000_000)

    member.streams.on_call("flood", flood)
    async with member.running():
        stream = await dial_raw(member, 7)
        await stream.send_all(HELLO + b"".join(encode_frame(Call(n, "flood", 60_000, b"")) for n in range(8)))
        await until_counted(member.streams.counters, "writes_stalled")
        await trio.aclose_forcefully(stream)


async def test_a_full_queue_drops_and_counts_instead_of_growing() -> None:
    async with pair() as (one, two):
        outgoing = one.streams._outgoing[two.node_id]
        accepted = [one.streams.send(two.node_id, "consensus", bytes(1_000_000)) for _ in range(20)]
        assert accepted.count(True) == 8 and not accepted[-1]
        assert one.streams.counters["frames_dropped_queue_full"] == 12
        assert outgoing.connected


async def test_too_many_calls_of_one_peer_are_told_so() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    two.streams = two.new_streams(StreamsConfig(calls_max=3))
    introduce(one, two)

    async def hang(source: NodeId, payload: bytes) -> bytes:
        return await trio.sleep_forever()

    two.streams.on_call("hang", hang)
    async with one.running(), two.running():
        connect(one, two)
        await one.until(two.node_id, True)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Overloaded):
                    await one.streams.call(two.node_id, "hang", b"", timeout_s=10)
                nursery.cancel_scope.cancel()

            for _ in range(4):
                nursery.start_soon(ask)


# ---- the port before anything has proved itself ---------------------------------------------------------------------------


def address_of(member: LoopbackMember) -> tuple[str, int]:
    return "127.0.0.1", int(member.address.rpartition(":")[2])


async def test_a_bare_connect_costs_nothing_and_is_no_error() -> None:
    member = LoopbackMember(1)
    async with member.running():
        plain = await trio.open_tcp_stream(*address_of(member))
        await plain.aclose()
        await until_counted(member.port.counters, "bare_connect")
        assert dict(member.port.counters) == {"bare_connect": 1}


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01" + b"\xff" * 200])
async def test_random_bytes_to_the_port_are_counted(sent: bytes) -> None:
    member = LoopbackMember(1)
    async with member.running():
        plain = await trio.open_tcp_stream(*address_of(member))
        await plain.send_all(sent)
        await until_counted(member.port.counters, "not_tls")
        await plain.aclose()


async def test_a_slow_handshake_is_cut_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKE_S", 0.05)
    member = LoopbackMember(1)
    async with member.running():
        plain = await trio.open_tcp_stream(*address_of(member))
        await plain.send_all(b"\x16")
        await until_counted(member.port.counters, "handshake_timeout")
        await plain.aclose()


async def test_silent_connections_do_not_lock_members_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKES_MAX", 4)
    one, two = LoopbackMember(1), LoopbackMember(2)
    introduce(one, two)
    async with one.running(), two.running():
        silent = [await trio.open_tcp_stream(*address_of(two)) for _ in range(6)]
        await until_counted(two.port.counters, "handshakes_full")
        one.streams.set_members({two.node_id: two.address})
        await one.until(two.node_id, True)
        for plain in silent:
            await plain.aclose()


async def test_a_client_without_a_certificate_gets_nowhere() -> None:
    member = LoopbackMember(1)
    async with member.running():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([PROTOCOL_PEER])
        plain = await trio.open_tcp_stream(*address_of(member))
        stream = trio.SSLStream(plain, context, server_hostname=tcp.server_name(PROTOCOL_PEER))
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
            await stream.receive_some()
        await until_counted(member.port.counters, "unauthenticated")
        await trio.aclose_forcefully(stream)


async def test_cancelling_everything_at_any_moment_leaves_nothing_open() -> None:
    """Warnings are errors: a socket that was left open would fail the run."""
    for checkpoints in range(0, 120, 7):
        with trio.CancelScope() as scope:

            async def end(scope: trio.CancelScope = scope, count: int = checkpoints) -> None:
                for _ in range(count):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(end)
                async with pair() as (one, two):
                    two.streams.on_call("echo", echo)
                    while True:
                        await one.streams.call(two.node_id, "echo", b"", timeout_s=5)
        assert scope.cancelled_caught


async def test_a_taken_port_is_named() -> None:
    listener = await tcp.open_listener("127.0.0.1", 0)
    port = tcp.listener_port(listener)
    with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}") as caught:
        await tcp.open_listener("127.0.0.1", port)
    assert re.fullmatch(rf"process {os.getpid()} \(.+\) listens there", getattr(caught.value, "cause", ""))
    await listener.aclose()




@pytest.mark.parametrize("boot_first", [True, False])
async def test_a_certificate_of_one_authority_is_not_good_for_the_others_protocol(boot_first: bool) -> None:
    """One port, two authorities: the context is chosen by name, and the certificate must come from that one's authority."""
    node = node_of(7)
    boot = contexts(issue(SECRET, FOUND_SALT, node.id, key_of(7)), PROTOCOL_BOOT)
    peer = contexts(issue(SECRET, cluster_salt(CLUSTER), node.id, key_of(7)), PROTOCOL_PEER)
    port = tcp.PeerPort()
    reached: list[str] = []

    async def reach(secure: SecureStream) -> None:
        reached.append(secure.node_id)
        await close_now(secure.stream)

    for protocol, made in [(PROTOCOL_BOOT, boot), (PROTOCOL_PEER, peer)][:: 1 if boot_first else -1]:
        port.use(protocol, made)
        port.handle(protocol, reach)
    listener = await tcp.open_listener("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.serve, listener)
        for protocol, good, bad in ((PROTOCOL_PEER, peer, boot), (PROTOCOL_BOOT, boot, peer)):
            for made in (bad, good):
                made.client.set_alpn_protocols([protocol])
                made.client.verify_mode = ssl.CERT_NONE  # a hostile client does not check whom it talks to
                plain = await trio.open_tcp_stream("127.0.0.1", tcp.listener_port(listener))
                stream = trio.SSLStream(plain, made.client, server_hostname=tcp.server_name(protocol))
                await stream.do_handshake()
                await drain(stream)
        nursery.cancel_scope.cancel()
    listener.socket.close()
    assert len(reached) == 2 and port.counters["unauthenticated"] == 2
