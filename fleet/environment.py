"""The environment: what a process of Fleet's hands on to those that it starts, and what it keeps for itself."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fleet import address, errors
from fleet.settings import PREFIX, SECRETS, Settings

#: How systemd tells a service where to say that it is up and alive (sd_notify(3)). Meant for one process, and for no
#: child of it.
_OF_THE_SERVICE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: Settings that mean nothing to the worker of a host; most are secrets, or where one lies.
_NOT_A_WORKERS = frozenset(
    {
        *("database_url", "broker_password", "signing_keys", "token", "principal", "principal_file"),
        *("flower_broker_url", "flower_address", "flower_port", "flower_user", "flower_password"),
        *("api_address", "api_port", "api_tls_cert", "api_tls_key", "metrics_address"),
    }
)
#: What is not called `FLEET_…`, and makes a worker what it is all the same.
_OTHERS_OF_WORKERS = ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "AGENT_HOST", "AGENT_PORT")


def inherited(**variables: str) -> dict[str, str]:
    """Return the environment for a child process: this one's, with some variables set."""
    ours = {name: value for name, value in os.environ.items() if name not in _OF_THE_SERVICE_MANAGER}
    return {**ours, **variables}


def for_tasks() -> dict[str, str]:
    """Return the environment for code of installed packages: this process's, without Fleet's own settings, some of
    which are secrets."""
    return {name: value for name, value in inherited().items() if not name.startswith(PREFIX)}


def of_workers(given: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment makes the worker of a host what it is: none of it is secret."""
    return {
        name: value
        for name, value in given.items()
        if name in _OTHERS_OF_WORKERS or (name.startswith(PREFIX) and _is_a_workers(name, value))
    }


def for_worker(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for the worker of a host: this one's, without the control plane's secrets; with
    `variables`, those instead of all of this one's that make a worker what it is."""
    ours = inherited()
    others = {name: value for name, value in ours.items() if not name.startswith((PREFIX, *_OTHERS_OF_WORKERS))}
    return {**others, **(of_workers(ours) if variables is None else variables)}


@dataclass(frozen=True, kw_only=True)
class ServiceManager:
    """What systemd wants to hear from this process."""

    #: a path, or `@` and a name for an abstract socket
    socket: str
    #: how often it wants to hear that this process lives; None where it does not ask
    watchdog: timedelta | None


def take_service_manager() -> ServiceManager | None:
    """Return where systemd listens, and forget it, so that no child of this process speaks for it.

    None where this process is no service that is to tell.
    """
    given = {name: os.environ.pop(name, "") for name in _OF_THE_SERVICE_MANAGER}
    socket_path, every, pid = (given[name] for name in _OF_THE_SERVICE_MANAGER)
    if not socket_path.startswith(("/", "@")):
        return None
    meant = not pid or pid == str(os.getpid())
    watched = meant and every.isascii() and every.isdecimal() and int(every) > 0
    return ServiceManager(
        socket=socket_path, watchdog=timedelta(microseconds=min(int(every), 10**15)) if watched else None
    )


def _is_a_workers(variable: str, value: str) -> bool:
    name = variable.removeprefix(PREFIX).lower()
    is_file = name not in Settings.model_fields and name.removesuffix("_file") in SECRETS
    name = name.removesuffix("_file") if is_file else name
    if name == "broker_url":  # with a login, it is the control plane's; without one, it says where the broker is
        return not _has_login(value, is_file=is_file)
    return name not in _NOT_A_WORKERS


def _has_login(value: str, *, is_file: bool) -> bool:
    try:
        text = Path(value).read_text(encoding="utf-8").strip() if is_file else value
        found = address.parse(text)
    except (OSError, UnicodeDecodeError, errors.InvalidValue):
        return True  # nothing that a worker could use
    return bool(found.username or found.password)
