"""The health endpoint of a worker or a control worker: where it listens, what it answers, and how it is found.

`/health`, `/health/live` and `/health/ready` answer the three questions of `fleet.health`, with 200 or 503 and the
reasons in JSON. The address in use lies in a file in the state directory, with the process that listens there: what a
killed one leaves is recognized.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from fleet import errors, listening, logs
from fleet.health import Look, Question
from fleet.listening import Listening
from fleet.local.incarnation import Incarnation

if TYPE_CHECKING:  # whoever only looks for an address needs no server
    from fleet.local.pages import Page, Pages, PageServer

log = logs.get(__name__)

#: In the directory of a host, and in the state directory.
WORKER_FILE = "worker.health"
CONTROL_FILE = "control.health"
PATHS = {Question.HEALTHY: "/health", Question.LIVE: "/health/live", Question.READY: "/health/ready"}
#: What listens on all addresses is found on loopback.
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognized, not listened on


@dataclass(frozen=True, kw_only=True)
class Found:
    """Who listens, and where on this machine."""

    process: Incarnation
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{listening.write(self.host, self.port)}"


def find(file: Path) -> Found | None:
    """Return what the file says, as far as that process lives; None otherwise."""
    found = _read(file)
    return found if found and found.process.is_alive() else None


@contextmanager
def serve(
    wish: Listening | None, *, look: Look, file: Path, pages: "Pages | None" = None
) -> Iterator[Callable[[], None]]:
    """Answer for as long as the block lasts, on the address that was asked for; None for nowhere.

    `pages` are served beside it. It gives a function that logs where it listens, for when the process has started: one
    that cannot start says nothing but why. Where the usual port is taken, a free one of loopback is listened on; raises
    `errors.LocalFault` where somebody insists on an address that cannot be.
    """
    if wish is None:
        yield lambda: None
        return
    served = {path: _answer(look, question) for question, path in PATHS.items()}
    server = _listen(wish, {**served, **(pages or {})})
    server.start()
    process = Incarnation.of(os.getpid())
    assert process is not None
    found = Found(process=process, host=_ANYWHERE.get(wish.host, wish.host), port=server.port)
    moved = {"instead_of": str(wish)} if wish.port not in {0, found.port} else {}
    try:
        with _recorded(file, found):
            yield lambda: log.info("health.served", url=found.url, **moved)
    finally:
        server.stop()


def _listen(wish: Listening, pages: "Pages") -> "PageServer":
    from fleet.local.pages import PageServer

    try:
        return PageServer(wish.host, wish.port, pages)
    except OSError as exc:
        why = exc.strerror or str(exc)
        if wish.insisted:
            raise errors.LocalFault(
                f"health: cannot listen on {wish} ({why})",
                remedy="name an address of this machine and a free port in FLEET_HEALTH_ADDRESS (port 0: any), or off",
            ) from exc
    try:
        return PageServer(wish.host, 0, pages)
    except OSError as exc:
        raise errors.LocalFault(
            f"health: cannot listen on {wish.host} ({exc.strerror or exc})",
            remedy="this machine has no loopback; FLEET_HEALTH_ADDRESS names another address, or off",
        ) from exc


def _answer(look: Look, question: Question) -> "Callable[[], Page]":
    def answer() -> "Page":
        from fleet.local.pages import Page

        health = look()
        well = health.answers(question)
        return Page(
            body=(json.dumps({"ok": well, "asked": question.value, **health.to_wire()}) + "\n").encode(),
            content_type="application/json",
            status=HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE,
        )

    return answer


@contextmanager
def _recorded(file: Path, found: Found) -> Iterator[None]:
    """Have the file for the block. Without one `fleet health` asks the broker, so a full disk stops nobody."""
    from fleet import credentials

    text = json.dumps({"host": found.host, "port": found.port, "process": asdict(found.process)}) + "\n"
    try:
        credentials.write_private(file, text, what="address of the health endpoint", remedy="make room or permit it")
    except errors.LocalFault as exc:
        log.warning("health.unrecorded", error=str(exc), next="`fleet health` does not find it, and asks the broker")
    try:
        yield
    finally:
        with suppress(OSError):  # a stale one is recognized
            if _read(file) == found:  # and not the one of a worker that has begun since
                file.unlink(missing_ok=True)


def _read(file: Path) -> Found | None:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        process = said["process"]
        incarnation = Incarnation(pid=int(process["pid"]), ticks=int(process["ticks"]), boot=str(process["boot"]))
        return Found(process=incarnation, host=str(said["host"]), port=int(said["port"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
