"""Settings: every knob of Fleet, typed, bounded and explained, from flags, environment and files.

Order, first wins: flags (keyword arguments here), `FLEET_<NAME>` in the environment, `FLEET_<NAME>_FILE` (a file whose
content is the value, for secrets), the settings file, what a running `fleet up` left in the state directory, defaults.
The settings file is `-c FILE` or `FLEET_CONFIG`, else the first that exists of `./fleet.toml`, `/etc/fleet/fleet.toml`.
This is the only module that reads the environment.
"""

import os
import socket
import tomllib
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_state_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fleet import address, authority, errors, names, redaction
from fleet.address import Address

PREFIX = "FLEET_"
#: Variables that are Fleet's but no settings.
_NOT_SETTINGS = frozenset({"FLEET_CONFIG"})
#: Settings whose value may come from a file named in `FLEET_<NAME>_FILE`.
SECRETS = ("broker_url", "flower_broker_url", "database_url", "token", "flower_password")
#: Written by `fleet up` into its state directory, so that everything on the machine finds it.
STATE_FILE = "fleet.toml"
#: The host's policy, where it lies beside the settings file.
POLICY_FILE = "policy.toml"
#: What a host advertises where nobody says otherwise (E4 of the feature table).
DEFAULT_PORT = 8000


class Settings(BaseSettings):
    """All settings of one process; immutable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    broker_url: SecretStr | None = Field(None, description="Redis or Valkey ≥ 7: rediss://[user:password@]host:port/0")
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
        None, description="what containers may have of this host; default: policy.toml beside this file, or /etc/fleet"
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
        address, separator, port = value.rpartition(":")
        if not (separator and address and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("write ADDRESS:PORT, such as 127.0.0.1:9464")
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

    def require_broker(self) -> Address:
        """Return where the broker is; raise `errors.SettingsInvalid` where none is known."""
        return address.parse(self.require_broker_url(), ca=self.resolved_broker_ca)

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


def load(*, config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings; flags that are None count as not given.

    Raises `errors.SettingsInvalid` for a wrong value, an unknown name (with the nearest known one) or an unreadable
    file.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    _refuse_unknown_variables()
    merged = _read_secret_files()
    chosen = config or (Path(os.environ["FLEET_CONFIG"]) if os.environ.get("FLEET_CONFIG") else None)
    candidates = [chosen] if chosen else [Path("fleet.toml"), Path("/etc/fleet/fleet.toml")]
    for path in candidates:
        if chosen or path.is_file():
            beside = path.absolute().with_name(POLICY_FILE)
            merged = {**({"policy_file": beside} if beside.is_file() else {}), **_read_file(path), **merged}
            break
    state_dir = Path(
        given.get("state_dir")
        or os.environ.get("FLEET_STATE_DIR")
        or merged.get("state_dir")
        or user_state_path("fleet")
    )
    if (state_dir / STATE_FILE).is_file() and "broker_url" not in given:
        merged = {**_read_file(state_dir / STATE_FILE), **merged}
    environment = {name for name in Settings.model_fields if os.environ.get(PREFIX + name.upper())}
    fallbacks = {name: value for name, value in merged.items() if name not in environment and name not in given}
    try:
        settings = Settings(**fallbacks, **given)
    except ValidationError as exc:
        raise errors.SettingsInvalid(_explain(exc, given), remedy="fleet.example.toml explains the settings") from exc
    settings.resolved_broker_ca  # noqa: B018 - read now, so that a wrong one is said at once
    return settings


def environment(**variables: str) -> dict[str, str]:
    """Return the environment for a child process: this one's, with some variables set."""
    return {**os.environ, **variables}


def environment_for_tasks() -> dict[str, str]:
    """Return the environment for code of installed packages: this process's, without Fleet's own settings, some of
    which are secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _explain(exc: ValidationError, given: dict[str, Any]) -> str:
    parts = []
    for error in exc.errors():
        name = ".".join(str(part) for part in error["loc"])
        origin = name if name in given else f"{PREFIX}{name.upper()}"
        value = error.get("input")
        shown = value.get_secret_value() if isinstance(value, SecretStr) else value
        if name in SECRETS:
            shown = redaction.url(str(shown)) if name.endswith("_url") else "***"
        message = error["msg"].removeprefix("Value error, ")
        parts.append(f"{origin}: {shown!r}: {message}")
    return "; ".join(parts)


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS} | _NOT_SETTINGS
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable not in known:
            hint = errors.did_you_mean(variable, sorted(known))
            raise errors.SettingsInvalid(f"{variable}: no such setting", remedy=hint or f"unset {variable}")


def _read_secret_files() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in SECRETS:
        variable = f"{PREFIX}{name.upper()}_FILE"
        if path := os.environ.get(variable):
            try:
                values[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise errors.SettingsInvalid(
                    f"{variable}: cannot read {path!r} ({exc})", remedy="give a readable file"
                ) from exc
    return values


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.SettingsInvalid(f"settings file {path}: cannot be read ({exc})", remedy="mend or move it") from exc
    except tomllib.TOMLDecodeError as exc:
        raise errors.SettingsInvalid(f"settings file {path}: is not TOML ({exc})", remedy="mend or move it") from exc
    for name in content:
        if name not in Settings.model_fields:
            hint = errors.did_you_mean(name, sorted(Settings.model_fields))
            raise errors.SettingsInvalid(f"settings file {path}: unknown setting {name!r}", remedy=hint or "remove it")
    return content
