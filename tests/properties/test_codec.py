"""The codec against hostile bytes: whatever arrives, `decode_untrusted` returns the right kind or raises `BadMessage`."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadMessage
from swarm.model.command import COMMANDS
from swarm.model.entry import Entry
from swarm.model.ids import RequestId
from swarm.wire.codec import decode_untrusted, encode


class Record(msgspec.Struct, frozen=True, array_like=True):
    number: int
    data: bytes
    names: tuple[str, ...] = ()
    amounts: dict[str, int] = {}


class LongerRecord(msgspec.Struct, frozen=True, array_like=True):
    number: int
    data: bytes
    names: tuple[str, ...] = ()
    amounts: dict[str, int] = {}
    added: str = "default"


records = st.builds(
    Record,
    number=st.integers(-(2**63), 2**63 - 1),
    data=st.binary(max_size=40),
    names=st.lists(st.text(max_size=8), max_size=4).map(tuple),
    amounts=st.dictionaries(st.text(max_size=8), st.integers(0, 2**40), max_size=4),
)


@given(records)
def test_what_is_encoded_decodes_to_itself(record: Record) -> None:
    assert decode_untrusted(encode(record), Record, bytes_max=10_000) == record


@given(records)
def test_an_appended_field_is_readable_both_ways(record: Record) -> None:
    longer = decode_untrusted(encode(record), LongerRecord, bytes_max=10_000)
    assert longer.added == "default"
    back = decode_untrusted(encode(longer), Record, bytes_max=10_000)
    assert back == record


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_bad_message(data: bytes) -> None:
    for kind in (Record, Entry, *(command for _, command in COMMANDS.values())):
        try:
            decode_untrusted(data, kind, bytes_max=200)
        except BadMessage:
            continue


@given(records, st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_raises_only_bad_message(record: Record, place: int, value: int) -> None:
    data = bytearray(encode(record))
    data[place % len(data)] = value
    try:
        decode_untrusted(bytes(data), Record, bytes_max=10_000)
    except BadMessage:
        return


HOSTILE = {
    "a regular expression": cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")),
    "a date": b"\xc1\x00",
    "a huge integer": b"\xc2\x4a" + b"\xff" * 10,
    "a cycle": b"\xd8\x1c\x81\xd8\x1d\x00",
    "an indefinite array": b"\x9f\x01\xff",
    "trailing bytes": b"\x01\x01",
    "nothing": b"",
    "a duplicate key": b"\xa2\x01\x01\x01\x02",
    "an array as key": b"\xa1\x80\x01",
    "deep nesting": b"\x81" * 100 + b"\x01",
    "a length that lies": b"\x9a\xff\xff\xff\xff\x01",
    "undefined": b"\xf7",
    "a simple value": b"\xf8\x50",
    "not text": b"\x62\xff\xfe",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_cbor_is_refused(name: str) -> None:
    with pytest.raises(BadMessage):
        decode_untrusted(HOSTILE[name], Record, bytes_max=1000)


def test_more_bytes_than_the_limit_are_refused_before_decoding() -> None:
    with pytest.raises(BadMessage, match="at most 10"):
        decode_untrusted(encode(Record(1, b"x" * 100)), Record, bytes_max=10)


def test_an_entry_survives_the_wire() -> None:
    entry = Entry(7, 3, "task.submit", 1, b"\x00\x01", 0, 1.5, RequestId("r"))
    assert decode_untrusted(encode(entry), Entry, bytes_max=1000) == entry
