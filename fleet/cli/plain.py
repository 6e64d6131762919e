"""Plain values: records as JSON and YAML text in which no character can move a terminal."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fleet import redaction


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON in ASCII: `\\u` escapes mean the same to a program, and do nothing to a terminal."""
    return json.dumps(value, indent=indent, default=_convert).replace("\x7f", "\\u007f")


def as_yaml(value: Any) -> str:
    """Return YAML that ends in a line break; characters that do not print are escaped by the format itself."""
    import yaml

    dumped: str = yaml.safe_dump(json.loads(as_json(value)), sort_keys=False, default_flow_style=False, width=100)
    return dumped.removesuffix("...\n")


def readable(value: Any) -> str:
    """Return any JSON-like value as indented text for people, each line of it safe."""
    return redaction.for_terminal(as_yaml(value).rstrip(), keep_newlines=True)


def _convert(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return str(value)
