"""Settings: every knob of Fleet, typed, bounded and explained, and what follows from them.

Where they come from, and what wins, is `fleet.configuration`'s; what children get of the environment is for
`fleet.environment`. Besides these three no module reads it.
"""

import os
import socket
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from platformdirs import user_state_path
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fleet import address, authority, errors, listening, names
from fleet.address import Address
from fleet.listening import Listening

PREFIX = "FLEET_"
#: Settings whose value may come from a file named in `FLEET_<NAME>_FILE`.
SECRETS = ("broker_url", "broker_password", "flower_broker_url", "database_url", "token", "flower_password")
#: What a host advertises where nobody says otherwise (E4 of the feature table).
DEFAULT_PORT = 8000
#: Where a control worker tells of its health: beside a host's on the same machine.
CONTROL_HEALTH_PORT = 8001


class Settings(BaseSettings):
    """All settings of one process; immutable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    broker_url: SecretStr | None = Field(None, description="Redis or Valkey ≥ 7: rediss://[user:password@]host:port/0")
    broker_password: SecretStr | None = Field(
        None, description="password of the user in broker_url, where that names none: then it is no secret"
    )
    flower_broker_url: SecretStr | None = Field(
        None, description="the broker with Flower's own user, which can only listen; default: broker_url"
    )
    broker_ca: Path | None = Field(None, description="PEM file of the broker's CA; default: the system's CAs")
    database_url: SecretStr | None = Field(
        None, description="control plane's database: sqlite:///file or postgresql://user:password@host/name"
    )
    state_dir: Path = Field(
        default_factory=lambda: user_state_path("fleet"), description="credentials, journals, embedded broker"
    )
    host_id: str | None = Field(None, description="name of this host; default: its hostname")
    advertise_host: str | None = Field(None, description="address that the host registers with")
    advertise_port: int | None = Field(None, ge=1, le=65535, description="port that the host registers with")
    token: SecretStr | None = Field(None, description="enrollment token")
    credential: Path | None = Field(None, description="credential file; default: in the state directory")
    principal: str | None = Field(None, description="who pushes; default: the login name")
    principal_file: Path | None = Field(
        None, description="key and credential of the principal; default: in the state directory"
    )
    signing_keys: Path | None = Field(
        None, description="control plane's file of the fleet's keys; default: in the state directory"
    )
    docker_url: str | None = Field(None, description="Docker Engine: unix:///path or tcp://…; default: DOCKER_HOST")
    policy_file: Path | None = Field(
        None,
        description="what may be had of and done on this host; default: policy.toml beside this file, or /etc/fleet",
    )
    shell: bool = Field(
        default=True, description="whether the fleet may have commands run and files moved on this host, by its policy"
    )
    unlisted: bool = Field(
        default=False, description="whether this host tells nobody that it is there and what containers it has"
    )
    stay_when_ended: bool = Field(
        default=False,
        description="whether a worker that has ended for good waits, unhealthy, to be told to stop: for containers",
    )
    secrets_dir: Path = Field(
        Path("/run/fleet/secrets"), description="secrets of a host's containers; must lie on a tmpfs"
    )
    concurrency: int = Field(8, ge=1, le=256, description="tasks that a host runs at once")
    task_memory: int = Field(
        2**30, ge=2**28, description="bytes of address space that a task of an installed package may use"
    )
    stop_grace: timedelta = Field(
        timedelta(seconds=30),
        ge=timedelta(0),
        le=timedelta(hours=24),
        description="time that running tasks have to finish in when a host worker is told to stop",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    flower_address: str = Field("127.0.0.1", description="address that Flower listens on")
    flower_port: int = Field(5555, ge=1, le=65535)
    flower_user: str = "fleet"
    flower_password: SecretStr | None = Field(None, description="default: made and kept in the state directory")
    api_address: str = Field("127.0.0.1", description="address that the REST API listens on")
    api_port: int = Field(5556, ge=0, le=65535, description="0 for any that is free")
    api_tls_cert: Path | None = Field(None, description="PEM file of the API's certificate; default: no TLS")
    api_tls_key: Path | None = Field(None, description="PEM file of that certificate's key")
    health_address: str | None = Field(
        None,
        description="ADDRESS:PORT where a worker says how it is, or off; default: loopback, a host's advertised port, "
        "8001 for the control plane",
    )
    metrics_address: str | None = Field(
        None, description="ADDRESS:PORT where the control worker serves Prometheus metrics; default: nowhere"
    )
    allow_unsafe_broker: bool = Field(default=False, description="run on a broker that can lose tasks")
    inventory_interval: timedelta = Field(
        timedelta(seconds=60), ge=timedelta(seconds=1), le=timedelta(hours=1), description="time between full syncs"
    )

    @field_validator("host_id", "principal")
    @classmethod
    def _check_id(cls, value: str | None) -> str | None:
        if value is not None and not names.HOST_ID.fullmatch(value):
            raise ValueError("use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
        return value

    @field_validator("broker_url", "flower_broker_url")
    @classmethod
    def _check_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                address.parse(value.get_secret_value())
            except errors.InvalidValue as exc:
                raise ValueError(f"it {exc.problem}; {exc.remedy}") from exc
        return value

    @field_validator("metrics_address")
    @classmethod
    def _check_metrics_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        listening.parse(value, example="127.0.0.1:9464")
        return value

    @field_validator("health_address")
    @classmethod
    def _check_health_address(cls, value: str | None) -> str | None:
        if value is not None and value != listening.OFF:
            listening.parse(value, example=f"127.0.0.1:{DEFAULT_PORT}, or off", any_port=True)
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("sqlite:", "postgresql:", "postgresql+")):
            raise ValueError("a database URL begins with sqlite:/// or postgresql://")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)

    @cached_property
    def resolved_host_id(self) -> str:
        """The host's id: the setting, else the hostname's first label made into one."""
        return self.host_id or names.derive_id(socket.gethostname().partition(".")[0])

    @cached_property
    def resolved_principal(self) -> str:
        """Who pushes: the setting, else the login name made into one."""
        if self.principal:
            return self.principal
        login = os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or os.environ.get("USER") or "root"
        return names.derive_id(login)

    @property
    def resolved_database_url(self) -> str:
        """The database's URL: the setting, else an SQLite file in the state directory."""
        if self.database_url:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'fleet.db'}"

    @property
    def resolved_docker_url(self) -> str:
        return self.docker_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    @property
    def resolved_advertise_host(self) -> str:
        """The address that the host registers: the setting, else AGENT_HOST, else the hostname.

        Raises `errors.SettingsInvalid` for one that no machine can be reached by.
        """
        for origin, given in (
            ("FLEET_ADVERTISE_HOST", self.advertise_host),
            ("AGENT_HOST", os.environ.get("AGENT_HOST")),
        ):
            if given:
                if not address.is_host(given):
                    raise errors.SettingsInvalid(
                        f"{origin}: {given!r} is not a host name or an address",
                        remedy="give one without scheme and port, such as web-1.example.org, 10.0.0.7 or fd00::7",
                    )
                return given
        return socket.gethostname()

    @property
    def resolved_advertise_port(self) -> int:
        """The port that the host registers: the setting, else AGENT_PORT, else 8000.

        Raises `errors.SettingsInvalid` for an AGENT_PORT that is no port.
        """
        if self.advertise_port is not None:
            return self.advertise_port
        given = os.environ.get("AGENT_PORT") or str(DEFAULT_PORT)
        if not given.isascii() or not given.isdecimal() or not 1 <= int(given) <= 65535:
            raise errors.SettingsInvalid(f"AGENT_PORT: {given!r} is not a port", remedy="use a number from 1 to 65535")
        return int(given)

    def health_listening(self, *, port: int) -> Listening | None:
        """Return where to tell of one's health: the setting, else that port on loopback; None for nowhere."""
        if self.health_address is None:
            return Listening(host=listening.LOOPBACK, port=port, insisted=False)
        if self.health_address == listening.OFF:
            return None
        return listening.parse(self.health_address, example=f"127.0.0.1:{port}", any_port=True)

    def anchored(self) -> "Settings":
        """Return the same settings for a process that leaves the directory which their paths are relative to."""
        paths = {name: value.absolute() for name, value in self if isinstance(value, Path)}
        return self.model_copy(update=paths)

    def host_dir(self, host: str) -> Path:
        """Return the directory of one host's credential and journal."""
        return self.state_dir / "hosts" / names.host_id(host)

    def credential_path(self, host: str) -> Path:
        return self.credential or self.host_dir(host) / "credential.json"

    def principal_path(self, name: str) -> Path:
        return self.principal_file or self.state_dir / "principals" / f"{names.principal(name)}.json"

    @property
    def signing_keys_path(self) -> Path:
        return self.signing_keys or self.state_dir / "signing-keys.json"

    @cached_property
    def resolved_broker_ca(self) -> str | None:
        """The certificates in `broker_ca` (PEM), None where it is not set; raises `errors.SettingsInvalid`."""
        return None if self.broker_ca is None else authority.read(self.broker_ca, field="FLEET_BROKER_CA")

    def secret_values(self) -> tuple[bytes, ...]:
        """Return what is secret in these settings, passwords of URLs by themselves."""
        found = set()
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
                written = urlsplit(text).password if name.endswith("_url") else text
                found |= {written or "", unquote(written or "")}
        return tuple(text.encode() for text in found if text)

    def require_broker(self) -> Address:
        """Return where the broker is, and whose login to use; raise `errors.SettingsInvalid` where none is known."""
        found = address.parse(self.require_broker_url(), ca=self.resolved_broker_ca)
        if found.password is None and self.broker_password is not None:
            return replace(found, password=self.broker_password.get_secret_value())
        return found

    @property
    def broker_elsewhere(self) -> Address | None:
        """Where this machine finds the broker, if a URL without a login says so: whoever has a login of its own goes by
        that. One with a login is the control plane's, and says nothing to others."""
        if self.broker_url is None:
            return None
        found = address.parse(self.broker_url.get_secret_value(), ca=self.resolved_broker_ca)
        return None if found.username or found.password else found

    def require_broker_of_flower(self) -> Address:
        """Return where the broker is, with the user that can only listen where there is one."""
        if self.flower_broker_url is None:
            return self.require_broker()
        return address.parse(self.flower_broker_url.get_secret_value(), ca=self.resolved_broker_ca)

    def require_broker_url(self) -> str:
        """Return the broker's URL as it was given; raise `errors.SettingsInvalid` where none is known."""
        if self.broker_url is None:
            raise errors.SettingsInvalid(
                "no broker is known here",
                remedy="start one with `fleet up`, or set FLEET_BROKER_URL=rediss://:PASSWORD@HOST:PORT/0",
            )
        return self.broker_url.get_secret_value()
