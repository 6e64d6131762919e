"""`/api/worker`: the worker of the host that this API runs on, where it is one: started, stopped, looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fleet import errors, logs
from fleet.api import replies, words
from fleet.api.access import Admin
from fleet.api.given import ThePlane
from fleet.api.plane import Plane
from fleet.local import daemon, launch
from fleet.local.daemon import Seen, State
from fleet.local.launch import Launch

log = logs.get(__name__)
router = APIRouter(prefix="/api/worker", tags=["worker"])


@router.get("", response_model=replies.Worker)
def status(_: Admin, plane: ThePlane, query: Annotated[words.Worker, Query()]) -> dict[str, Any]:
    """Say whether the worker of this machine runs, whoever has started it."""
    with _on_this_machine():
        host = _host(plane, query)
        return _shown(host, daemon.look(plane.settings.host_dir(host)))


@router.post("/start", response_model=replies.Worker)
def start(_: Admin, plane: ThePlane, body: words.Worker | None = None) -> dict[str, Any]:
    """Start it as a daemon, and answer when it takes tasks; one that runs is left as it is.

    It is started as it was last on that machine, with the same options, variables and settings file.
    """
    with _on_this_machine():
        host = _host(plane, body)
        how = launch.last(plane.settings.host_dir(host)) or Launch(config=plane.config, directory=Path.cwd())
        seen, _begun = daemon.start(plane.settings, host=host, launch=how, say=_say)
        return _shown(host, seen)


@router.post("/stop", response_model=replies.Worker)
def stop(_: Admin, plane: ThePlane, body: words.Worker | None = None) -> dict[str, Any]:
    """Have it end, and answer when it has; one that runs in the foreground or by systemd is left alone (409)."""
    with _on_this_machine():
        host = _host(plane, body)
        directory = plane.settings.host_dir(host)
        daemon.stop(directory, host=host, timeout_seconds=None, kill=False, say=_say)
        return _shown(host, daemon.look(directory))


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """Turn what stands in the way on this machine into a conflict; the log has the whole of it."""
    try:
        yield
    except (errors.LocalFault, PermissionError) as exc:
        log.warning("worker.untouched", error=str(exc))
        raise errors.Refused(
            "the worker cannot be looked at, started or stopped", remedy="the log of the API says why"
        ) from exc


def _host(plane: Plane, wish: words.Worker | None) -> str:
    """Return the host of this machine that is meant; raise `errors.NotFound` where it has no credential here."""
    host = (wish.host_id if wish else None) or plane.settings.resolved_host_id
    if not plane.settings.credential_path(host).is_file():
        raise errors.NotFound(
            f"this machine is no host {host!r}", remedy="enroll it here with `fleet enroll`, or name another host_id"
        )
    return host


def _say(text: str) -> None:
    log.info("worker.said", text=text)


def _shown(host: str, seen: Seen) -> dict[str, Any]:
    is_running = seen.state is State.RUNNING
    return {
        "host": host,
        "state": seen.state.value,
        "pid": seen.process.pid if seen.process else None,
        "started_by": ("start" if seen.is_ours else "other") if is_running else None,
    }
