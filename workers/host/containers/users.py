"""Users of containers: which number a container's first process runs as, so that files can be given to it.

Names are looked up in the container's own tables, which are read out of it before it starts; nothing of it runs.
"""

import io
import posixpath
import tarfile
from collections.abc import Mapping
from typing import Any

from fleet import errors
from fleet.contracts.container_spec import ContainerSpec
from workers.host.containers.engine import Engine

#: Tables larger than this are none.
_LARGEST_BYTES = 1024 * 1024
_MOST_LINKS = 5


def require_the_hosts(engine: Engine, spec: ContainerSpec) -> None:
    """Raise `errors.EngineRefused` of kind `secrets_unavailable` where a container's users are others than the host's
    of these numbers, who could not read files that are given to them."""
    options = {str(option).partition(",")[0] for option in engine.ask("GET", "/info").get("SecurityOptions") or ()}
    # Without root there are no users of the host for a container, whatever its spec says.
    if "name=rootless" in options:
        raise errors.EngineRefused(
            "secrets: this host's Engine runs without root, so a container could not read them",
            kind="secrets_unavailable",
            remedy="leave its secrets out, or have it on a host whose Engine runs as root",
        )
    if "name=userns" in options and spec.userns_mode != "host":
        raise errors.EngineRefused(
            "secrets: this host's Engine gives containers users of their own (userns-remap), who could not read them",
            kind="secrets_unavailable",
            remedy="leave its secrets out, or have the host's owner grant userns_mode: host",
        )


def user_and_group(engine: Engine, details: Mapping[str, Any]) -> tuple[int, int]:
    """Return user and group id of a container (`details`, by inspect), as it was made.

    Raises `errors.TaskFailed` of kind `unknown_user` for a name that its tables do not have.
    """
    docker_id: str = details["Id"]
    user, _, group = str(details["Config"].get("User") or "0").partition(":")
    people = _table(engine, docker_id, "/etc/passwd") if not (user.isdecimal() and group.isdecimal()) else []
    entry = next((row for row in people if len(row) > 3 and user in row[0:3:2] and row[2].isdecimal()), None)
    if not user.isdecimal() and entry is None:
        raise _unknown(f"user {user!r}", "/etc/passwd")
    uid = int(user) if user.isdecimal() else int(entry[2] if entry else 0)
    if not group:
        return uid, int(entry[3]) if entry and entry[3].isdecimal() else 0
    if group.isdecimal():
        return uid, int(group)
    for row in _table(engine, docker_id, "/etc/group"):
        if len(row) > 2 and row[0] == group and row[2].isdecimal():
            return uid, int(row[2])
    raise _unknown(f"group {group!r}", "/etc/group")


def _unknown(who: str, table: str) -> errors.TaskFailed:
    return errors.TaskFailed(
        f"the image's {table} has no {who}", kind="unknown_user", remedy="give numbers, such as user: '1000:1000'"
    )


def _table(engine: Engine, docker_id: str, path: str) -> list[list[str]]:
    """Return the rows of a table in the container; none where there is no such file."""
    return [line.split(":") for line in _read(engine, docker_id, path).splitlines()]


def _read(engine: Engine, docker_id: str, path: str) -> str:
    for _ in range(_MOST_LINKS):
        try:
            archive = engine.archive(docker_id, path, most=_LARGEST_BYTES)
        except errors.EngineRefused as exc:
            if exc.kind != "not_found":
                raise
            return ""
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            member = opened.next()
            content = opened.extractfile(member) if member and member.isreg() else None
            if content:
                return content.read().decode(errors="replace")
            if member is None or not member.issym():
                return ""
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
    return ""
