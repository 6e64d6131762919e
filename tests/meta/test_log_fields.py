"""Log lines call a run, a host and a principal by one name each, so that who searches for one finds all."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LEVELS = {"debug", "info", "warning", "error", "exception"}
#: Other names for what has one.
_OTHERWISE = {
    "run_id": "run",
    "task_id": "run",
    "host_id": "host",
    "hostname": "host",
    "agent": "host",
    "by": "principal",
    "user": "principal",
    "actor": "principal",
    "approver": "principal",
    "submitted_by": "principal",
    "sender": "host or principal",
}


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for package in ("fleet", "workers", "beat"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                if is_call and node.func.attr in _LEVELS and ast.unparse(node.func.value) == "log":
                    yield path, node


def test_what_a_line_is_about_has_one_name() -> None:
    found = list(calls())
    assert len(found) > 50, "it looks at what there is"
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {word.arg}= is {_OTHERWISE[word.arg]}="
        for path, call in found
        for word in call.keywords
        if word.arg in _OTHERWISE
    ]
    assert not wrong


def test_an_event_has_a_name_and_no_sentence() -> None:
    for path, call in calls():
        event = call.args[0]
        if isinstance(event, ast.Constant):
            assert isinstance(event.value, str)
            assert len(event.value.split(".")) == 2, f"{path}:{call.lineno}"
            assert " " not in event.value, f"{path}:{call.lineno}"
