"""docs/troubleshooting.md quotes what Fleet really says, and leaves out no kind of error."""

import ast
import re
from collections.abc import Iterator

import pytest

from fleet import errors
from tests.services.documents import ROOT

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = [quoted for _, quoted in re.findall(r"\*\*(`+) ?(.+?) ?\1\*\*", TEXT)]
CODES = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE))


def said(node: ast.expr) -> str | None:
    """Return the text of an expression, with `…` for what is put into it; None where it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = said(node.left), said(node.right)
        return None if left is right is None else (left or "…") + (right or "…")
    return None


def all_said() -> Iterator[str]:
    for folder in ("fleet", "workers", "beat"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            docstrings = {id(node.value) for node in tree if isinstance(node, ast.Expr)}
            for node in tree:
                if isinstance(node, ast.expr) and id(node) not in docstrings and (text := said(node)) is not None:
                    yield text


SAID = set(all_said())


def kinds(error: type[errors.FleetError] = errors.FleetError) -> Iterator[type[errors.FleetError]]:
    yield error
    for below in error.__subclasses__():
        yield from kinds(below)


def test_there_are_many() -> None:
    assert len(set(ENTRIES)) >= 80
    assert len(set(ENTRIES)) == len(ENTRIES)


@pytest.mark.parametrize("text", ENTRIES)
def test_what_it_quotes_is_what_fleet_says(text: str) -> None:
    # a word is that word; of a sentence the page may have a part
    is_word = re.fullmatch(r"[a-z_.]+", text)
    assert text in SAID if is_word else any(text in said for said in SAID)


def test_every_kind_of_error_stands_in_its_table_with_its_exit_code() -> None:
    ours = {kind.code: str(kind.exit_code) for kind in kinds() if kind.__module__ == errors.__name__}
    assert ours == CODES
