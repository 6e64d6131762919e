"""The pipeline: how an admitted run is carried out, on a pool thread.

    claim → perform → finish

The claim is durable before any effect; what happens afterwards, reply or error, is written into the journal together
with its report. An error of any kind ends as `run.failed`, never as a run that nobody hears of again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from celery import Celery, Task

from fleet import errors, logs
from fleet.contracts import AnyContract, Performer, registry
from fleet.contracts.contract import Reply
from workers.host.journal import Claim, Journal

log = logs.get(__name__)

#: Inline results travel through the broker and into the ledger.
MAX_REPLY_BYTES = 256 * 1024
#: Progress is sent this often at most.
PROGRESS_INTERVAL_SECONDS = 1.0
#: Messages of errors are for people; a page of one is enough.
MAX_ERROR_CHARACTERS = 4000


class HasDocker(Protocol):
    @property
    def docker(self) -> Any: ...


@dataclass
class Run:
    """What a performer is told of its run; fulfils `fleet.contracts.RunContext`."""

    run_id: str
    host: str
    attempt: int
    description: str
    metadata: Mapping[str, Any]
    submitted_by: str
    _claim: Claim
    _journal: Journal
    _engine: HasDocker
    _progressed_at: float = field(default=float("-inf"))

    @property
    def docker(self) -> Any:
        return self._engine.docker

    def progress(self, step: str, percent: float | None = None) -> None:
        now = time.monotonic()
        if now - self._progressed_at >= PROGRESS_INTERVAL_SECONDS:
            self._progressed_at = now
            self._journal.progress(self._claim, step=step, percent=percent)


class Pipeline:
    """Carries out claimed runs with the performers of this host."""

    def __init__(self, *, host: str, journal: Journal, performers: Mapping[str, Performer], engine: HasDocker) -> None:
        self._host = host
        self._journal = journal
        self._performers = performers
        self._engine = engine

    def carry_out(self, run_id: str, arguments: Mapping[str, Any]) -> None:
        """Carry out one run, once; raises the error it ended with, which is in the journal by then."""
        claim = self._journal.claim(run_id)
        if claim is None:
            return
        contract = registry.get(claim.task)
        started = time.monotonic()
        try:
            reply = self._perform(contract, claim, arguments)
        except errors.FleetError as exc:
            kind = exc.kind if isinstance(exc, errors.TaskFailed) else exc.code
            self._fail(claim, kind, str(exc), started)
            raise
        except BaseException as exc:  # a performer may raise anything; its run must end all the same
            log.exception("run.broken", run=run_id, task=claim.task)
            self._fail(claim, "internal_error", f"{type(exc).__name__}: {exc}", started)
            raise errors.TaskFailed(f"{type(exc).__name__}: {exc}", kind="internal_error") from exc
        self._journal.succeed(claim, reply=reply, duration_seconds=round(time.monotonic() - started, 6))

    def _perform(self, contract: AnyContract, claim: Claim, arguments: Mapping[str, Any]) -> dict[str, Any]:
        envelope = claim.envelope
        run = Run(
            run_id=claim.run_id,
            host=self._host,
            attempt=claim.attempt,
            description=envelope.description,
            metadata=envelope.metadata,
            submitted_by=envelope.submitted_by,
            _claim=claim,
            _journal=self._journal,
            _engine=self._engine,
        )
        reply = self._performers[contract.name](contract.parse(arguments), run)
        if not isinstance(reply, contract.reply):
            raise errors.TaskFailed(
                f"{contract.name} answered {type(reply).__name__}, its contract says {contract.reply.__name__}",
                kind="wrong_reply",
            )
        return _dump(reply)

    def _fail(self, claim: Claim, kind: str, message: str, started: float) -> None:
        self._journal.fail(
            claim,
            kind=kind,
            message=message[:MAX_ERROR_CHARACTERS],
            duration_seconds=round(time.monotonic() - started, 6),
        )


def _dump(reply: Reply) -> dict[str, Any]:
    """Return the reply as JSON values; raises `errors.TaskFailed` for one that is too large to travel."""
    data: dict[str, Any] = reply.model_dump(mode="json")
    size = len(json.dumps(data))
    if size > MAX_REPLY_BYTES:
        raise errors.TaskFailed(f"the reply is {size:,} bytes; {MAX_REPLY_BYTES:,} are allowed", kind="reply_too_large")
    return data


class HostTask(Task):  # type: ignore[type-arg]
    """A contract as a Celery task of the host's side."""

    ignore_result = True  # the outbox writes results, together with the journal
    typing = False
    #: errors that are outcomes, not surprises: Celery must not print their tracebacks
    throws = (errors.FleetError,)

    def __init__(self, contract: AnyContract, pipeline: Pipeline) -> None:
        self.name = contract.name
        self._pipeline = pipeline

    def run(self, *_args: Any, **arguments: Any) -> None:
        self._pipeline.carry_out(str(self.request.id), arguments)


def register(app: Celery, pipeline: Pipeline) -> None:
    """Register a Celery task for every contract known here."""
    for contract in registry.known().values():
        app.register_task(HostTask(contract, pipeline))
