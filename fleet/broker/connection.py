"""Connections to the broker: every time-out set, every error translated.

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

from fleet import errors, redaction

#: The oldest broker whose ACL selectors and BLMOVE Fleet relies on.
OLDEST_VERSION = (7, 0)
#: Long enough for a busy link, short enough that nobody waits on a dead one.
DEFAULT_TIMEOUT = timedelta(seconds=5)


def connect(
    url: str, *, name: str, timeout: timedelta = DEFAULT_TIMEOUT, connections: int = 1, retries: int = 0
) -> "redis.Redis":
    """Return a client of `connections` sockets at most; callers in several threads take turns.

    Nothing is sent yet. `timeout` bounds connecting and every answer, so a blocking command must ask for less.
    Raises `errors.SettingsInvalid` for a URL that cannot be parsed.
    """
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout.total_seconds(),
            socket_timeout=timeout.total_seconds(),
            socket_connect_timeout=timeout.total_seconds(),
            socket_keepalive=True,
            health_check_interval=10,
            retry=Retry(NoBackoff(), retries),
            decode_responses=True,
            client_name=f"fleet-{name}",
        )
    except ValueError as exc:
        raise errors.SettingsInvalid(
            f"broker URL {redaction.url(url)!r}: {exc}", remedy="write redis://:PASSWORD@HOST:PORT/0"
        ) from exc
    return redis.Redis(connection_pool=pool)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn redis-py's errors into Fleet's, naming the broker without its password."""
    where = redaction.url(url)
    try:
        yield
    except redis.exceptions.AuthenticationError as exc:
        raise errors.BrokerRefused(
            f"the broker at {where} wants another password ({exc})",
            remedy="put the right one into FLEET_BROKER_URL: redis://:PASSWORD@HOST:PORT/0",
        ) from exc
    except redis.exceptions.NoPermissionError as exc:
        raise errors.BrokerRefused(
            f"the broker at {where} does not let us do that ({exc})", remedy="check the broker user's permissions"
        ) from exc
    except (redis.ConnectionError, redis.TimeoutError) as exc:
        raise errors.BrokerUnavailable(
            f"the broker at {where} cannot be reached ({exc})",
            remedy="is it running? `fleet up` starts one; FLEET_BROKER_URL says where it is",
        ) from exc
    except redis.ResponseError as exc:
        if "NOAUTH" in str(exc) or "WRONGPASS" in str(exc):
            raise errors.BrokerRefused(
                f"the broker at {where} wants a password", remedy="write it as redis://:PASSWORD@HOST:PORT/0"
            ) from exc
        raise errors.BrokerUnavailable(
            f"the broker at {where} answered: {exc}", remedy="`fleet doctor` checks its settings"
        ) from exc


def check(client: "redis.Redis", url: str) -> str:
    """Reach the broker and return its version, such as "9.1.0".

    Raises `errors.BrokerUnavailable`, `errors.BrokerRefused` (password, or older than 7.0).
    """
    with translated(url):
        info: dict[str, Any] = client.info("server")
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        raise errors.BrokerRefused(
            f"the broker at {redaction.url(url)} is version {version}",
            remedy="Fleet needs Redis or Valkey 7.0 or newer",
        )
    return version


def check_durability(client: "redis.Redis", url: str) -> list[str]:
    """Return what makes this broker lose tasks, a sentence each; empty for one that keeps what it is given.

    INFO says all of it, so it also works on a broker where CONFIG is not allowed.
    """
    with translated(url):
        info: dict[str, Any] = client.info()
    problems = []
    if not info.get("aof_enabled"):
        problems.append("appendonly is off: a restart forgets queues (set `appendonly yes`)")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(f"maxmemory-policy is {policy}: a full broker drops queues (set `maxmemory-policy noeviction`)")
    return problems
