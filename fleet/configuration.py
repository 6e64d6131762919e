"""Configuration: where the settings of a process come from.

Order, first wins: flags (keyword arguments here), `FLEET_<NAME>` in the environment, `FLEET_<NAME>_FILE` (a file whose
content is the value, for secrets), the settings file, what a running `fleet up` left in the state directory, defaults.
The settings file is `-c FILE` or `FLEET_CONFIG`, else the first that exists of `./fleet.toml`, `/etc/fleet/fleet.toml`.
What nobody knows, in a file or a variable, is refused, with the nearest name that is known.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from platformdirs import user_state_path
from pydantic import SecretStr, ValidationError

from fleet import errors, redaction
from fleet.settings import PREFIX, SECRETS, Settings

#: Variables that are Fleet's but no settings.
_NOT_SETTINGS = frozenset({"FLEET_CONFIG"})
#: Written by `fleet up` into its state directory, so that everything on the machine finds it.
STATE_FILE = "fleet.toml"
#: The policy of the host's owner, where it lies beside the settings file.
_POLICY_FILE = "policy.toml"


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
            beside = path.absolute().with_name(_POLICY_FILE)
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
