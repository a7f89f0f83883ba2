"""Task files: YAML 1.2 as people write it, with the line of every mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from swarm.errors import NotFound, OperatorError, UsageError
from swarm.schema.document import FIELDS, canonical_field, explain_at

FILE_BYTES_MAX = 256 * 1024
BEGIN_HINT = "begin with a line like image: redis:7"
MANY_BYTES_MAX = 32 * 1024 * 1024


def read_task_files(path: str) -> list[tuple[dict[str, Any], str]]:
    """Every document of a file (YAML documents, or one that is a list, or JSON), checked, under canonical names, each with the
    place that errors about it name. Raises errors that name file, document, line and field."""
    documents = parse_yaml(read_text(path, bytes_max=MANY_BYTES_MAX), path)
    several = len(documents) > 1
    found = []
    for number, (document, lines) in enumerate(documents, 1):
        place = f"{path}, document {number}" if several else path
        found.append((checked_document(document, lines, place, path), place))
    return found


def checked_document(document: object, lines: Mapping[Any, int], place: str, path: str) -> dict[str, Any]:
    """One document under canonical names, each of its fields checked."""
    if not isinstance(document, dict):
        raise UsageError(f"cannot read {place}", cause="a map of fields is expected", hint=BEGIN_HINT)
    if isinstance(document.get("services"), dict) and "image" not in document:
        raise UsageError(
            f"{place} is a compose file", cause="swarm takes one document per task",
            hint="write each service as a document of its own, with --- between them: name, image, command, ports, ...",
        )  # fmt: skip
    found: dict[str, Any] = {}
    for key, value in document.items():
        at = f"{place}, line {lines.get(key, 1)}" if lines else place
        try:
            field = "env_file" if key in ("env_file", "env-file") else canonical_field(key)
            if field in found:
                raise UsageError(f"'{field}' is given twice", hint="keep one of them")
            if field != "env_file" and value is not None:
                FIELDS[field](value)
        except OperatorError as error:
            raise explain_at(error, at) from None
        if value is not None:
            found[field] = value
    resolve_env_files(found, os.path.dirname(path))
    return found


def read_text(path: str, *, bytes_max: int = FILE_BYTES_MAX) -> str:
    """The file's text; `-` is standard input."""
    import sys

    try:
        if path == "-":
            data = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with open(path, "rb") as opened:
                data = opened.read(bytes_max + 1)
    except OSError as error:
        raise NotFound(f"cannot read {path}", cause=error.strerror or str(error), hint="check the path") from None
    if len(data) > bytes_max:
        raise UsageError(f"{path} is too large", cause=f"at most {bytes_max} bytes are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}", cause="it is not UTF-8 text", hint="save it as UTF-8") from None


def parse_yaml(text: str, path: str) -> list[tuple[object, dict[Any, int]]]:
    """The plain values of each document, or of each item of the one list, with the line of each of its keys. What is JSON is read
    as such, a hundred times faster and without lines. Aliases are refused: they could blow a small file up."""
    if not text.strip():
        raise UsageError(f"cannot read {path}", cause="the file is empty", hint=BEGIN_HINT)
    found = parse_json(text, path)
    if found is not None:
        return [(document, {}) for document in found]
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import SequenceNode

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    try:
        if "*" in text and any(type(event).__name__ == "AliasEvent" for event in reader.parse(text)):
            raise UsageError(f"cannot read {path}", cause="it has aliases (*name)", hint="write the values out")
        nodes = [node for node in reader.compose_all(text) if node is not None]
        if len(nodes) == 1 and isinstance(nodes[0], SequenceNode):
            nodes = nodes[0].value
        documents = [(reader.constructor.construct_document(node), lines_of(node)) for node in nodes]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}" if mark is not None else path
        twice = re.match(r'found duplicate key "(.*?)" with value', str(error.problem or ""), re.DOTALL)
        if twice is not None:
            raise UsageError(f"{place}: the field '{twice[1]}' is given twice", hint="keep one of them") from None
        if text.lstrip().startswith(("{", "[")):
            raise not_json(text, path) from None
        hint = "indent with spaces, and put text with : or # into quotes"
        raise UsageError(f"{place}: not YAML", cause=str(error.problem or error.context or ""), hint=hint) from None
    except (YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise UsageError(f"cannot read {path}: not YAML", cause=str(error).splitlines()[0] if str(error) else "") from None
    if not documents:
        raise UsageError(f"cannot read {path}", cause="it holds nothing but comments", hint=BEGIN_HINT)
    return documents


def lines_of(node: Any) -> dict[Any, int]:
    """The line of each key of a map; nothing for another node."""
    from ruamel.yaml.nodes import MappingNode, ScalarNode

    if not isinstance(node, MappingNode):
        return {}
    return {key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key, ScalarNode)}


def parse_json(text: str, path: str) -> list[object] | None:
    """The documents of a JSON list, object, or file of one object a line; None when it is none of these and may be YAML. Raises
    `UsageError` for a field that is there twice, and for what is called JSON and is not."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    import json

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"{path}: the field '{twice}' is given twice", hint="keep one of them")
        return found

    try:
        found = json.loads(text, object_pairs_hook=unique)
        return found if isinstance(found, list) and found else [found]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line, object_pairs_hook=unique) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        if path.endswith((".json", ".jsonl", ".ndjson")):
            raise not_json(text, path) from None
        return None


def not_json(text: str, path: str) -> UsageError:
    """Where it stops being JSON: as a whole, or where its lines are objects, in the first one that is not."""
    import json

    lines = text.strip().splitlines()
    problem: Exception | None = None
    number = 1
    try:
        json.loads(lines[0])
    except (ValueError, RecursionError):
        lines = [text]
    for place, line in enumerate(lines, 1):
        try:
            json.loads(line or "{}")
        except json.JSONDecodeError as error:
            problem, number = error, place - 1 + error.lineno
            break
        except (ValueError, RecursionError) as error:
            problem, number = error, place
            break
    said = problem.msg if isinstance(problem, json.JSONDecodeError) else str(problem)
    return UsageError(f"{path}, line {number}: not JSON", cause=said, hint="is it whole? a list of objects, or one object a line")


def resolve_env_files(document: dict[str, Any], folder: str) -> None:
    """Put what `env_file` names before what `env` says, in place."""
    named = document.pop("env_file", None)
    if named is None:
        return
    files = [named] if isinstance(named, str) else named
    if not isinstance(files, list) or not all(isinstance(each, str) for each in files):
        raise UsageError("bad value for 'env_file'", cause="a path or a list of paths is expected")
    items = [item for each in files for item in read_env_file(os.path.join(folder, each))]
    own = document.get("env", [])
    document["env"] = items + ([f"{name}={value}" for name, value in own.items()] if isinstance(own, dict) else list(own))


def read_env_file(path: str) -> list[str]:
    """`NAME=value` lines; blank ones and those with # at their start are skipped; a bare NAME is taken from the caller's own."""
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            found.extend(env_item(line))
        except OperatorError as error:
            raise explain_at(error, f"{path}, line {number}") from None
    return found


def env_item(text: str) -> list[str]:
    """One --env: `NAME=value`, or `NAME` for the caller's own value (nothing when it has none)."""
    name, separator, _ = text.partition("=")
    if not name or any(c.isspace() for c in name):
        raise UsageError(f"cannot read the variable {text!r}", hint="write it like NAME=value")
    if separator:
        return [text]
    return [f"{name}={os.environ[name]}"] if name in os.environ else []
