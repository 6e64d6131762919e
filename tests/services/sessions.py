"""Sessions of a host on a journal of their own: the parts that write it, wired as ever, and a clock set by hand."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from fleet import names
from fleet.clock import BrokerClock
from fleet.contracts import Risk
from fleet.contracts.envelope import HEADER, Envelope, Retry
from fleet.contracts.reports import Kind, Report
from fleet.contracts.verdicts import Decision, Told
from workers.host.admission import Accepted, Admissions
from workers.host.claim import Claim
from workers.host.endings import Endings
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.parked import Parked
from workers.host.pruning import Pruning
from workers.host.store import Store
from workers.host.unbegun import Unbegun

HOST = "h1"
#: The journal keeps it with the message, and never looks at it.
HOST_KEY = "k" * 43
TASK = "fleet.host.ping"
#: How a run was judged that waits for approval.
ASKED = Told(
    decision=Decision.ASK,
    reason="needs_approval",
    rule="students ask",
    risk=Risk.READS,
    level="student",
    principal="ann",
    task=TASK,
)


class BrokerTime(BrokerClock):
    """The broker's time, which passes when a test says so, however long the machine takes meanwhile."""

    def __init__(self, at: float = 1_750_000_000.0) -> None:
        super().__init__()
        self.at = at

    def now(self) -> float:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += seconds


class Session:
    """One worker session on a journal file; `open` again with a higher epoch is the next one."""

    def __init__(self, path: Path, *, epoch: int = 1, time: BrokerTime | None = None) -> None:
        self.path = path
        self.epoch = epoch
        self.time = time or BrokerTime()
        self.store = Store(path, host=HOST)
        try:
            self.outbox = Outbox(self.store, host=HOST, epoch=epoch, clock=self.time)
        except BaseException:
            self.store.close()
            raise
        self.unbegun = Unbegun(self.store, self.outbox, clock=self.time)
        self.admissions = Admissions(self.store, self.outbox, unbegun=self.unbegun, clock=self.time)
        self.journal = Journal(self.store, self.outbox, unbegun=self.unbegun, clock=self.time)
        self.endings = Endings(self.store, self.outbox, clock=self.time)
        self.parked = Parked(self.store, self.outbox, clock=self.time)
        self.pruning = Pruning(self.store, clock=self.time)

    def close(self) -> None:
        self.store.close()

    def next(self) -> "Session":
        """End this session and begin the next one on the same file."""
        self.close()
        return Session(self.path, epoch=self.epoch + 1, time=self.time)

    def accept(self, run_id: str | None = None, **wishes: Any) -> str:
        """Accept a run; `wishes` are what `offer` takes, and fields of the envelope."""
        run_id = run_id or names.new_run_id(HOST)
        self.offer(run_id, **wishes)
        return run_id

    def offer(
        self,
        run_id: str,
        *,
        task: str = TASK,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        begin: bool = False,
        max_retries: int = 0,
        approve_within: float | None = None,
        **wishes: Any,
    ) -> Accepted:
        retry = Retry(max_retries=max_retries)
        envelope = Envelope(
            host=HOST, host_key=HOST_KEY, submitted_by="ann", submitted_at=self.time.at, retry=retry, **wishes
        )
        message = item(run_id, arguments, task=task, envelope=envelope)
        return self.admissions.accept(
            run_id,
            task=task,
            envelope=envelope,
            item=message,
            begin=begin,
            verdict=None if approve_within is None else ASKED,
            approve_before=None if approve_within is None else self.time.at + approve_within,
        )

    def begun(self, **wishes: Any) -> Claim:
        """Accept a run and claim it."""
        claim = self.journal.claim(self.accept(**wishes), durable=False)
        assert claim is not None
        return claim

    def reports(self, run_id: str | None = None) -> list[Report]:
        """Return what the outbox holds, of one run or of all, oldest first."""
        with self.store.transaction() as transaction:
            rows = transaction.execute("SELECT report FROM outbox ORDER BY epoch, seq").fetchall()
        found = [Report.model_validate_json(row[0]) for row in rows]
        return [report for report in found if run_id is None or report.run == run_id]

    def kinds(self, run_id: str | None = None) -> list[Kind]:
        return [report.kind for report in self.reports(run_id)]

    def result(self, run_id: str) -> dict[str, Any] | None:
        """Return the result that goes with the run's last report that has one."""
        with self.store.transaction() as transaction:
            row = transaction.execute(
                "SELECT result FROM outbox WHERE run_id = ? AND result IS NOT NULL ORDER BY epoch DESC, seq DESC",
                (run_id,),
            ).fetchone()
        return json.loads(row[0]) if row else None

    def rows(self, columns: str, condition: str = "1", values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return columns of the journal's rows."""
        with self.store.transaction() as transaction:
            found = transaction.execute(f"SELECT {columns} FROM journal WHERE {condition}", values).fetchall()
        return [tuple(row) for row in found]


def item(
    run_id: str,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    *,
    task: str = TASK,
    envelope: Envelope | None = None,
) -> str:
    """Return a queue item of the run."""
    headers = {"id": run_id, "task": task, HEADER: envelope.model_dump(mode="json") if envelope else {}}
    return json.dumps({"headers": headers, "body": json.dumps([[], dict(arguments), {}])})


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal file as it lies there, past everything that a session does at its start."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


@pytest.fixture
def time() -> BrokerTime:
    """The broker's time, at its beginning."""
    return BrokerTime()


@pytest.fixture
def session(tmp_path: Path, time: BrokerTime) -> Iterator[Session]:
    """The first session on a new journal."""
    opened = Session(tmp_path / "journal.db", time=time)
    yield opened
    opened.close()
