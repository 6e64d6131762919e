"""Credentials on disk: written whole or not at all, for their owner's eyes, and refused where others can read them."""

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from fleet import address, authority, errors
from fleet.address import Address
from fleet.contracts.credentials import HostCredential, PrincipalCredential
from fleet.settings import Settings

#: More than a credential takes (2 KB without labels, 64 of which have room here, and the broker's CA, which is a third
#: longer as text), in bytes.
_ROOM = 32_768 + 2 * authority.LARGEST


def save(path: Path, credential: HostCredential) -> None:
    """Write a host's credential atomically, mode 0600, its directory 0700 where it is made.

    Raises `errors.LocalFault` where the disk is full or the directory cannot be written.
    """
    remedy = (
        f"mend that, or set another state directory; if {credential.host} was just enrolled, `fleet token create "
        f"--host-id {credential.host}` makes a token that enrolls it again"
    )
    write_private(path, credential.model_dump_json(indent=2), what="credential", remedy=remedy)


def rehearse(path: Path) -> None:
    """Find out whether a credential could be saved, before a token is used up for it.

    Raises `errors.LocalFault` as `save` would.
    """
    remedy = "mend that, or set another state directory; the token is not used up"
    with _written(path, " " * _ROOM, what="credential", remedy=remedy):
        pass


def load(path: Path, *, host: str) -> HostCredential:
    """Read a host's credential.

    Raises `errors.CredentialUnusable` where it is missing (with how to get one), unreadable, open to others, not a
    credential, another host's, or for a broker that Fleet does not connect to.
    """
    try:
        credential = HostCredential.model_validate_json(read_private(path, what="credential"))
    except FileNotFoundError as exc:
        raise errors.CredentialUnusable(
            f"host {host!r} has no credential at {path}",
            remedy="get a token with `fleet token create` where the control plane runs, then `fleet enroll TOKEN` here "
            "(or `fleet worker --token TOKEN`)",
        ) from exc
    except ValidationError as exc:
        raise errors.CredentialUnusable(
            f"credential {path}: is not a credential of this version of Fleet", remedy="enroll again with --force"
        ) from exc
    if credential.host != host:
        raise errors.CredentialUnusable(
            f"credential {path}: belongs to host {credential.host!r}, not {host!r}",
            remedy=f"use --host-id {credential.host}, or enroll {host!r} with a token of its own",
        )
    _require_address(credential, path, remedy="enroll again with --force")
    return credential


def save_principal(path: Path, credential: PrincipalCredential) -> None:
    """Write a principal's key and credential atomically, mode 0600; raises `errors.LocalFault`."""
    remedy = "mend that, or name another file"
    write_private(path, credential.model_dump_json(indent=2), what="principal's file", remedy=remedy)


def load_principal(path: Path, *, name: str) -> PrincipalCredential:
    """Read a principal's key and credential; raises `errors.CredentialUnusable`, with how to get one where missing."""
    try:
        found = PrincipalCredential.model_validate_json(read_private(path, what="principal's file"))
    except FileNotFoundError as exc:
        raise errors.CredentialUnusable(
            f"principal {name!r} has no credential at {path}, and nothing is pushed without one",
            remedy=f"`fleet up` makes one with a fleet on this machine; else `fleet principal create {name} --level "
            "supervised` makes it where the control plane runs: copy the file here, or name it by FLEET_PRINCIPAL_FILE",
        ) from exc
    except ValidationError as exc:
        raise errors.CredentialUnusable(
            f"principal's file {path}: is not one of this version of Fleet",
            remedy=f"`fleet principal rotate {name}` makes it anew where the control plane runs",
        ) from exc
    _require_address(found, path, remedy="get a new file")
    return found


def broker(credential: HostCredential | PrincipalCredential, settings: Settings) -> Address:
    """Return where the broker is for whoever has this. A CA in the settings counts instead of the one in it: so a fleet
    can change its CA without enrolling anew. For a host a URL without a login (`broker_elsewhere`) counts instead of
    where it was enrolled, so that a broker can move."""
    found = _address(credential, ca=settings.resolved_broker_ca)
    elsewhere = settings.broker_elsewhere if isinstance(credential, HostCredential) else None
    if elsewhere is None:
        return found
    return replace(found, host=elsewhere.host, port=elsewhere.port, tls=elsewhere.tls)


def _address(credential: HostCredential | PrincipalCredential, *, ca: str | None = None) -> Address:
    return address.parse(credential.broker_url.get_secret_value(), ca=ca or credential.broker_ca)


def _require_address(credential: HostCredential | PrincipalCredential, path: Path, *, remedy: str) -> None:
    try:
        _address(credential)
    except errors.InvalidValue as exc:
        raise errors.CredentialUnusable(
            f"credential {path}: {exc.message}", remedy=f"{exc.remedy}; then {remedy}"
        ) from exc


def read_private(path: Path, *, what: str) -> str:
    """Read a file that its owner alone can read.

    Raises `errors.CredentialUnusable` for one that is open to others, no file, or unreadable; FileNotFoundError.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise errors.CredentialUnusable(f"{what} {path}: is not a file", remedy="name a file, or remove it")
        if mode & 0o077:
            raise errors.CredentialUnusable(
                f"{what} {path}: others can read it (mode {mode & 0o777:04o})",
                remedy=f"chmod 600 {shlex.quote(str(path))}",
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise errors.CredentialUnusable(
            f"{what} {path}: cannot be read ({exc.strerror})", remedy="run as its owner"
        ) from exc
    except UnicodeDecodeError as exc:
        raise errors.CredentialUnusable(f"{what} {path}: is no text", remedy="restore it from its backup") from exc


def write_private(path: Path, text: str, *, what: str, remedy: str) -> None:
    """Write a file of mode 0600 whole or not at all, durably; raises `errors.LocalFault`."""
    with _written(path, text, what=what, remedy=remedy) as temporary:
        temporary.replace(path)
        _sync_directory(path.parent)


@contextmanager
def _written(path: Path, text: str, *, what: str, remedy: str) -> Iterator[Path]:
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
        raise errors.LocalFault(f"{what} {path}: cannot be written ({exc.strerror})", remedy=remedy) from exc


def _sync_directory(path: Path) -> None:
    """Make the rename durable: without it, power loss can bring the old name back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
