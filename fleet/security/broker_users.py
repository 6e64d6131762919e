"""Broker users: brings the users of `fleet.security.acl` into a broker, and takes them out again.

The database says who there is; the broker only holds a copy, which it forgets when it starts without an ACL file.
Deleting a user ends its sessions, also one that is waiting in a blocking command; changing its password, or switching
it off, ends none. All functions raise `errors.BrokerUnavailable` and `errors.BrokerRefused`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from fleet import errors
from fleet.address import Address
from fleet.broker.connection import translated
from fleet.security import acl

#: Only users that are called so are ever deleted by `reconcile`.
PREFIXES = (acl.HOST_PREFIX, acl.PRINCIPAL_PREFIX, acl.JOINER_PREFIX)
#: Users that are sent at once; the broker does nothing else meanwhile.
_PART = 200


@dataclass(frozen=True)
class Changes:
    """What `reconcile` found missing and made, and found without a reason and deleted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def apply(client: "redis.Redis", users: Iterable[acl.User]) -> None:
    """Make these users, or give them these rules and passwords instead of what they had; sessions go on."""
    info = _server(client)
    with _translated(client):
        for part in _parts(users):
            with client.pipeline(transaction=False) as pipe:
                execute: Any = pipe.execute_command
                for user in part:
                    execute("ACL SETUSER", user.name, *user.known_to(info["redis_version"]).rules)
                pipe.execute()


def remove(client: "redis.Redis", names: Iterable[str]) -> int:
    """Delete these users and end their sessions; return how many there were."""
    removed, execute = 0, _execute(client)
    with _translated(client):
        for part in _parts(names):
            removed += int(execute("ACL DELUSER", *part))
    return removed


def cut(client: "redis.Redis", user: str) -> bool:
    """Delete a user and end its sessions; return whether there was one.

    When this returns, none of its sessions gets anything more, nor does a command that it waits in.
    """
    return bool(remove(client, [user]))


def present(client: "redis.Redis") -> frozenset[str]:
    """Return the users of hosts, principals and joiners that are there."""
    with _translated(client):
        return frozenset(name for name in _execute(client)("ACL USERS") if name.startswith(PREFIXES))


def reconcile(
    client: "redis.Redis", wanted: Mapping[str, acl.User], *, known: Collection[str] | None = None
) -> Changes:
    """Leave exactly these hosts', principals' and joiners' users in the broker, with these rules.

    `wanted` is by user name. Other users (`control`, `flower`, `api`, `default`, an admin's) are not touched. `known`
    is what `present` returned before `wanted` was read from the database: whoever somebody else lets in between the
    two is in neither, and stays. Raises `errors.InvalidValue` for a wanted user that is none of those, before anything
    is changed.
    """
    for name in wanted:
        if not name.startswith(PREFIXES):
            raise errors.InvalidValue(
                field="broker user",
                value=name,
                problem="is no host's, principal's or joiner's",
                remedy=f"their names begin with {', '.join(PREFIXES)}",
            )
    there = present(client)
    gone = sorted((there if known is None else there.intersection(known)) - wanted.keys())
    remove(client, gone)  # first, because whoever is not to be there is a risk, and whoever is missing only waits
    apply(client, wanted.values())
    return Changes(added=tuple(sorted(wanted.keys() - there)), removed=tuple(gone))


def run_id(client: "redis.Redis") -> str:
    """Return what identifies this start of the broker: with another one, its users may be gone."""
    return str(_server(client)["run_id"])


def save(client: "redis.Redis") -> bool:
    """Have the broker write its users into its ACL file; return whether it has one.

    Redis 7.0 takes 0.6 ms for each user that is new or that it has not written since its start, and does nothing else
    meanwhile: 6 s for 10,000. A client whose time-out is shorter gets `errors.BrokerUnavailable`, and the file is
    written all the same. Valkey takes 0.3 s (`python -m tests.bench.acl`).
    """
    with _translated(client):
        configured: Any = client.config_get("aclfile")
        if not configured.get("aclfile"):
            return False
        client.acl_save()
    return True


def _execute(client: "redis.Redis") -> Any:
    return client.execute_command


def _server(client: "redis.Redis") -> Any:
    with _translated(client):
        return client.info("server")


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while part := list(islice(remaining, _PART)):
        yield part


@contextmanager
def _translated(client: "redis.Redis") -> Iterator[None]:
    target: Mapping[str, Any] = client.connection_pool.connection_kwargs
    where = Address(
        host=str(target["host"]),
        port=int(target["port"]),
        username=None,
        password=None,
        tls=issubclass(client.connection_pool.connection_class, redis.SSLConnection),
        ca=None,
    )
    with translated(where):
        yield
