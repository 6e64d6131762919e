"""Joining: from an enrollment token, wherever it was given, to a credential on disk."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fleet.contracts.credentials import HostCredential
    from fleet.settings import Settings


def token_file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--token-file",
        metavar="FILE",
        help="File that holds the token; - for standard input. Also by FLEET_TOKEN and FLEET_TOKEN_FILE.",
    )(command)


def token(settings: "Settings", *, given: str | None, file: str | None) -> str | None:
    """Return the token by flag, by file, or by the settings; None where there is none at all.

    Raises `errors.SettingsInvalid` for a file that cannot be read, and for two tokens at once.
    """
    from fleet import errors

    if given and file:
        raise click.UsageError("a token and --token-file: give one of them")
    if given:
        return given.strip()
    if file is None:
        return settings.token.get_secret_value() if settings.token else None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.SettingsInvalid(
            f"--token-file: cannot read {file!r} ({exc})", remedy="give a readable file that holds the token"
        ) from exc
    if not text.strip():
        raise errors.SettingsInvalid(f"--token-file: {file!r} is empty", remedy="put the token into it")
    return text.strip()


def enroll(settings: "Settings", *, host: str, token: str, broker_url: str | None = None) -> "HostCredential":
    """Redeem the token and save the credential; `broker_url` replaces the token's, and so does one in the settings that
    has no login.

    Raises `errors.InvalidValue` (malformed), `errors.EnrollmentRefused`, `errors.Unreachable`, `errors.LocalFault`.
    """
    from fleet import credentials, joining, version
    from fleet.cli import progress, render

    if broker_url is None and settings.broker_elsewhere is not None:
        broker_url = settings.broker_elsewhere.url
    path = settings.credential_path(host)
    credentials.rehearse(path)
    with progress.bar(f"waiting for the control plane to enroll {host}"):
        credential = joining.join(
            token, host=host, version=version.current(), broker_url=broker_url, broker_ca=settings.resolved_broker_ca
        )
    credentials.save(path, credential)
    render.say(f"{host} is enrolled; its credential is {path}")
    return credential
