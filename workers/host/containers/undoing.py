"""Undoing: what a run that failed had made is removed again, also where the Engine or the worker is away by then.

A run that begins to make something is written down until it has, or has been undone; the rest is found by the run's
label. Where the Engine does not answer, it is tried again until it does, in this session or the next. An Engine that
was slow to answer may finish what it was asked for later: it is watched for a while.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from fleet import credentials, errors, logs
from fleet.contracts.containers import Label
from workers.host.containers import replacing, volumes
from workers.host.containers.building import Owner
from workers.host.containers.engine import Engine
from workers.host.containers.listing import ids_of_run

log = logs.get(__name__)

_LOOK_AGAIN = timedelta(seconds=2)
#: An Engine that answers again has done by then what it was asked for before.
_LATE_SECONDS = 120.0


class Discards(Protocol):
    """Keeps secrets of runs."""

    def discard(self, run_id: str) -> None: ...


@dataclass(frozen=True)
class Task:
    """What a run was to make, as far as that has to be known to undo it."""

    run_id: str
    name: str
    #: only the former container is left to be removed: the new one has taken its place
    replaced: bool = False


class _Hold:
    """The lock of one run, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0


class Undoing:
    """Undoes, now or later. Thread-safe; one run is undone by one thread at a time."""

    def __init__(self, engine: Engine, directory: Path, *, secrets: Discards | None = None) -> None:
        self._engine = engine
        self._directory = directory
        self._secrets = secrets
        #: for what waits and the notes; never held while the Engine is asked
        self._lock = threading.Lock()
        #: run id → who acts on it, while somebody does
        self._holds: dict[str, _Hold] = {}
        #: what is to be undone, and since when the Engine has answered (monotonic); None while it does not
        self._waiting: dict[str, tuple[Task, float | None]] = {}
        self._changed = threading.Event()
        self._stopping = False
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="undoing", daemon=True)

    def take_up(self, *, except_for: Collection[str]) -> None:
        """Have undone what former sessions left, but for runs that this one settles by itself."""
        for path in sorted(self._directory.glob("*.json")):
            task = self._read(path)
            if task is not None and task.run_id not in except_for:
                self._waiting[task.run_id] = (task, None)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        self._stopping = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())
        else:
            self.stopped.set()

    def undo(self, task: Task) -> None:
        """Remove all that a run has made; raises the Engine's errors.

        Where the Engine refuses a step, the others are done all the same, and the first refusal is raised.
        """
        with self._only_one(task.run_id):
            owner = Owner("", task.run_id, "")
            if task.replaced:
                self._remove_replaced(owner)
                return
            news = ids_of_run(self._engine, task.run_id)
            steps: list[Callable[[], object]] = [
                partial(replacing.give_back, self._engine, news, owner, task.name),
                *(partial(replacing.remove, self._engine, new) for new in news),
                lambda: volumes.remove_unused(self._engine, volumes.of_run(self._engine, task.run_id)),
            ]
            if self._secrets is not None:
                steps.append(partial(self._secrets.discard, task.run_id))
            refused = [problem for step in steps if (problem := _refusal(step))]
            if refused:
                raise refused[0]

    def _remove_replaced(self, owner: Owner) -> None:
        old = replacing.look(self._engine, replacing.name_of_old(owner))
        if old is not None:
            replacing.remove(self._engine, old["Id"])
            run_id = (old["Config"].get("Labels") or {}).get(Label.RUN)
            if self._secrets is not None and run_id and not ids_of_run(self._engine, run_id):
                self._secrets.discard(run_id)

    def begin(self, task: Task) -> None:
        """Write down that a run makes something from now on; raises `errors.LocalFault`.

        `done` comes next, or `undo` and `done`; or `later`. Waits where the run is being undone.
        """
        with self._only_one(task.run_id), self._lock:
            self._waiting.pop(task.run_id, None)
            self._note(task)

    def later(self, task: Task) -> None:
        """Undo it as soon as the Engine answers, and look again for what comes late."""
        with self._lock:
            self._waiting[task.run_id] = (task, None)
        log.warning("undo.deferred", run=task.run_id, next="what it made is removed when the Engine answers")
        self._changed.set()

    def replaced(self, task: Task) -> None:
        """What the run has made stays: only have the one removed whose place it has taken; raises `LocalFault`."""
        only_old = replace(task, replaced=True)
        with self._lock:
            self._note(only_old)
            self._waiting[task.run_id] = (only_old, None)
        self._changed.set()

    def abandoned(self, run_id: str) -> None:
        """Undo what a run has begun of which nobody knows the end, where it has begun to make something."""
        task = self._read(self._path(run_id))
        if task is not None:
            self.later(task)

    def done(self, run_id: str) -> None:
        """Leave alone what a run has made."""
        with self._only_one(run_id), self._lock:
            self._waiting.pop(run_id, None)
            self._path(run_id).unlink(missing_ok=True)

    def look(self) -> None:
        """Undo what waits for that."""
        with self._lock:
            waiting = list(self._waiting.values())
        for each in waiting:
            with self._only_one(each[0].run_id):
                self._look_at(*each)

    def _look_at(self, task: Task, answers_since: float | None) -> None:
        with self._lock:
            if self._waiting.get(task.run_id) != (task, answers_since):
                return  # the run has been begun again meanwhile, or has been done
        since: float | None = None
        try:
            self.undo(task)
        except errors.EngineUnavailable:
            pass
        except errors.FleetError as exc:
            log.warning("undo.failed", run=task.run_id, error=str(exc), next="it is tried again")
        else:
            since = answers_since or time.monotonic()
            if task.replaced or time.monotonic() - since >= _LATE_SECONDS:
                self.done(task.run_id)
                log.info("undo.done", run=task.run_id)
                return
        with self._lock:
            self._waiting[task.run_id] = (task, since)

    def _run(self) -> None:
        while True:
            self._changed.clear()
            if self._stopping:
                break
            try:
                self.look()
            except Exception:  # whatever one run's leftovers do, the others' are looked after
                log.exception("undo.broken")
            self._changed.wait(_LOOK_AGAIN.total_seconds() if self._waiting else None)
        self.stopped.set()

    @contextmanager
    def _only_one(self, run_id: str) -> Iterator[None]:
        """Let one thread at a time act on a run, and no run wait for the Engine's answer about another."""
        with self._lock:
            hold = self._holds.setdefault(run_id, _Hold())
            hold.users += 1
        try:
            with hold.lock:
                yield
        finally:
            with self._lock:
                hold.users -= 1
                if not hold.users:
                    del self._holds[run_id]

    def _path(self, run_id: str) -> Path:
        return self._directory / f"{run_id.rpartition(':')[2]}.json"

    def _note(self, task: Task) -> None:
        credentials.write_private(
            self._path(task.run_id), json.dumps(asdict(task)), what="note of a run", remedy="free some space"
        )

    @staticmethod
    def _read(path: Path) -> Task | None:
        try:
            return Task(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as exc:
            log.warning("undo.unreadable", path=str(path), error=str(exc), next="look for what it made by yourself")
            return None


def _refusal(step: Callable[[], object]) -> errors.EngineRefused | None:
    """Take a step; return why the Engine refuses it, None where it does not."""
    try:
        step()
    except errors.EngineRefused as exc:
        return exc
    return None
