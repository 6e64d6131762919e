"""No word of the rules can be left out: without it, the piece of work that needs it is denied something.

Each role's pieces of work are in host_work.py, principal_work.py, control_work.py and other_work.py, with the words
that they are for.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import tokens
from fleet.broker import login
from fleet.security import acl, table
from tests.hostile import control_work, host_work, other_work, principal_work
from tests.hostile.stage import HOST, SECRET, TOKEN, Needs, Work, stage
from tests.services.broker import Broker, emptied
from tests.services.locked import PRINCIPAL, admit, denials, hashes

ROLES: dict[acl.User, Needs] = {
    acl.host(HOST, hashes(f"h-{HOST}")): host_work.NEEDS,
    acl.principal(PRINCIPAL, hashes(f"p-{PRINCIPAL}")): principal_work.NEEDS,
    acl.joiner(TOKEN, [login.hashed(tokens.broker_password(SECRET))]): other_work.JOINER_NEEDS,
    acl.flower(hashes("flower")): other_work.FLOWER_NEEDS,
    acl.control(hashes("control")): control_work.NEEDS,
}
#: Words that grant nothing; what they are for is tested in tests/integration/test_broker_users.py.
NO_GRANTS = ("reset", "on", "resetchannels")


def _first(words: list[str]) -> str:
    return next(word.lstrip("%RW~") for word in words if word[0] in "%~&")


def parts(user: acl.User) -> dict[str, list[str]]:
    """Return the words of a user's rules by selector."""
    found: dict[str, list[str]] = {"": []}
    for rule in user.rules:
        if rule.startswith("("):
            words = rule.strip("()").split()
            found[_first(words)] = words
        else:
            found[""].append(rule)
    return {
        selector: [word for word in words if word not in NO_GRANTS and not word.startswith("#")]
        for selector, words in found.items()
    }


def without(user: acl.User, selector: str, word: str) -> acl.User:
    """Return the user with one word less."""
    rules = []
    for rule in user.rules:
        words = rule.strip("()").split()
        ours = selector == (_first(words) if rule.startswith("(") else "")
        left = [each for each in words if not (ours and each == word)]
        if left:
            rules.append(f"({' '.join(left)})" if rule.startswith("(") else left[0])
    assert len(" ".join(rules)) < len(" ".join(user.rules))
    return acl.User(user.name, tuple(rules))


def named(*values: object) -> str:
    return " ".join(
        value.name if isinstance(value, acl.User) else getattr(value, "__name__", str(value)) for value in values
    )


WORDS = [
    pytest.param(user, selector, word, id=named(user, selector, word))
    for user, needs in ROLES.items()
    for selector, works in needs.items()
    for word in works
]
WORKS = [
    pytest.param(user, work, id=named(user, work))
    for user, needs in ROLES.items()
    for work in dict.fromkeys(work for works in needs.values() for work in works.values())
]


@pytest.mark.parametrize("user", ROLES, ids=named)
def test_every_word_of_the_rules_has_a_piece_of_work_that_needs_it(user: acl.User) -> None:
    needed = {selector: set(works) for selector, works in ROLES[user].items()}
    assert needed == {selector: set(words) for selector, words in parts(user).items()}


@pytest.mark.parametrize(("user", "work"), WORKS)
def test_each_piece_of_work_is_denied_nothing(any_broker: Broker, tmp_path: Path, user: acl.User, work: Work) -> None:
    admit(any_broker, user)
    with stage(any_broker, user.name, tmp_path) as set_up:
        work(set_up)
    assert denials(any_broker) == []


@pytest.mark.parametrize(("user", "selector", "word"), WORDS)
def test_without_this_word_it_is_denied(
    any_broker: Broker, tmp_path: Path, user: acl.User, selector: str, word: str
) -> None:
    with stage(any_broker, user.name, tmp_path, patience=4) as set_up:
        version = set_up.admin.info("server")["redis_version"]
        if word not in user.known_to(version).rules and word in acl.NEWER_WORDS:
            pytest.skip(f"version {version} does not know {word}")
        admit(any_broker, without(user, selector, word))
        try:
            ROLES[user][selector][word](set_up)
        except BaseException as exc:  # noqa: BLE001 - how it fails is its own affair; that it was denied is what counts
            failure = repr(
                exc
            )  # the error itself would keep what it met, such as pipelines, until long after the stage
        else:
            failure = "it did not fail"
    denied = [each for each in denials(any_broker) if each["username"] == user.name and each["reason"] != "auth"]
    assert denied, failure


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """All commands that this process sends as `control` from now on."""
    heard: set[tuple[str, ...]] = set()

    send: Any = redis.Connection.send_command
    pack: Any = redis.Connection.pack_commands

    def hear(connection: Any, *commands: Any) -> None:
        if connection.username == "control":
            heard.update(tuple(map(str, words)) for words in commands)

    def send_command(self: Any, *words: Any, **options: Any) -> None:
        hear(self, words)
        send(self, *words, **options)

    def pack_commands(self: Any, commands: Any) -> Any:
        hear(self, *commands)
        return pack(self, commands)

    monkeypatch.setattr(redis.Connection, "send_command", send_command)
    monkeypatch.setattr(redis.Connection, "pack_commands", pack_commands)
    return heard


def _named_in(command: tuple[str, ...]) -> Iterator[str]:
    """Return the keys, or the channel, of a command, as the table calls them."""
    known = table.CHANNELS if command[0] == "PUBLISH" else table.KEYS
    ids = {"X": "h[12]", "P": PRINCIPAL, "T": "[0-9a-f]+", "R": "[0-9a-f-]+"}
    forms = {each.name: re.sub(r"<\w+>", "[0-9a-f-]+", each.name) for each in known}
    for name, form in forms.items():
        pattern = re.compile(re.sub(r"\b[XPTR]\b", lambda letter: ids[letter[0]], form))
        if any(pattern.fullmatch(word) for word in command[1:]):
            yield name


def test_the_table_has_of_each_key_what_the_control_plane_does_with_it(
    broker: Broker, tmp_path: Path, said: set[tuple[str, ...]]
) -> None:
    """Its rules have the commands on all its keys together, where one that no key needs hides behind another's."""
    needed = (work for works in control_work.NEEDS.values() for work in works.values())
    for work in dict.fromkeys((*needed, *control_work.MORE_WORKS)):
        admit(emptied(broker), acl.control(hashes("control")))
        directory = tmp_path / named(work)
        directory.mkdir()
        with stage(broker, "control", directory) as set_up:
            work(set_up)
    done = {(name, command[0].lower()) for command in said for name in _named_in(command)}
    written = {
        (row.name, command) for row in (*table.KEYS, *table.CHANNELS) for command in row.may.get("control", "").split()
    }
    assert done == written
