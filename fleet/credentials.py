"""Credentials on disk: written whole or not at all, for their owner's eyes, and refused where others can read them."""

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from fleet import errors
from fleet.contracts.enrollment import Credential

#: More than a credential takes (about 300 bytes without labels, 64 of which have room here), in bytes.
_ROOM = 16_384


def save(path: Path, credential: Credential) -> None:
    """Write the credential atomically, mode 0600, its directory 0700 where it is made.

    Raises `errors.LocalFault` where the disk is full or the directory cannot be written.
    """
    remedy = (
        f"mend that, or set another state directory; if {credential.host} was just enrolled, `fleet token create "
        f"--host-id {credential.host}` makes a token that enrolls it again"
    )
    with _written(path, credential.model_dump_json(indent=2), remedy=remedy) as temporary:
        temporary.replace(path)
        _sync_directory(path.parent)


def rehearse(path: Path) -> None:
    """Find out whether a credential could be saved, before a token is used up for it.

    Raises `errors.LocalFault` as `save` would.
    """
    with _written(path, " " * _ROOM, remedy="mend that, or set another state directory; the token is not used up"):
        pass


def load(path: Path, *, host: str) -> Credential:
    """Read a host's credential.

    Raises `errors.CredentialUnusable` where it is missing (with how to get one), unreadable, open to others, not a
    credential, or another host's.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise errors.CredentialUnusable(f"credential {path}: is not a file", remedy="name a file, or remove it")
        if mode & 0o077:
            raise errors.CredentialUnusable(
                f"credential {path}: others can read it (mode {mode & 0o777:04o})",
                remedy=f"chmod 600 {shlex.quote(str(path))}",
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


@contextmanager
def _written(path: Path, text: str, *, remedy: str) -> Iterator[Path]:
    """Give a file beside `path`, mode 0600, with the text safely on disk; gone afterwards unless it was moved."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise errors.LocalFault(f"credential {path}: cannot be written ({exc.strerror})", remedy=remedy) from exc


def _sync_directory(path: Path) -> None:
    """Make the rename durable: without it, power loss can bring the old name back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
