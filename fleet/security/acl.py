"""Broker permissions: what each part of Fleet may do on the broker, and the ACL rules that say so.

The rules are made of `fleet.security.table` and of nothing else; nothing here talks to a broker. tests/hostile proves
both sides: a normal run is denied nothing, and no word can be left out.

- A host owns all keys below `fleet:h:X:` and the control plane all below `fleet:`, one glob each: their commands move
  items between keys, which one selector must allow together. Elsewhere a selector names one key and its commands.
- `%R~` and `%W~` say whether a key is only read or only written: `SET … GET` on a write-only key is denied.
- `resetchannels` stands where channels are granted, because `acl-pubsub-default allchannels` would add all of them.
- The rules are for Redis 7.0 and newer, and Valkey. A word that an old server does not know makes it refuse the whole
  user, and its start if it stands in a file: `User.known_to` leaves such words out by the version that the server
  itself tells, and `broker_users.apply` does so without being asked.

An ACL binds a part that was taken over. It does not bind `control`: who may set up users may set up any.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from fleet import errors, names
from fleet.security.table import CHANNELS, KEYS, READING, SESSION, WRITING, Role

#: How the users of a kind are called; `control`, `flower`, `api` and `default` are single ones.
HOST_PREFIX, PRINCIPAL_PREFIX, JOINER_PREFIX = "h-", "p-", "join-"

#: Words that not every server knows, with the `redis_version` that does; Valkey tells one, too (7.2.4).
NEWER_WORDS: Mapping[str, tuple[int, int]] = {"+client|setinfo": (7, 2)}

_TOKEN_ID = re.compile(r"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class User:
    """One ACL user: its name, and the words of its rules in order, a selector being one word."""

    name: str
    rules: tuple[str, ...]

    @property
    def line(self) -> str:
        """The user as a line of an ACL file."""
        return " ".join(("user", self.name, *self.rules))

    def known_to(self, redis_version: str) -> "User":
        """Return the user without the words that a server of this `redis_version` (INFO) does not know."""
        has = tuple(int(part) for part in redis_version.split(".")[:2])
        unknown = {word for word, since in NEWER_WORDS.items() if has < since}
        return replace(self, rules=tuple(word for word in self.rules if word not in unknown))


def host(host_id: str, password_hashes: Sequence[str]) -> User:
    """Return the user of a host; hashes are SHA-256 in hex. Raises `errors.InvalidValue`, as all of these do."""
    known = names.host_id(host_id)
    return _user(HOST_PREFIX + known, password_hashes, "host", own=f"fleet:h:{known}:*", ids={"X": known})


def principal(name: str, password_hashes: Sequence[str]) -> User:
    """Return the user of a principal: pushes to every host, reads results and the registry."""
    known = names.principal(name)
    return _user(PRINCIPAL_PREFIX + known, password_hashes, "principal", ids={"P": known})


def api(password_hashes: Sequence[str]) -> User:
    """Return the user of the API process, which is a principal of that name."""
    return _user("api", password_hashes, "principal", ids={"P": "api"})


def joiner(token_id: str, password_hashes: Sequence[str]) -> User:
    """Return the user of whoever holds an enrollment token: asks to be let in, reads its own answers."""
    if not _TOKEN_ID.fullmatch(token_id):
        raise errors.InvalidValue(
            field="token id", value=token_id, problem="is not a token's id", remedy="it has 16 of 0-9 and a-f"
        )
    return _user(JOINER_PREFIX + token_id, password_hashes, "joiner", ids={"T": token_id})


def control(password_hashes: Sequence[str]) -> User:
    """Return the user of the control plane: control workers, and the CLI where it has their settings.

    Pushing is a principal's, also where it is done on the control plane's machine.
    """
    return _user("control", password_hashes, "control", own="fleet:*")


def flower(password_hashes: Sequence[str]) -> User:
    """Return the user of Flower: hears the events of all hosts and sees how long queues are."""
    return _user("flower", password_hashes, "flower")


def default() -> User:
    """Return the built-in user, switched off: nobody gets in without a name.

    It keeps its permissions: without them Redis 7.0 drops every transaction when it reads its append-only file back.
    """
    return User("default", ("reset", "~*", "&*", "+@all", "off"))


def _user(
    name: str,
    password_hashes: Sequence[str],
    role: Role,
    *,
    own: str = "",
    ids: Mapping[str, str] = MappingProxyType({}),
) -> User:
    for each in password_hashes:
        if not _HASH.fullmatch(each):
            raise errors.InvalidValue(
                field="password hash", value=each, problem="is not a SHA-256", remedy="give it as 64 of 0-9 and a-f"
            )
    owned, selectors = _on_keys(role, own, ids)
    root = _commands((SESSION[role], *owned))
    return User(
        name,
        (
            "reset",
            "on",
            *(f"#{each}" for each in password_hashes),
            *((f"~{own}",) if own else ()),
            *root,
            *selectors,
            *_on_channels(role, ids),
        ),
    )


def _on_keys(role: Role, own: str, ids: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the commands on the keys of the role's own area, and selectors for all others."""
    owned: list[str] = []
    patterns: dict[tuple[str, ...], list[str]] = {}
    for key in KEYS:
        commands = _commands((key.may.get(role, ""),))
        pattern = _glob(key.name, ids)
        if own and pattern.startswith(own.removesuffix("*")):
            owned += (command.removeprefix("+") for command in commands)
        elif commands:
            patterns.setdefault((_access(commands), *commands), []).append(pattern)
    selectors = [
        f"({' '.join((*commands, *(access + each for each in found)))})"
        for (access, *commands), found in patterns.items()
    ]
    return owned, selectors


def _on_channels(role: Role, ids: Mapping[str, str]) -> Iterator[str]:
    patterns: dict[tuple[str, ...], list[str]] = {}
    for channel in CHANNELS:
        if commands := _commands((channel.may.get(role, ""),)):
            patterns.setdefault(commands, []).append("&" + _glob(channel.name, ids))
    for commands, found in patterns.items():
        yield f"({' '.join((*commands, 'resetchannels', *found))})"


def _commands(texts: Iterable[str]) -> tuple[str, ...]:
    """Return `+command` for each, in order, once."""
    return tuple(dict.fromkeys(f"+{command}" for text in texts for command in text.split()))


def _access(commands: Iterable[str]) -> str:
    bare = {command.removeprefix("+") for command in commands}
    if bare & READING and bare & WRITING:
        return "~"
    return "%W~" if bare & WRITING else "%R~"


def _glob(name: str, ids: Mapping[str, str]) -> str:
    """Return a key or channel of the schema as a glob: its letters become the ids that are given, the rest `*`."""
    opened = re.sub(r"<\w+>|…", "*", name)
    return re.sub(r"\b[XPTR]\b", lambda letter: ids.get(letter[0], "*"), opened)
