"""Fleet as the subject: control worker and host workers as processes of their own, on a broker of their own."""

import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from sqlmodel import col, select

from fleet import db, errors, names
from fleet.contracts import registry
from fleet.models import Run
from fleet.runs import is_final
from tests.chaos.servers import Server
from tests.chaos.tally import Tally, effects, wait_for_effect
from tests.services.offered import PATH
from tests.services.system import Part, System
from tests.services.waiting import until

#: How long a run may take to end once everything is mended, before it counts as lost.
PATIENCE = 90.0
#: What no run may have had an effect in.
_NEVER_RAN = frozenset({"rejected", "expired"})


class Arena:
    """One fleet: a broker, a database, a control worker, and hosts as they are asked for."""

    def __init__(self, directory: Path, server: Server, database_url: str, **environment: str) -> None:
        self.server = server
        self.directory = directory
        self.environment = environment
        engine = db.open_engine(database_url)
        db.migrate(engine)
        self.system = System(directory, server.broker, database_url, engine, packages=[PATH])
        self.control: Part | None = None
        self._lock = threading.Lock()

    def start_control(self) -> None:
        self.control = self.system.run("control", **self.environment)
        with self.server.broker.connect() as client:
            until(lambda: client.exists(names.CONTROL_LEASE), "a control worker holds the lease", timeout=30)

    def kill_control(self) -> None:
        assert self.control is not None
        kill(self.control)

    def host(self, name: str, **environment: str) -> "Host":
        """Enroll a host; its worker is not started yet."""
        with self._lock:  # enrollment reads settings of this process
            self.system.enroll(name)
        return Host(self, name, environment)

    def states(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Return the ledger's word on these runs."""
        wanted = list(run_ids)
        with db.session(self.system.engine, write=False) as session:
            rows = session.exec(select(Run.id, Run.state).where(col(Run.id).in_(wanted))).all()
        return {run: state for run, state in rows}  # noqa: C416 - rows, not pairs

    def end(self) -> None:
        self.system.end()
        self.system.engine.dispose()


class Host:
    """One host of an arena, with its own log of effects; `pushed` remembers what was asked of it."""

    def __init__(self, arena: Arena, name: str, environment: Mapping[str, str]) -> None:
        self.arena = arena
        self.name = name
        self.environment = dict(environment)
        self.log = arena.directory / f"effects-{name}"
        self.part: Part | None = None
        self.attempted = 0
        #: run id → whether it may have its effect twice
        self.pushed: dict[str, bool] = {}
        #: runs that are not expected to succeed
        self.may_fail: set[str] = set()
        self.prefix: list[str] = []

    def start(self) -> float:
        """Start its worker, and return when that was."""
        begun = time.monotonic()
        self.part = self.arena.system.run("worker", "--host-id", self.name, prefix=self.prefix, **self.environment)
        return begun

    def start_and_wait(self) -> None:
        """Start its worker, and wait until it is connected."""
        known = self.arena.system.heartbeat(self.name)
        self.start()
        part = self.part

        def connected() -> bool:
            assert part is not None
            assert part.process.poll() is None, part.log.read_text()
            beat = self.arena.system.heartbeat(self.name)
            return beat is not None and (known is None or beat.epoch > known.epoch)

        until(connected, f"{self.name} is connected", timeout=60)

    def kill(self) -> None:
        """kill -9 of the worker's process group. Supervisors have sessions of their own and go on."""
        assert self.part is not None
        kill(self.part)

    def kill_everything(self) -> None:
        """kill -9 of the worker and of every process that it ever started: the machine goes down."""
        self.kill()
        for process in self.runs():
            with suppress(psutil.Error):  # it ends by itself
                process.kill()
                process.wait(5)

    def runs(self) -> list[psutil.Process]:
        """Return supervisors of this host, and what they started."""
        return supervisors(self.arena.directory / "hosts" / self.name)

    def push(self, name: str = "effect", *, wait: bool = False, **arguments: Any) -> str | None:
        """Push one run; return its id, None where the push was an error."""
        options = {key: arguments.pop(key) for key in ("expires", "time_limit") if key in arguments}
        self.attempted += 1
        contract = f"offered.{name}"
        try:
            task = self.arena.system.fleet.dispatcher.task(contract)
            result = task.apply_async(
                kwargs={"log": str(self.log), **arguments}, host=self.name, offline="queue", **options
            )
        except errors.FleetError:
            return None
        self.pushed[result.id] = registry.get(contract).idempotent
        if wait:
            until(lambda: self.arena.states([result.id]), "the push is recorded", timeout=30)
        return str(result.id)

    def push_many(self, count: int, random_: random.Random, *, longest: float = 0.2) -> list[str]:
        """Push runs of all kinds and lengths."""
        runs = []
        for _ in range(count):
            name = "again" if random_.random() < 0.3 else "effect"
            seconds = random_.uniform(0, longest)
            if run := self.push(name, seconds=seconds):
                runs.append(run)
        return runs

    def effects(self) -> int:
        return sum(effects(self.log).values())

    def wait_for_effect(self, since: float, *, more_than: int, timeout: float = 30.0) -> float | None:
        """Return how many seconds after `since` there were more effects than that; None where none came in time."""
        return wait_for_effect(self, since, more_than=more_than, timeout=timeout)

    def judge(self, *, patience: float = PATIENCE) -> Tally:
        """Wait for the ends of all that was pushed, and count."""
        deadline = time.monotonic() + patience
        while True:
            states = self.arena.states(self.pushed)
            open_ = [run for run in self.pushed if not is_final(states.get(run, "queued"))]
            if not open_ or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        lines = effects(self.log)
        tally = Tally(attempted=self.attempted, acknowledged=len(self.pushed), lost=len(open_))
        for run in open_:
            tally.notes.append(f"{run} is {states.get(run, 'not recorded')}, {lines[run]} effects: {self._story(run)}")
        for run, may_repeat in self.pushed.items():
            state, count = states.get(run, ""), lines[run]
            tally.ok += state == "succeeded" and count == 1
            tally.unknown += state == "unknown"
            tally.duplicated += count > 1 and not may_repeat
            wrong = state == "failed" and run not in self.may_fail
            wrong |= (state == "succeeded" and not count) or (state in _NEVER_RAN and count > 0)
            tally.wrong += wrong
            if wrong or (count > 1 and not may_repeat):
                tally.notes.append(f"{run} is {state}, {count} effects: {self._story(run)}")
        return tally

    def _story(self, run: str) -> str:
        """Return what the audit and the host's journal have of a run."""
        life = [
            f"{event.event}#{event.data.get('attempt', '')}@{event.epoch} {event.data.get('message', '')}"
            for event in self.arena.system.life(run)
        ]
        path = self.arena.directory / "hosts" / self.name / "journal.db"
        with closing(sqlite3.connect(path)) as journal:
            rows = journal.execute(
                "SELECT attempt, state, outcome, handed_over FROM journal WHERE run_id = ?", (run,)
            ).fetchall()
        return f"audit {life}, journal {rows}"


def kill(part: Part) -> None:
    """kill -9 of a part's process group."""
    with suppress(ProcessLookupError):
        os.killpg(part.process.pid, signal.SIGKILL)
    part.process.wait()


@contextmanager
def arena(*, database_url: str | None = None, directory: Path | None = None, **options: Any) -> Iterator[Arena]:
    """Make a fleet, and leave nothing of it behind."""
    with ExitStack() as stack:
        made = directory or Path(tempfile.mkdtemp(prefix="fleet-chaos-"))
        if directory is None:
            stack.callback(shutil.rmtree, made, ignore_errors=True)
        server = Server(made / "broker", **options)
        stack.callback(server.end)
        fleet = Arena(made, server, database_url or f"sqlite:///{made / 'fleet.db'}")
        stack.callback(_end_runs, made)
        stack.callback(fleet.end)
        fleet.start_control()
        yield fleet


def _end_runs(directory: Path) -> None:
    for process in supervisors(directory):
        with suppress(psutil.Error):
            process.kill()


def supervisors(directory: Path) -> list[psutil.Process]:
    """Return the supervisors whose spools lie below a directory, and what they started."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "fleet-run":
                held = (each.readlink() for each in Path(f"/proc/{process.pid}/fd").iterdir())
                if any(path.is_relative_to(directory) for path in held):
                    found += [process, *process.children(recursive=True)]
        except (psutil.Error, OSError):
            continue
    return found
