"""Arguments of a task as people write them, turned into what its contract takes.

`--arg KEY=VALUE` is text where the field takes text; elsewhere the value is read as JSON, so that `all=false`,
`timeout_seconds=5` and `argv=["df","-h"]` mean what they look like. A list may also be written item by item.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fleet import errors
from fleet.contracts import AnyContract

#: JSON schema types as people call them.
_CALLED = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list in JSON"}
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def read(contract: AnyContract, *, pairs: Sequence[tuple[str, str]], document: str | None) -> dict[str, Any]:
    """Return the arguments: those of the document, with the pairs on top, checked against the contract.

    Raises `errors.InvalidArguments` that names the field.
    """
    arguments = _document(document) if document is not None else {}
    schema = contract.request.model_json_schema()
    written: dict[str, list[str]] = {}
    for name, text in pairs:
        written.setdefault(name, []).append(text)
    for name, texts in written.items():
        arguments[name] = _value(contract, name, texts, kinds=_kinds(schema, name))
    contract.parse(arguments)
    return arguments


def _document(text: str) -> dict[str, Any]:
    """Read `@FILE`, `-` for standard input, or the JSON itself."""
    source, content = "--json", text
    try:
        if text == "-":
            source, content = "--json - (standard input)", sys.stdin.read()
        elif text.startswith("@"):
            source, content = f"--json {text}", Path(text[1:]).read_text(encoding="utf-8")
        value = json.loads(content)
    except OSError as exc:
        raise click.UsageError(f"{source}: cannot be read ({exc.strerror})") from exc
    except ValueError as exc:
        raise click.UsageError(f"{source}: is no JSON ({exc}); give @FILE, - or an object such as {{}}") from exc
    if not isinstance(value, dict):
        raise click.UsageError(f"{source}: must be an object with the task's arguments")
    return value


def _kinds(schema: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the JSON types that a field takes; none where the field is not known or takes anything."""
    field = schema.get("properties", {}).get(name, {})
    branches = field.get("anyOf", [field])
    resolved = [schema.get("$defs", {}).get(b["$ref"].rpartition("/")[2], b) if "$ref" in b else b for b in branches]
    return frozenset(branch["type"] for branch in resolved if "type" in branch)


def _value(contract: AnyContract, name: str, texts: list[str], *, kinds: frozenset[str]) -> Any:
    if "array" in kinds and (len(texts) > 1 or not texts[0].lstrip().startswith("[")):
        return texts
    if len(texts) > 1:
        raise errors.InvalidArguments(contract.name, {name: "given more than once"}, expected=contract.signature())
    [text] = texts
    if "string" in kinds or not kinds:
        return text
    if "boolean" in kinds and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        wanted = " or ".join(_CALLED.get(kind, f"{kind} in JSON") for kind in sorted(kinds - {"null"}))
        problem = f"{text!r} is not {wanted}"
        raise errors.InvalidArguments(contract.name, {name: problem}, expected=contract.signature()) from None
