"""No page tells people to type what nobody has tried: every block is run, checked, or says why it cannot be."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fleet.policy import fleets, host
from tests.services import documents
from tests.services.documents import ROOT, SHELLS, Block

PAGES = documents.pages()
BLOCKS = documents.all_blocks()
CHECKED = [block for block in BLOCKS if block.kind]
LINES = [
    (block, words)
    for block in BLOCKS
    if block.language in SHELLS
    for command in block.commands
    for words in documents.fleet_lines(command)
]
#: Where commands stand in sentences; the CHANGELOG names those that were renamed, too.
SENTENCES = sorted(
    {
        (page.relative_to(ROOT), match[1])
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for match in re.finditer(r"`fleet ([a-z][^`]*)`", re.sub(r"\s+", " ", page.read_text(encoding="utf-8")))
    }
)


def policy(text: str) -> None:
    assert fleets.problems(text) == ()


def hosts_policy(text: str) -> None:
    assert host.problems(text) == ()


def prometheus(text: str) -> None:
    read = yaml.safe_load(text)
    for job in read["scrape_configs"]:
        assert job["job_name"]
        for target in (target for group in job["static_configs"] for target in group["targets"]):
            assert re.fullmatch(r"[\w.-]+:\d+", target)
    assert all(isinstance(file, str) for file in read.get("rule_files", []))


def alerts(text: str) -> None:
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        # that each metric is served is seen by the test of the session `production`
        assert re.findall(r"\bfleet_\w+", rule["expr"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        for words in documents.fleet_lines("\n".join(rule["annotations"]["summary"].partition(": ")[2:])):
            assert not documents.unknown_word(words)


#: How a block of data is looked at, by what the comment above it calls it.
KINDS: dict[str, Callable[[str], None]] = {
    "policy": policy,
    "host's policy": hosts_policy,
    "Prometheus": prometheus,
    "alerts": alerts,
}


def sessions_of_tests() -> set[str]:
    """Return the names that tests give to `session(…)`."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py"))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 1)
    named = (call.args[0] for call in calls if ast.unparse(call.func).endswith("session"))
    return {str(name.value) for name in named if isinstance(name, ast.Constant)}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language != "text"], ids=str)
def test_a_block_is_run_or_checked_or_says_why_not(block: Block) -> None:
    assert block.session or block.kind or block.reason, f"{block}: say above it what becomes of it"
    if block.session:
        assert block.language in SHELLS | {"python"}, f"{block}: not a language that a reader runs"
    if block.reason:
        assert len(block.reason.split()) > 3, f"{block}: not a reason"


def test_every_session_has_a_test_and_every_test_its_session() -> None:
    assert {block.session for block in BLOCKS if block.session} == sessions_of_tests()


def test_there_is_something_to_look_at() -> None:
    assert len(BLOCKS) > 30
    assert len(LINES) > 60
    assert len(SENTENCES) > 60


@pytest.mark.parametrize("block", CHECKED, ids=str)
def test_data_on_a_page_is_what_it_is_said_to_be(block: Block) -> None:
    KINDS[str(block.kind)](block.text)


@pytest.mark.parametrize(("block", "words"), LINES, ids=[f"{block}-{' '.join(words)}" for block, words in LINES])
def test_commands_of_blocks_exist_also_of_those_that_are_not_run(block: Block, words: list[str]) -> None:
    assert not documents.unknown_word(words), f"{block}: fleet {' '.join(words)}"


@pytest.mark.parametrize(("page", "line"), SENTENCES, ids=[f"{page}-{line}" for page, line in SENTENCES])
def test_commands_in_sentences_exist(page: Path, line: str) -> None:
    for words in documents.fleet_lines(f"fleet {line}"):
        assert not documents.unknown_word(words), f"{page}: fleet {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_page_of_the_folder_stands_in_its_list() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"({page.name})" in listed or page.name == "README.md"
