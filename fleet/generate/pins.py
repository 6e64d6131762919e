"""Pins: everything that Fleet needs, each in the very version that is installed here.

The control plane and a host take the same: Fleet is one distribution, and what a host never imports (the database's
libraries) is no danger to it. Pins say names and versions, and never where a package is downloaded from.
"""

from collections import deque
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fleet import errors, version


def resolve() -> tuple[str, ...]:
    """Return `name==version` of Fleet and of all that it needs on this Python, by name.

    Extras that are asked for are followed, and markers are those of this machine. Raises `errors.LocalFault` where
    something that Fleet needs is not installed.
    """
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = deque([(version.DISTRIBUTION, "")])
    while waiting:
        name, extra = waiting.popleft()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found = _distribution(name)
        pins[name] = f"{name}=={found.version}"
        for line in found.requires or ():
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            needed = canonicalize_name(wanted.name)
            waiting.extend((needed, each) for each in ("", *sorted(wanted.extras)))
    return tuple(pins[name] for name in sorted(pins))


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as exc:
        raise errors.LocalFault(
            f"{name} is not installed here, so its version cannot be pinned",
            remedy=f"install `{version.DISTRIBUTION}` with all that it needs, and generate again",
        ) from exc
