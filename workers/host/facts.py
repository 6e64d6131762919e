"""Facts: what this host finds out about itself."""

import os
import platform
import socket

import psutil

from fleet import errors, version
from fleet.contracts.hosts import Facts
from fleet.settings import Settings
from workers.host.containers.engine import Engine


def detect(settings: Settings, engine: Engine | None, *, takes_commands: bool) -> Facts:
    """Look around; no Engine, or one that does not answer, leaves `docker_version` empty.

    `takes_commands` is whether the host's owner has left commands and files to the fleet's policy.
    """
    hostname = socket.gethostname()
    return Facts(
        hostname=hostname,
        address=settings.resolved_advertise_host,
        port=settings.resolved_advertise_port,
        fleet_version=version.current(),
        python_version=platform.python_version(),
        os=_operating_system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpus=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        docker_version=_docker_version(engine),
        shell=takes_commands,
    )


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _docker_version(engine: Engine | None) -> str | None:
    try:
        return engine.version() if engine else None
    except errors.FleetError:
        return None
