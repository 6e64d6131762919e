"""With the credentials of one part, everything that is not its own is denied, and nothing changes."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from fleet.broker.connection import connect
from tests.hostile import attacks, prey
from tests.hostile.stage import TOKEN
from tests.services import locked
from tests.services.broker import ADMIN, Broker

LISTS = {
    "h-h1": attacks.ONLY_A_HOST,
    "p-alice": attacks.ONLY_A_PRINCIPAL,
    f"join-{TOKEN}": attacks.ONLY_A_JOINER,
    "flower": attacks.ONLY_FLOWER,
}


def _filled(text: str, user: str) -> str:
    return text.strip().format(user=user, run=prey.RUN, token=TOKEN, other=prey.OTHER_TOKEN)


def _commands(text: str, user: str) -> list[str]:
    return [_filled(each, user) for each in re.split(r";\s", text)]


ATTACKS = [(user, each) for user, own in LISTS.items() for each in _commands(attacks.EVERYBODY + ";" + own, user)]
HARMLESS = [(_filled(user, ""), _filled(each, user)) for user, each_of in attacks.HARMLESS.items() for each in each_of]


@pytest.fixture
def hunted(any_broker: Broker) -> Broker:
    prey.prepare(any_broker)
    return any_broker


@pytest.fixture
def admin(hunted: Broker) -> Iterator["redis.Redis"]:
    with hunted.connect() as opened:
        yield opened


def attack(broker: Broker, user: str, *words: str) -> Any:
    """Run one command with somebody's credentials on a connection of its own."""
    client = connect(locked.address(broker, user), name="attack")
    try:
        return client.execute_command(*words)
    finally:
        client.connection_pool.disconnect()


@pytest.mark.parametrize("user", LISTS)
def test_every_attack_is_denied_and_changes_nothing(hunted: Broker, admin: "redis.Redis", user: str) -> None:
    before, users = prey.digest(admin), admin.acl_list()
    not_denied = {}
    for each in [command for attacker, command in ATTACKS if attacker == user]:
        try:
            not_denied[each] = attack(hunted, user, *shlex.split(each))
        except redis.exceptions.NoPermissionError:
            continue
        except redis.RedisError as exc:  # DEBUG and MODULE LOAD are refused to everybody, before the rules are asked
            if "no permissions" not in str(admin.acl_dryrun(user, *shlex.split(each))):
                not_denied[each] = exc
    assert not_denied == {}
    assert prey.digest(admin) == before
    assert admin.acl_list() == users
    assert admin.ping()


@pytest.mark.parametrize(("user", "command"), HARMLESS)
def test_what_is_allowed_beyond_its_work_changes_nothing_of_others(
    hunted: Broker, admin: "redis.Redis", user: str, command: str
) -> None:
    before = prey.digest(admin)
    attack(hunted, user, *shlex.split(command))
    after = prey.digest(admin)
    changed = {key.decode() for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed <= set(shlex.split(command)[1:2]), "nothing but the key that it names"


@pytest.mark.parametrize("user", LISTS)
def test_no_transaction_smuggles_anything_in(hunted: Broker, admin: "redis.Redis", user: str) -> None:
    before = prey.digest(admin)
    client = connect(locked.address(hunted, user), name="attack")
    pipe = client.pipeline(transaction=True)
    pipe.set("elsewhere", "forged")
    with pytest.raises(redis.exceptions.NoPermissionError):
        pipe.execute()
    client.connection_pool.disconnect()
    assert prey.digest(admin) == before


@pytest.mark.parametrize("user", LISTS)
@pytest.mark.parametrize("password", ["", "guess", "default", locked.password("h-h2")])
def test_nobody_becomes_anybody_else_without_a_password(hunted: Broker, user: str, password: str) -> None:
    """AUTH, HELLO, RESET and QUIT are everybody's; they lead nowhere."""
    for other in ("default", "control", ADMIN, "h-h10", "nobody"):
        for command in (("AUTH", other, password), ("HELLO", "3", "AUTH", other, password)):
            with pytest.raises(redis.RedisError, match=r"WRONGPASS|invalid username-password"):
                attack(hunted, user, *command)
    client = connect(locked.address(hunted, user), name="attack")
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_command("RESET")
        connection.read_response()
        connection.send_command("GET", "elsewhere")
        with pytest.raises(redis.AuthenticationError):  # NOAUTH: the default user is off
            connection.read_response()
    finally:
        connection.disconnect()


def test_nobody_comes_in_without_a_name(hunted: Broker) -> None:
    client = connect(hunted.address, name="attack")
    try:
        with pytest.raises(redis.AuthenticationError):
            client.ping()
    finally:
        client.connection_pool.disconnect()
