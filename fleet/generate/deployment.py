"""Deployment: what is to be generated, checked. Whatever a template is given has passed here."""

import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fleet import address, errors, names

#: The user of the control plane at the broker (`fleet broker rules control`).
_CONTROL_USER = "control"
#: `[registry[:port]/]path[:tag]`, as the Docker Engine takes it; no digest, since the image is built here.
_IMAGE = re.compile(
    r"([a-z0-9]+([.-][a-z0-9]+)*(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
)


class Role(StrEnum):
    #: `fleet worker`
    HOST = "host"
    #: `fleet control`
    CONTROL = "control"


class Kind(StrEnum):
    """What can be written. One that needs another brings it along."""

    DOCKERFILE = "dockerfile"
    COMPOSE = "compose"
    SYSTEMD = "systemd"
    REQUIREMENTS = "requirements"

    @classmethod
    def read(cls, words: str | Iterable[str]) -> frozenset["Kind"]:
        """Return the kinds of these names, with what they need; raise `errors.InvalidValue`."""
        given = [words] if isinstance(words, str) else list(words)
        known = [*(kind.value for kind in cls), "all"]
        if not given:
            raise errors.InvalidValue(
                field="kinds", value=given, problem="is empty", remedy=f"name some of {', '.join(known)}"
            )
        for word in given:
            if word not in known:
                raise errors.InvalidValue(
                    field="kind",
                    value=word,
                    problem="is nothing that can be generated",
                    remedy=errors.did_you_mean(str(word), known) or f"use one of {', '.join(known)}",
                )
        chosen = set(cls) if "all" in given else {cls(word) for word in given}
        if cls.COMPOSE in chosen:
            chosen.add(cls.DOCKERFILE)
        if cls.DOCKERFILE in chosen:
            chosen.add(cls.REQUIREMENTS)
        return frozenset(chosen)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One machine of the fleet, as somebody wants it."""

    role: Role
    #: None where the files are for any host
    host_id: str | None
    #: where the broker is, as `FLEET_BROKER_URL`; None where a token or a secret file says it
    broker_url: str | None
    listed: bool
    #: the `fleet` that a unit starts
    executable: str
    image: str
    own_ca: bool

    @classmethod
    def of(
        cls,
        *,
        role: str,
        registry_url: str | None = None,
        host_id: str | None = None,
        registry: bool = True,
        executable: str | None = None,
        image: str | None = None,
        own_ca: bool = False,
    ) -> "Deployment":
        """Check the parts; raises `errors.InvalidValue` that names the field."""
        if role not in list(Role):
            raise errors.InvalidValue(field="role", value=role, problem="is no role", remedy=f"use {' or '.join(Role)}")
        url = None if registry_url is None else _checked_url(registry_url, Role(role))
        return cls(
            role=Role(role),
            host_id=None if host_id is None else names.host_id(host_id),
            broker_url=url if registry else None,
            listed=registry,
            executable=_checked_executable(executable or _found_executable()),
            image=_checked_image(image or f"fleet-{role}"),
            own_ca=own_ca,
        )

    def require_host_id(self, what: str) -> None:
        """Raise `errors.InvalidValue` where a host's file needs its name, and none was given."""
        if self.role is Role.HOST and self.host_id is None:
            raise errors.InvalidValue(
                field="host id", value=None, problem=f"is missing: the {what} names the host", remedy="give --host-id"
            )


def _checked_url(url: str, role: Role) -> str:
    """Return the URL anew from its parts, so that nothing else of it gets into a file."""
    field = "registry URL"
    found = address.parse(url, field=field)
    if found.username or found.password:
        raise errors.InvalidValue(
            field=field,
            value=str(found),
            problem="has a user or a password in it",
            remedy="write rediss://HOST:PORT/0; credentials come from files, which nothing that is generated holds",
        )
    if role is Role.HOST:
        return found.url
    scheme, _, rest = found.url.partition("://")
    return f"{scheme}://{_CONTROL_USER}@{rest}"


def _checked_executable(path: str) -> str:
    # quotes and backslashes systemd takes in no program's name, however they are written
    if not path.startswith("/") or not path.isprintable() or any(each in path for each in "\"'\\"):
        raise errors.InvalidValue(
            field="executable",
            value=path,
            problem="is not an absolute path without quotes, backslashes and control characters",
            remedy="give the whole path of the `fleet` command, such as /opt/fleet/bin/fleet",
        )
    return path


def _checked_image(name: str) -> str:
    if not _IMAGE.fullmatch(name) or len(name) > 255:
        raise errors.InvalidValue(
            field="image",
            value=name,
            problem="is not a name for an image",
            remedy="use lower-case letters, digits and -._/ with a tag after a colon, such as shop/fleet-host:1",
        )
    return name


def _found_executable() -> str:
    """Return the `fleet` command of this very installation, or else the one on the path."""
    beside = Path(sys.executable).with_name("fleet")
    return str(beside) if beside.is_file() else shutil.which("fleet") or "/usr/local/bin/fleet"
