"""Task documents: what people write becomes exactly one spec, or one error that names the thing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import OperatorError, UsageError
from swarm.model.task import MountKind, Port, RestartKind
from swarm.schema.document import FIELDS, build_spec
from swarm.schema.quantities import parse_cpus, parse_duration, parse_memory, parse_size
from swarm.schema.request import read_object_untrusted
from swarm.schema.shapes import spec_object


def spec_of(**fields: Any) -> Any:
    return build_spec({"image": "redis:7", **fields}, name_default="made")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("128M", 2**27),
        ("1.5G", 3 * 2**29),
        ("512KiB", 2**19),
        ("512k", 2**19),
        ("6mb", 6 * 2**20),
        ("0", 0),
        (7, 7),
        ("1T", 2**40),
    ],
)
def test_sizes_are_read_in_powers_of_1024(text: object, amount: int) -> None:
    assert parse_size(text, field="memory") == amount


@pytest.mark.parametrize("text", ["", "M", "-1M", "1.M", "1e9", "12Q", True, None, 1.5, "99999999999999T", [], "١M"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="memory"):
        parse_size(text, field="memory")


def test_a_memory_limit_the_engine_would_refuse_is_refused_here() -> None:
    assert parse_memory("6M", field="memory") == 6 * 2**20
    with pytest.raises(UsageError, match="memory"):
        parse_memory("5M", field="memory")


@pytest.mark.parametrize(("text", "amount"), [("0.5", 500), (2, 2000), (0.25, 250), ("500m", 500), ("64", 64000), (0, 0)])
def test_processors_are_thousandths(text: object, amount: int) -> None:
    assert parse_cpus(text, field="cpus") == amount


@pytest.mark.parametrize("text", ["", "many", "-1", "0.0001", "nan", "inf", "1e99", True, None, [], float("nan")])
def test_what_is_no_number_of_processors_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="cpus"):
        parse_cpus(text, field="cpus")


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), (3, 3), ("2.5", 2.5), ("1h", 3600)])
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text, field="stop_grace", seconds_max=3600) == seconds


@pytest.mark.parametrize("text", ["", "s", "10 s", "-1s", "2h", float("nan"), float("inf"), True, None, "1s1"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="stop_grace"):
        parse_duration(text, field="stop_grace", seconds_max=3600)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("6379:6379", (Port(6379, 6379),)),
        ("127.0.0.1:8080:80/udp", (Port(8080, 80, "udp", "127.0.0.1"),)),
        ("[::1]:8080:80", (Port(8080, 80, "tcp", "::1"),)),
        ("8000-8001:80-81", (Port(8000, 80), Port(8001, 81))),
    ],
)
def test_ports_are_host_first(text: str, ports: tuple[Port, ...]) -> None:
    assert spec_of(ports=[text]).ports == ports


@pytest.mark.parametrize(
    "text",
    [
        "80",
        "99999:80",
        "0:80",
        "a:b",
        "80:",
        ":80",
        "1-3:1-2",
        "1.2.3:80:80",
        "80:80/http",
        "22:22:22:22",
        "3-1:3-1",
        1342,
        "1-9999:1-9999",
    ],
)
def test_what_is_no_port_is_refused_and_named(text: object) -> None:
    with pytest.raises(UsageError, match="ports"):
        spec_of(ports=[text])


def test_volumes_and_mounts_say_the_same() -> None:
    spec = spec_of(
        volumes=["data:/data:ro", "/srv:/srv"], mounts=["type=bind,src=/a,dst=/b,ro", {"type": "tmpfs", "target": "/tmp"}]
    )
    kinds = [(m.kind, m.source, m.target, m.read_only) for m in spec.mounts]
    assert kinds == [
        (MountKind.VOLUME, "data", "/data", True),
        (MountKind.BIND, "/srv", "/srv", False),
        (MountKind.BIND, "/a", "/b", True),
        (MountKind.TMPFS, "", "/tmp", False),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"volumes": ["./here:/x"]},
        {"volumes": ["data:x"]},
        {"volumes": [":/x"]},
        {"volumes": ["a:/x:rx"]},
        {"volumes": ["dd:/x", "ee:/x"]},
        {"mounts": ["type=bind,src=relative,dst=/x"]},
        {"mounts": ["type=nfs,dst=/x"]},
        {"mounts": ["what=1"]},
        {"mounts": [1]},
        {"network": "mine"},
        {"network": "none", "ports": ["1:1"]},
        {"network": "host", "ports": ["1:2"]},
        {"ports": ["1:1", "1:2"]},
        {"restart": "sometimes"},
        {"restart": False},
        {"restart": "always:3"},
        {"on_node_loss": "cry"},
        {"stop_signal": "SIGNALLY"},
        {"constraints": ["node.labels.disk=ssd"]},
        {"constraints": ["node.colour==red"]},
        {"env": ["NOVALUE"]},
        {"env": {"A=B": "x"}},
        {"env": {"SWARM_TASK": "x"}},
        {"name": "Not Good"},
        {"image": "UPPER"},
        {"image": "a b"},
        {"image": ""},
        {"command": "it's"},
        {"workdir": "relative"},
        {"user": "two words"},
        {"volume_elsewhere": "yes"},
        {"pids_limit": -1},
        {"policy": "spred"},
        {"labels": 3},
        {"generic": {"gpu": "x"}},
        {"mounts": [{"target": "/x", "source": 3}]},
        {"env": {"A": "x\0"}},
        {"entrypoint": [None]},
    ],
)
def test_what_cannot_be_is_one_error_with_a_hint_or_a_cause(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        spec_of(**fields)
    assert caught.value.message
    assert caught.value.cause or caught.value.hint


def test_an_unknown_field_is_named_with_its_neighbours() -> None:
    with pytest.raises(UsageError, match="imagee") as caught:
        build_spec({"imagee": "x"}, name_default="x")
    assert "image" in caught.value.hint


def test_hyphens_singular_words_and_underscores_mean_the_same() -> None:
    assert spec_of(**{"stop-grace": "3s"}) == spec_of(stop_grace_s=3)
    assert spec_of(volume="aa:/b") == spec_of(volumes=["aa:/b"])
    with pytest.raises(UsageError, match="twice"):
        spec_of(port=["1:1"], ports=["2:2"])


def test_a_task_runs_for_ever_unless_it_is_said_to_be_a_job() -> None:
    assert spec_of().restart.kind is RestartKind.ALWAYS
    assert spec_of(restart="no").restart.kind is RestartKind.NO
    assert spec_of(restart="on-failure:5").restart.attempts_max == 5


def test_what_is_shown_of_a_spec_makes_the_same_spec_again() -> None:
    spec = spec_of(
        name="whole",
        command=["a", "b c"],
        entrypoint=["x"],
        env={"A": 1},
        user="1:1",
        workdir="/w",
        ports=["127.0.0.1:53:53/udp"],
        volumes=["dd:/d"],
        mounts=["type=bind,src=/s,dst=/t,ro"],
        labels={"a": "b"},
        constraints=["node.arch==arm64"],
        cpus=1.5,
        memory="64M",
        generic={"gpu": 2},
        pids_limit=5,
        restart="on-failure:2",
        on_node_loss="wait",
        stop_signal="INT",
        stop_grace="2s",
        init=True,
        policy="binpack",
        preferences=["spread=node.labels.zone"],
        volume_elsewhere=True,
    )
    assert build_spec(spec_object(spec), name_default="x") == spec


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=6), JSON, max_size=5))
def test_any_document_is_a_spec_or_an_operators_error(document: dict[str, Any]) -> None:
    try:
        spec = build_spec({"image": "a:1", **document}, name_default="x")
    except OperatorError as error:
        assert error.message and "\n" not in error.message
    else:
        assert msgspec.to_builtins(spec)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_body_is_an_object_or_a_usage_error(body: bytes) -> None:
    try:
        assert isinstance(read_object_untrusted(body), dict)
    except UsageError as error:
        assert error.message


def test_a_deep_body_is_refused() -> None:
    with pytest.raises(UsageError):
        read_object_untrusted(b"[" * 100_000)
