"""Broker permissions: one table with the schema of `fleet.names`, and rules that grant what it says and no more."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors, names
from fleet.security import acl, table

HASH = "ab" * 32
_ROLES: dict[str, table.Role] = {
    "host X": "host",
    "hosts": "host",
    "principal P": "principal",
    "principals": "principal",
    "joining host": "joiner",
    "joining hosts": "joiner",
    "Flower": "flower",
    "control": "control",
}


def _rows(columns: int) -> list[list[str]]:
    """Return the rows of the table of that many columns in the docstring of `fleet.names`."""
    lines = [line for line in (names.__doc__ or "").splitlines() if line.startswith("| `")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if len(row) == columns]


def _roles(text: str) -> set[table.Role]:
    return {_ROLES[each.strip()] for each in text.split(",")}


def test_the_table_of_keys_is_the_schema_of_names() -> None:
    assert [row[:5] for row in _rows(6)] == [[k.name, k.type, k.writer, k.reader, k.ttl] for k in table.KEYS]


def test_the_table_of_channels_is_the_schema_of_names() -> None:
    assert [row[:3] for row in _rows(4)] == [[c.name, c.publisher, c.subscriber] for c in table.CHANNELS]


@pytest.mark.parametrize("key", table.KEYS, ids=lambda key: key.name)
@pytest.mark.parametrize("role", ["host", "principal", "joiner", "flower"])
def test_who_writes_or_reads_a_key_has_a_command_for_it_and_nobody_else_has(key: table.Key, role: table.Role) -> None:
    granted = set(key.may.get(role, "").split())
    if role == "host" and key.name.startswith("fleet:h:X:"):  # its own: it reads by moving and removing
        assert granted
    else:
        assert (role in _roles(key.reader)) == bool(granted & table.READING)
        assert (role in _roles(key.writer)) == bool(granted & table.WRITING - table.TAKING)


@pytest.mark.parametrize("key", table.KEYS, ids=lambda key: key.name)
def test_the_control_plane_reads_and_writes_what_the_schema_says(key: table.Key) -> None:
    granted = set(key.may.get("control", "").split())
    assert "control" not in _roles(key.reader) or granted & table.READING
    assert "control" not in _roles(key.writer) or granted & table.WRITING


def test_a_host_is_granted_this() -> None:
    assert acl.host("h1", [HASH]).line == (
        f"user h-h1 reset on #{HASH} ~fleet:h:h1:* +ping +time +multi +exec +unwatch +client|setname +client|setinfo "
        "+blmove +lmove +rpush +llen +lrem +lrange +lpush +rpop +watch +get +set +xadd +expire "
        "(+set +get +mget +del ~fleet:presence:h1) (+set %W~fleet:inventory:h1 %W~celery-task-meta-h1:*) "
        "(+lpush +llen %W~fleet:reports:h1) (+sadd %W~fleet:reports:dirty) (+get %R~fleet:trust %R~fleet:policy) "
        "(+publish resetchannels &celery-task-meta-h1:* &fleet:h:h1:out:* &/h-h1.celeryev/*)"
    )


def test_a_joiner_and_flower_are_granted_this() -> None:
    assert acl.joiner("0" * 16, [HASH]).line == (
        f"user join-{'0' * 16} reset on #{HASH} +time +client|setname +client|setinfo (+get %R~fleet:trust) "
        f"(+lpush %W~fleet:enroll:requests) (+brpop ~fleet:enroll:reply:{'0' * 16}:*)"
    )
    assert acl.flower([HASH]).line == (
        f"user flower reset on #{HASH} +ping +info +client|setname +client|setinfo "
        "(+llen %R~fleet:h:*:q) (+psubscribe +punsubscribe resetchannels &/h-*.celeryev/*)"
    )


def test_the_control_plane_is_granted_this() -> None:
    assert acl.control([HASH]).line == (
        f"user control reset on #{HASH} ~fleet:* +ping +time +multi +exec +unwatch +client|setname +client|setinfo "
        "+info +scan +pubsub|numsub +config|get +acl|setuser +acl|deluser +acl|users +acl|save "
        "+lpush +llen +lpos +lrange +lrem +watch +del +mget +exists +ltrim +spop +scard +hset +hdel +hkeys +set "
        "+brpop +expire +get +pexpire +hgetall (+set +get ~celery-task-meta-*:*) "
        "(+publish resetchannels &celery-task-meta-*:* &fleet:watch)"
    )


def test_the_api_is_a_principal_of_that_name() -> None:
    assert acl.api([HASH]).rules == acl.principal("api", [HASH]).rules
    assert acl.api([HASH]).name == "api"


def test_the_default_user_is_off_and_keeps_what_replaying_transactions_needs() -> None:
    assert acl.default().line == "user default reset ~* &* +@all off"


def test_several_passwords_are_granted_while_one_is_rotated() -> None:
    other = "cd" * 32
    assert acl.flower([HASH, other]).rules[2:4] == (f"#{HASH}", f"#{other}")


@pytest.mark.parametrize(
    "make", [lambda h: acl.host("h1", h), lambda h: acl.principal("ann", h), acl.control, acl.flower, acl.api]
)
def test_words_that_an_old_server_does_not_know_are_left_out_for_it(make: Callable[[list[str]], acl.User]) -> None:
    user = make([HASH])
    assert set(user.rules) - set(user.known_to("7.0.15").rules) == {"+client|setinfo"}
    assert user.known_to("7.2.4") == user
    assert user.known_to("10.0.0") == user


@pytest.mark.parametrize("password_hash", ["", "ab", "AB" * 32, f"{'ab' * 32} +@all", "ab" * 33])
def test_what_is_no_hash_is_refused(password_hash: str) -> None:
    with pytest.raises(errors.InvalidValue, match="64 of 0-9 and a-f"):
        acl.host("h1", [password_hash])


@pytest.mark.parametrize("token_id", ["", "*", "0" * 15, "0" * 17, "A" * 16, f"{'0' * 15}*", f"{'0' * 16}\n"])
def test_what_is_no_token_id_is_refused(token_id: str) -> None:
    with pytest.raises(errors.InvalidValue, match="16 of 0-9 and a-f"):
        acl.joiner(token_id, [HASH])


@pytest.mark.parametrize("name", ["*", "h?", "[a]", "a b", "a)", "", "x" * 64, "a\n", "../x"])
def test_no_name_brings_a_glob_or_a_word_of_its_own(name: str) -> None:
    for make in (acl.host, acl.principal):
        with pytest.raises(errors.InvalidValue):
            make(name, [HASH])


@given(st.from_regex(names.HOST_ID, fullmatch=True).filter(lambda name: name not in names.RESERVED))
def test_a_hosts_keys_are_what_names_builds_and_lie_in_its_rules(host: str) -> None:
    rules = " ".join(acl.host(host, [HASH]).rules)
    globs = [re.escape(glob).replace(r"\*", ".*") for glob in re.findall(r"[~&]([^ )]+)", rules)]
    for key in (
        names.queue(host),
        names.control(host),
        names.inbox(host, 7),
        names.dead(host),
        names.epoch(host),
        names.output(names.new_run_id(host)),
        names.presence(host),
        names.inventory(host),
        names.reports(names.host_sender(host)),
        names.result(names.new_run_id(host)),
        f"{names.fanout_prefix(host)}celeryev/worker.heartbeat",
    ):
        assert any(re.fullmatch(glob, key) for glob in globs), key
