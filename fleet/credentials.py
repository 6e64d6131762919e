"""Credentials on disk: written whole or not at all, for their owner's eyes, and refused where others can read them."""

import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from fleet import errors
from fleet.contracts.enrollment import Credential


def save(path: Path, credential: Credential) -> None:
    """Write the credential atomically, mode 0600, its directory 0700 where it is made.

    Raises `errors.LocalFault` where the disk is full or the directory cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(credential.model_dump_json(indent=2))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as exc:
        raise errors.LocalFault(
            f"credential {path}: cannot be written ({exc.strerror})",
            remedy="free some space or set another state directory; the enrollment can be repeated with --force",
        ) from exc


def load(path: Path, *, host: str) -> Credential:
    """Read a host's credential.

    Raises `errors.CredentialUnusable` where it is missing (with how to get one), unreadable, open to others, not a
    credential, or another host's.
    """
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise errors.CredentialUnusable(
                f"credential {path}: others can read it (mode {mode & 0o777:04o})", remedy=f"chmod 600 {path}"
            )
        credential = Credential.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise errors.CredentialUnusable(
            f"host {host!r} has no credential at {path}",
            remedy="get a token with `fleet token create` where the control plane runs, then `fleet enroll TOKEN` here "
            "(or `fleet worker --token TOKEN`)",
        ) from exc
    except OSError as exc:
        raise errors.CredentialUnusable(
            f"credential {path}: cannot be read ({exc.strerror})", remedy="run as its owner"
        ) from exc
    except (ValidationError, UnicodeDecodeError) as exc:
        raise errors.CredentialUnusable(
            f"credential {path}: is not a credential of this version of Fleet", remedy="enroll again with --force"
        ) from exc
    if credential.host != host:
        raise errors.CredentialUnusable(
            f"credential {path}: belongs to host {credential.host!r}, not {host!r}",
            remedy=f"use --host-id {credential.host}, or enroll {host!r} with a token of its own",
        )
    return credential


def _sync_directory(path: Path) -> None:
    """Make the rename durable: without it, power loss can bring the old name back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
