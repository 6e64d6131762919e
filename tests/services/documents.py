"""The documentation as tests read it: every fenced block of every Markdown file, and what is said to become of it.

A comment right above a block, which no reader of the page sees, says it:

    <!-- run: NAME -->                  its commands are run, in the order of the page, by the test of that session
    <!-- run: NAME, until "TEXT" -->    the same; its last one goes on beside those that follow, once it has said TEXT
    <!-- checked: KIND -->              it is data, and read as what it is
    <!-- not run: REASON -->            nothing here can run it, and why

A block in the language `text` (a drawing, an answer) needs none. One without a language is for a shell.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from fleet.cli.main import root

ROOT = Path(__file__).parents[2]
SHELLS = frozenset({"", "sh", "bash", "console", "shell"})
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (?P<word>run|checked|not run): (?P<rest>.+) -->")
_RUN = re.compile(r'(?P<session>[\w-]+)(?:, until "(?P<until>[^"]+)")?')


@dataclass(frozen=True)
class Block:
    """One fenced block; of `session`, `kind` and `reason` one is set, or none where nobody has said anything."""

    page: Path
    line: int
    language: str
    text: str
    session: str | None = None
    until: str | None = None
    kind: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell's block, each as it is written, with the comment behind it."""
        found: list[str] = []
        pending = ""
        for line in self.text.splitlines():
            pending += f"{line}\n"
            if _is_whole(pending):
                if (command := pending.strip()) and not command.startswith("#"):
                    found.append(command)
                pending = ""
        assert not pending, f"{self}: no whole command: {pending}"
        return found


def pages() -> list[Path]:
    """Return all Markdown files that a clone has."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def blocks(page: Path) -> Iterator[Block]:
    """Give the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n").rpartition("\n")[2].strip()
        yield Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            **_said(above),
        )


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


def session(name: str) -> list[Block]:
    """Return the blocks of a session; a test that calls this with a name in quotes is the one that runs it."""
    found = [block for block in all_blocks() if block.session == name]
    assert found, f"no block is marked `run: {name}`"
    return found


def unknown_word(words: list[str]) -> str:
    """Return the first word of a `fleet …` line that is no command or option there, or an empty string."""
    found: click.Command = root
    rest = list(words)
    while isinstance(found, click.Group):
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        if not rest or rest[0].startswith("-"):
            if not rest or rest[0] in known:
                return ""
            return rest[0]
        below = found.get_command(click.Context(found), rest[0])
        if below is None:
            return "" if found.invoke_without_command and found is not root else rest[0]
        found, rest = below, rest[1:]
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help"} | {option for parameter in root.params for option in parameter.opts}
    of_fleet = rest[: rest.index("--")] if "--" in rest else rest
    return next((word for word in of_fleet if word.startswith("--") and word.partition("=")[0] not in known), "")


def fleet_lines(text: str) -> Iterator[list[str]]:
    """Give the words of every `fleet …` in a shell's command, those of `$(fleet …)` by themselves."""
    joined = text.replace("\\\n", " ")
    while inner := re.search(r"\$\(([^()]*)\)", joined):
        yield from fleet_lines(inner[1])
        joined = joined.replace(inner[0], "INNER")
    for line in re.findall(r"(?:^|[|;&]\s*|\w=\S+ )(fleet [^|;&\n]*)", joined, re.MULTILINE):
        yield shlex.split(re.split(r"\s(?:#|[0-9]?[<>])", line)[0])[1:]


def _said(comment: str) -> dict[str, str | None]:
    match = _COMMENT.fullmatch(comment)
    if match is None:
        return {}
    if match["word"] == "checked":
        return {"kind": match["rest"]}
    if match["word"] == "not run":
        return {"reason": match["rest"]}
    run = _RUN.fullmatch(match["rest"])
    assert run, f'write `run: NAME` or `run: NAME, until "TEXT"`: {comment}'
    return {"session": run["session"], "until": run["until"]}


def _is_whole(text: str) -> bool:
    if text.endswith("\\\n"):
        return False
    read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    return not (read.returncode or read.stderr)
