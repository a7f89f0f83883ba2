"""Task files and variables: every mistake is named with its line, and no file can do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.cli.docker_auth import registry_auth, registry_of
from swarm.cli.task_file import env_item, read_env_file, read_task_files
from swarm.errors import NotFound, OperatorError, UsageError


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "task.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def read_task_file(path: str) -> dict[str, object]:
    ((document, _),) = read_task_files(path)
    return document


def test_a_file_is_read_as_yaml_1_2(tmp_path: Path) -> None:
    path = written(tmp_path, "image: redis:7\nports:\n  - 22:22\nrestart: no\nenv: {A: on}\n")
    assert read_task_file(path) == {"image": "redis:7", "ports": ["22:22"], "restart": "no", "env": {"A": "on"}}


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("image: a\nimagee: b\n", "line 2", "imagee"),
        ("image: a\nports:\n  - 99999:1\n", "line 2", "99999"),
        ("image: [unclosed\n", "line", "YAML"),
        ("image: a\nimage: b\n", "line 2", "the field 'image' is given twice"),
        ("image: a\nenv:\n  A: 1\n  A: 2\n", "line 4", "the field 'A' is given twice"),
        ('{"image": "a", "image": "b"}', "", "the field 'image' is given twice"),
        ("{image: a, image: b}", "line 1", "the field 'image' is given twice"),
        ('[{"image": "a"},\n {"image": ', "line 2", "not JSON"),
        ('{"image": "a"}\n{"image": \n', "line 2", "not JSON"),
        ("services:\n  web:\n    image: a\n", "", "is a compose file"),
        ("image: a\n\n\nmemory: lots\n", "line 4", "lots"),
        ("image: a\n\tname: b\n", "line 2", "YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, place: str, word: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_task_file(path)
    assert path in caught.value.message
    assert place in caught.value.message
    assert word in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "x",
        b"\xff\xfe",
        b"\x00\x01",
        "a: &a [1]\nb: *a\n",
        "!!python/object:os.system {}\n",
        "? [a]\n: b\n",
        "a" * 300_000,
        "1: 2\n",
    ],
)
def test_what_is_no_task_file_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UsageError):
        read_task_file(written(tmp_path, text))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(alphabet=st.sampled_from("imagenv:[]{}-&*!|>'\"#%@\n\t 1,?~<\x00é"), max_size=60) | st.binary(max_size=60).map(str)
)
def test_any_text_is_a_document_or_an_operators_error(tmp_path: Path, text: str) -> None:
    try:
        assert isinstance(read_task_file(written(tmp_path, text)), dict)
    except OperatorError as error:
        assert error.message


@pytest.mark.parametrize(("text", "cause"), [("", "the file is empty"), (" \n\n", "empty"), ("# a\n", "nothing but comments")])
def test_a_file_without_a_document_is_called_so(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_task_file(written(tmp_path, text))
    assert cause in caught.value.cause


@pytest.mark.parametrize(
    ("text", "line"), [('{"image": "a"', 1), ('[{"image":\n"a"}, \n', 3), ('{"a": 1}\n\n{x}\n', 3), ("[" * 9999, 1)]
)
def test_a_broken_file_of_json_is_called_json_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "task.json").write_text(text)
    with pytest.raises(UsageError, match=f"line {line}: not JSON"):
        read_task_files(str(tmp_path / "task.json"))


def test_braces_that_are_yaml_and_not_json_are_read(tmp_path: Path) -> None:
    assert read_task_file(written(tmp_path, "{image: a, env: {A: 1}}")) == {"image": "a", "env": {"A": 1}}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent"):
        read_task_file(str(tmp_path / "absent.yml"))


def test_files_of_variables_come_before_the_variables_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("# a comment\n\nA=1\nB=two words\n")
    found = read_task_file(written(tmp_path, "image: a\nenv-file: vars\nenv: {A: 3}\n"))
    assert found["env"] == ["A=1", "B=two words", "A=3"]


def test_a_bare_variable_is_taken_from_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRESENT", "x=y")
    monkeypatch.delenv("ABSENT", raising=False)
    assert env_item("PRESENT") == ["PRESENT=x=y"]
    assert env_item("ABSENT") == []
    (tmp_path / "vars").write_text("A=1\n=2\n")
    with pytest.raises(UsageError, match="line 2"):
        read_env_file(str(tmp_path / "vars"))


def test_credentials_come_from_the_callers_docker_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(NotFound, match=r"registry\.example"):
        registry_auth("registry.example/team/app:1")
    (tmp_path / "config.json").write_text('{"auths": {"registry.example": {"auth": "dXNlcjpwYTpzcw=="}}}')
    assert registry_auth("registry.example/team/app:1") == {
        "username": "user",
        "password": "pa:ss",
        "serveraddress": "registry.example",
    }
    with pytest.raises(NotFound, match="docker"):
        registry_auth("redis:7")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="cannot read"):
        registry_auth("redis:7")


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("redis", "https://index.docker.io/v1/"),
        ("team/app", "https://index.docker.io/v1/"),
        ("localhost/a", "localhost"),
        ("r:5000/a", "r:5000"),
    ],
)
def test_the_registry_of_an_image_is_read_as_docker_does(image: str, registry: str) -> None:
    assert registry_of(image) == registry


@pytest.mark.parametrize(
    "text",
    [
        "image: a\nname: one\n---\nimage: b\nname: two\n",
        "- image: a\n  name: one\n- image: b\n  name: two\n",
        '[{"image": "a", "name": "one"}, {"image": "b", "name": "two"}]',
        '{"image": "a", "name": "one"}\n{"image": "b", "name": "two"}\n',
    ],
)
def test_a_file_may_hold_many_tasks(tmp_path: Path, text: str) -> None:
    documents = [document for document, _ in read_task_files(written(tmp_path, text))]
    assert documents == [{"image": "a", "name": "one"}, {"image": "b", "name": "two"}]


def test_a_mistake_among_many_is_named_with_its_document_and_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_task_files(written(tmp_path, "image: a\n---\nimage: b\ncpus: lots\n"))
    assert "document 2, line 4" in caught.value.message and "cpus" in caught.value.message
