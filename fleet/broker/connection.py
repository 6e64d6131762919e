"""Connections to the broker: every time-out set, every certificate checked, every error translated.

A bare redis-py client waits for minutes on a silent network and raises its own errors. All of Fleet's own clients
(heartbeats, reports, enrollment, CLI) are made here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet import errors
from fleet.address import Address
from fleet.broker import tls

#: The oldest broker whose ACL selectors and BLMOVE Fleet relies on.
OLDEST_VERSION = (7, 0)
#: Long enough for a busy link, short enough that nobody waits on a dead one.
DEFAULT_TIMEOUT = timedelta(seconds=5)


def connect(
    address: Address,
    *,
    name: str,
    timeout: timedelta = DEFAULT_TIMEOUT,
    connections: int = 1,
    retries: int = 0,
    login: "redis.CredentialProvider | None" = None,
    decodes: bool = True,
) -> "redis.Redis":
    """Return a client of `connections` sockets at most; callers in several threads take turns.

    Nothing is sent yet. `login`, where it is given, is asked for user and password at each new connection instead of
    the address: they may change. `timeout` bounds connecting and every answer, so a blocking command must ask for less.
    Without `decodes` answers are bytes, for whoever reads what others may have written in any form.
    """
    make: Any = redis.BlockingConnectionPool  # untyped
    pool = make(
        connection_class=tls.connection_class(address),
        host=address.host,
        port=address.port,
        **({"username": address.username, "password": address.password} if login is None else {}),
        credential_provider=login,
        **tls.options(address),
        max_connections=connections,
        timeout=timeout.total_seconds(),
        socket_timeout=timeout.total_seconds(),
        socket_connect_timeout=timeout.total_seconds(),
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(NoBackoff(), retries),
        decode_responses=decodes,
        client_name=f"fleet-{name}",
    )
    return redis.Redis.from_pool(pool)  # whose `close` closes the sockets, too


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn redis-py's errors into Fleet's, naming the broker without its password."""
    try:
        yield
    except redis.exceptions.AuthenticationError as exc:
        raise _unknown(address, exc) from exc
    except redis.exceptions.NoPermissionError as exc:
        raise errors.BrokerRefused(
            f"the broker at {address} does not let us do that ({exc})", remedy="check the broker user's permissions"
        ) from exc
    except (redis.ConnectionError, redis.TimeoutError) as exc:
        raise unreachable(address, exc) from exc
    except redis.InvalidResponse as exc:
        raise errors.BrokerRefused(
            f"what answers at {address} does not speak Redis's protocol ({exc})",
            remedy="is it another program's port, or the broker's TLS port? for that write rediss://…",
        ) from exc
    except redis.ResponseError as exc:
        if "NOAUTH" in str(exc) or "WRONGPASS" in str(exc):
            raise errors.BrokerRefused(
                f"the broker at {address} wants a password", remedy=f"write it as {_form(address)}"
            ) from exc
        raise errors.BrokerUnavailable(
            f"the broker at {address} answered: {exc}", remedy="`fleet doctor` checks its settings"
        ) from exc


def unreachable(address: Address, exc: Exception) -> errors.BrokerUnavailable:
    """Return what to raise for an error of a connection, whichever library wrapped it."""
    found = tls.refusal(exc)
    if isinstance(found, tls.Untrusted):
        return errors.BrokerUntrusted(f"the broker at {address} is not trusted: {found.problem}", remedy=found.remedy)
    return errors.BrokerUnavailable(
        f"the broker at {address} cannot be reached ({found.problem if found else exc})",
        remedy=found.remedy if found else "is it running? `fleet up` starts one; FLEET_BROKER_URL says where it is",
    )


def _unknown(address: Address, exc: Exception) -> errors.BrokerRefused:
    """Return what to raise where the broker does not take user and password; it never says which of the two."""
    user = address.username or ""
    if user.startswith("p-"):
        remedy = f"was principal {user[2:]!r} revoked, or its file replaced? `fleet principal list` says, where the "
        remedy += "control plane runs; a broker that has just started anew knows it again within seconds"
    elif user.startswith("h-"):
        remedy = (
            f"was host {user[2:]!r} put out of the fleet, or enrolled anew elsewhere? `fleet host list` says, where "
        )
        remedy += "the control plane runs; a broker that has just started anew knows it again within seconds"
    else:
        remedy = f"put the right one into FLEET_BROKER_URL: {_form(address)}"
        return errors.BrokerRefused(f"the broker at {address} wants another password ({exc})", remedy=remedy)
    return errors.BrokerRefused(f"the broker at {address} does not let {user!r} in ({exc})", remedy=remedy)


def _form(address: Address) -> str:
    return f"{'rediss' if address.tls else 'redis'}://:PASSWORD@HOST:PORT/0"


def check(client: "redis.Redis", address: Address) -> str:
    """Reach the broker and return its version, such as "9.1.0".

    Raises `errors.BrokerUnavailable`, `errors.BrokerRefused` (password, or older than 7.0), `errors.BrokerUntrusted`.
    """
    with translated(address):
        info: dict[str, Any] = client.info("server")
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        raise errors.BrokerRefused(
            f"the broker at {address} is version {version}",
            remedy="Fleet needs Redis or Valkey 7.0 or newer",
        )
    return version


def check_durability(client: "redis.Redis", address: Address) -> list[str]:
    """Return what makes this broker lose tasks, a sentence each; empty for one that keeps what it is given.

    INFO says all of it, so it also works on a broker where CONFIG is not allowed.
    """
    with translated(address):
        info: dict[str, Any] = client.info()
    problems = []
    if not info.get("aof_enabled"):
        problems.append("appendonly is off: a restart forgets queues (set `appendonly yes`)")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(f"maxmemory-policy is {policy}: a full broker drops queues (set `maxmemory-policy noeviction`)")
    return problems
