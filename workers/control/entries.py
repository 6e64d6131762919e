"""Entries: what the audit keeps of each step that the control plane records.

Of a report it keeps all, but for what the run's row holds and may be large or private; of what is large or refused,
enough to recognise it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from fleet import audit, canonical, clock, runs
from fleet.contracts.reports import Kind, Report
from fleet.models import Run, RunState
from fleet.runs import CancelRequest
from workers.control.reading import Reading

#: Refusals recorded one by one in a batch; the rest of a flood is counted.
_MOST_REFUSALS = 10
#: Bytes of a report's data that the audit keeps; of longer data size and digest.
_MOST_DATA = 16 * 1024
#: Of an approval, with the word as it was signed (32 KiB at most, by `workers.host.control`): it has to stay on record.
_MOST_OF_APPROVAL = 128 * 1024


def of_report(report: Report, host: str, *, size: int, data: Mapping[str, Any] | None = None) -> audit.Entry:
    """Return the entry of a report that came as an item of `size` bytes; `data` instead of its own."""
    return audit.Entry(
        event=report.kind.value,
        actor=report.sender,
        host_id=host,
        run_id=report.run if report.kind in runs.KINDS else None,
        occurred_at=clock.from_unix(report.at),
        epoch=report.epoch,
        seq=report.seq,
        data=_bounded(
            _told(report) if data is None else data,
            size,
            most=_MOST_OF_APPROVAL if report.kind is Kind.RUN_APPROVED else _MOST_DATA,
        ),
    )


def of_cancel(request: CancelRequest, *, size: int) -> audit.Entry:
    """Return the entry of a request to cancel, with what it met."""
    report = request.report
    data = {"reason": report.data.get("reason", ""), "state": request.state, "counts": request.first}
    return of_report(report, host_of(report.run or ""), size=size, data=data)


def of_ended(run: Run) -> audit.Entry:
    """Return the entry of a run that the control plane has ended."""
    data = {**(run.error or {}), "attempt": run.attempt}
    return _by_control(f"run.{run.state}", run.id, data)


def of_settled(run_id: str, state: RunState) -> audit.Entry:
    """Return the entry of a run that was unknown until a late report of its host."""
    return _by_control("run.settled", run_id, {"was": RunState.UNKNOWN, "is": state})


def of_requeued(run_id: str, state: RunState, attempt: int) -> audit.Entry:
    """Return the entry of a run that its host has forgotten, with where it was."""
    data = {"state": state, "attempt": attempt, "reason": "its host does not have it any more"}
    return _by_control("run.requeued", run_id, data)


def of_sent_again(run: Run) -> audit.Entry:
    """Return the entry of a message that is sent again."""
    data = {"attempt": run.attempt, "reason": "its message was in no list of its host"}
    return _by_control("run.sent_again", run.id, data)


def of_stranger(sender: str, count: int) -> audit.Entry:
    """Return the entry of reports of a host that is not a member."""
    data = {"reason": "the host is not enrolled", "count": count}
    return audit.Entry(event="report.refused", actor="control", host_id=sender, data=data)


def of_gap(host: str, epoch: int, first: int, last: int) -> audit.Entry:
    """Return the entry of numbers that are missing in a host's reports."""
    data = {"first": first, "last": last}
    return audit.Entry(event="report.missing", actor="control", host_id=host, epoch=epoch, seq=last, data=data)


def of_refusals(sender: str, refused: Sequence[Reading]) -> list[audit.Entry]:
    """Return the entries of refused items of one batch: a bounded number, whatever came."""
    entries = [
        of_refusal(sender, found.epoch, found.seq, {"reason": found.reason, **(found.evidence or {})})
        for found in refused[:_MOST_REFUSALS]
    ]
    if len(refused) > _MOST_REFUSALS:
        data = {"reason": "more of the kind", "count": len(refused) - _MOST_REFUSALS}
        entries.append(of_refusal(sender, 0, 0, data))
    return entries


def of_refusal(sender: str, epoch: int, seq: int, data: Mapping[str, Any]) -> audit.Entry:
    """Return the entry of one refused item."""
    host = None if sender.startswith("p:") else sender
    told = {"sender": sender, **data}
    return audit.Entry(event="report.refused", actor="control", host_id=host, epoch=epoch, seq=seq, data=told)


def host_of(run_id: str) -> str:
    """Return the host in a run id that has been checked."""
    return run_id.partition(":")[0]


def _by_control(event: str, run_id: str, data: Mapping[str, Any]) -> audit.Entry:
    return audit.Entry(event=event, actor="control", host_id=host_of(run_id), run_id=run_id, data=data)


def _told(report: Report) -> Mapping[str, Any]:
    data = dict(report.data)
    if report.kind is Kind.RUN_QUEUED:
        del data["arguments"]
        data["message_sha256"] = hashlib.sha256(data.pop("message").encode()).hexdigest()
    elif report.kind is Kind.HOST_REGISTERED and isinstance(data.get("unfinished"), list):
        data["unfinished"] = len(data["unfinished"])
    elif report.kind is Kind.SECRETS_WANTED:
        data = {"message_sha256": hashlib.sha256(str(data["message"]).encode()).hexdigest()}
    elif report.kind is Kind.SESSION_ENDED:
        # what a program wrote is in its session's row, which can be pruned; sizes and digests are for good
        data = {key: value for key, value in data.items() if key not in {"stdout", "stderr"}}
    elif report.kind is Kind.RUN_SUCCEEDED:
        data["reply_sha256"] = hashlib.sha256(canonical.encode(data.pop("reply", None))).hexdigest()
    if report.attempt is not None:
        data["attempt"] = report.attempt
    return data


def _bounded(data: Mapping[str, Any], size: int, *, most: int) -> Mapping[str, Any]:
    """Return data, or what identifies them where they are large; they come from an item of `size` bytes."""
    if size * 6 <= most:  # a character grows to six at most (\\u0000)
        return data
    encoded = canonical.encode(canonical.plain(dict(data)))
    if len(encoded) <= most:
        return data
    return {"truncated": True, "size": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()}
