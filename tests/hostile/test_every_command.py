"""Every command that the server knows, on everything that is somebody else's: what is not denied stands here, and why.

The server itself lists its commands, so that one which a later version brings is tried, too.
"""

from typing import Any

import pytest
import redis

from fleet import names
from tests.hostile import prey
from tests.hostile.stage import TOKEN
from tests.services import locked
from tests.services.broker import Broker

#: Without them there is no session; `test_attacks` tries them by hand.
EVERYBODYS = {"auth", "hello", "quit", "reset"}
_RESULT = names.result(f"h2:{prey.RUN}")
_OUTPUT = names.output(f"h2:{prey.RUN}")
#: What is somebody else's, or the control plane's, or everybody's.
KEYS = (
    names.queue("h2"),
    names.control("h2"),
    names.inbox("h2", 1),
    names.dead("h2"),
    names.epoch("h2"),
    _OUTPUT,
    names.presence("h2"),
    names.inventory("h2"),
    names.reports("h2"),
    names.reports("p:bob"),
    names.REPORTS_DIRTY,
    names.HOSTS,
    names.PRINCIPALS,
    names.TRUST,
    names.POLICY,
    names.ENROLL_REQUESTS,
    names.enroll_reply(prey.OTHER_TOKEN, "request"),
    names.CONTROL_LEASE,
    names.WITHDRAWN,
    _RESULT,
    names.queue("h10"),
    names.presence("h1-x"),
    "elsewhere",
    "fleet:h:h1",
)
#: Commands that name their keys after a word; in any other form they are refused before the rules are asked.
FORMS = {"xread": ("STREAMS", "{key}", "0-0")}
#: By user: the commands without a key, and those on a key that is not its own.
ALLOWED: dict[str, tuple[set[str], set[tuple[str, str]]]] = {
    "h-h1": (
        {"ping", "time", "multi", "exec", "unwatch", "client|setname", "client|setinfo"},
        {("sadd", names.REPORTS_DIRTY), ("get", names.TRUST), ("get", names.POLICY)},
    ),
    "p-alice": (
        {"ping", "time", "multi", "exec", "client|setname", "client|setinfo", "unsubscribe"},
        {
            *((command, names.queue(host)) for command in ("lpush", "llen") for host in ("h2", "h10")),
            ("lpush", names.control("h2")),
            *(("exists", names.presence(host)) for host in ("h2", "h1-x")),
            ("mget", names.inventory("h2")),
            ("sadd", names.REPORTS_DIRTY),
            *((command, names.HOSTS) for command in ("hget", "hgetall", "hkeys")),
            ("hget", names.PRINCIPALS),
            ("get", names.TRUST),
            ("get", names.POLICY),
            *((command, _RESULT) for command in ("get", "mget", "subscribe")),
            *((command, _OUTPUT) for command in ("xread", "subscribe")),
        },
    ),
    f"join-{TOKEN}": (
        {"time", "client|setname", "client|setinfo"},
        {("get", names.TRUST), ("lpush", names.ENROLL_REQUESTS)},
    ),
    "flower": (
        {"ping", "info", "client|setname", "client|setinfo", "punsubscribe"},
        {("llen", names.queue("h2")), ("llen", names.queue("h10"))},
    ),
}


@pytest.fixture
def hunted(any_broker: Broker) -> Broker:
    prey.prepare(any_broker)
    return any_broker


def every_command(admin: "redis.Redis") -> dict[str, int]:
    """Return every command and subcommand, such as `client|kill`, with how many words it takes at least after that."""
    execute: Any = admin.execute_command
    known: dict[str, int] = {}
    for name, info in execute("COMMAND").items():
        parts = [(sub[0], sub[1]) for sub in info["subcommands"]]
        known.update((each, abs(arity) - 1 - each.count("|")) for each, arity in parts or [(name, info["arity"])])
    return known


def words(command: str, key: str, count: int) -> list[str]:
    """Return what is said after a command that takes so many words: this key, again and again."""
    return [word.format(key=key) for word in FORMS[command]] if command in FORMS else [key] * count


def answers(client: "redis.Redis", key: str, wanted: dict[str, int]) -> dict[str, Any]:
    """Return what each command answers when its words are this key; None for those that turn a connection round."""
    sent = {command: count for command, count in wanted.items() if not command.endswith("subscribe")}
    with client.pipeline(transaction=False) as pipe:
        for command, count in sent.items():
            pipe.execute_command(*command.split("|"), *words(command, key, count))
        return {**dict.fromkeys(wanted), **dict(zip(sent, pipe.execute(raise_on_error=False), strict=True))}


@pytest.mark.parametrize("user", ALLOWED)
def test_only_these_commands_are_allowed_on_what_is_not_its_own(hunted: Broker, user: str) -> None:
    without_a_key, with_a_key = ALLOWED[user]
    with hunted.connect() as admin:
        known, before = every_command(admin), prey.digest(admin)
        assert len(known) > 300
        assert known.keys() >= (without_a_key | {command for command, _ in with_a_key}) - {"client|setinfo"}
        left = {command: words for command, words in known.items() if command not in without_a_key | EVERYBODYS}
        allowed = set()
        for key in KEYS:
            client = locked.client(hunted, user)
            for command, answer in answers(client, key, left).items():
                if isinstance(answer, redis.exceptions.NoPermissionError):
                    continue
                # Not tried, or refused for another reason before the rules are asked (DEBUG, EXEC without MULTI).
                said = admin.acl_dryrun(user, *command.split("|"), *words(command, key, left[command]))
                if "no permissions" not in str(said):
                    allowed.add((command, key))
            client.connection_pool.disconnect()
        assert allowed == with_a_key
        after = prey.digest(admin)
    changed = {key.decode() for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed <= {key for _, key in with_a_key}
