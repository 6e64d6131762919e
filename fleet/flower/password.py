"""Flower's password: the setting, else one that is made once and kept in the state directory."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from fleet import errors
from fleet.settings import Settings

FILE = "flower.password"


def path(settings: Settings) -> Path:
    return settings.state_dir / FILE


def obtain(settings: Settings) -> tuple[SecretStr, bool]:
    """Return the password, and whether it was made just now (then, and only then, somebody should show it).

    Raises `errors.LocalFault` where the file cannot be written or read, `errors.CredentialUnusable` where it is open
    to others.
    """
    if settings.flower_password:
        return settings.flower_password, False
    file = path(settings)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = secrets.token_urlsafe(18)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            kept = file.read_text(encoding="utf-8").strip()
            _check(file, kept)
            return SecretStr(kept), False
        with os.fdopen(descriptor, "w", encoding="utf-8") as fresh:
            fresh.write(made + "\n")
    except OSError as exc:
        raise errors.LocalFault(
            f"Flower's password file {file} cannot be used ({exc.strerror or exc})",
            remedy="make room or permit it, or set FLEET_FLOWER_PASSWORD_FILE",
        ) from exc
    return SecretStr(made), True


def _check(file: Path, kept: str) -> None:
    if file.stat().st_mode & 0o077:
        raise errors.CredentialUnusable(f"Flower's password file {file} is open to others", remedy=f"chmod 600 {file}")
    if not kept:
        raise errors.CredentialUnusable(f"Flower's password file {file} is empty", remedy="remove it to have one made")
