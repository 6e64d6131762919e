"""The PID file of a host's worker that `fleet worker start` has started, and the lock that proves that one lives.

`worker.pid` has the number in its first line, where other programs look for it, and in the second what tells this
process from another of that number. A file alone proves nothing: whoever reads one asks the process, and the lock.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet import credentials
from fleet.local.incarnation import Incarnation

#: In the directory of the host: held by every worker, however it was started, for as long as it lives.
LOCK = "worker.lock"
#: There, too.
PID_FILE = "worker.pid"
LOG = "worker.log"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the file says."""

    process: Incarnation
    #: of Fleet, as it was started
    version: str
    #: time that running tasks have when it is told to stop
    stop_grace_seconds: float


def write(path: Path, record: Record) -> None:
    """Write it whole or not at all, mode 0600; raises `errors.LocalFault`."""
    text = f"{record.process.pid}\n{json.dumps(asdict(record))}\n"
    credentials.write_private(path, text, what="PID file", remedy="make room or permit it; no worker starts without")


def read(path: Path) -> Record | None:
    """Return what it says; None where there is none, or none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
        process = Incarnation(**{name: kind(said["process"][name]) for name, kind in _PROCESS.items()})
        return Record(
            process=process, version=str(said["version"]), stop_grace_seconds=float(said["stop_grace_seconds"])
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def remove(path: Path, *, process: Incarnation | None) -> None:
    """Remove the file where it still is that process's, or, for None, still cannot be read."""
    found = read(path)
    if (found.process if found else None) == process:
        path.unlink(missing_ok=True)


_PROCESS = {"pid": int, "ticks": int, "boot": str}
