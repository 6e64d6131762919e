"""Reading one item of a report list: everything that can be said against it before the database is asked.

An item is foreign text of any kind. What comes out is either a report whose data fit its kind, or a refusal with a
reason; never an exception. A refused item keeps its number where it can be read, so that it is not missed as well.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fleet import canonical, clock, errors, names, runs
from fleet.contracts.containers import Container
from fleet.contracts.governed import Accepted, Approved, Ended, Expired, Rejected, Said, Started, Waiting
from fleet.contracts.hosts import Facts
from fleet.contracts.reports import LARGEST, Kind, Queued, Report
from fleet.contracts.secrets import SecretsWanted
from fleet.security import signing
from fleet.security.keys import PUBLIC_KEY

#: Twice the largest honest report (a full inventory of some thousand containers), since it is text within JSON here.
LARGEST_ITEM = 2 * 4 * 1024 * 1024 + 1024
#: How much of a refused item is kept as evidence.
_EXCERPT = 200
_CONTAINERS = TypeAdapter(tuple[Container, ...])
_IDS = TypeAdapter(tuple[str, ...])
#: As in `fleet.contracts.control.CancelRun`.
_LONGEST_REASON = 1024


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The checked data of an inventory report."""

    containers: tuple[Container, ...]
    removed: tuple[str, ...] = ()


class Registered(BaseModel):
    """The checked data of `host.registered`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: None from a host that is not listed
    facts: Facts | None
    #: whether it says nothing of itself while it works
    unlisted: bool = False
    #: None from workers that do not say
    journal: str | None = Field(None, max_length=36)
    unfinished: frozenset[str] | None = None


class OfferedKey(BaseModel):
    """The checked data of `host.key_offered`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(pattern=PUBLIC_KEY)
    broker_hash: str = Field(pattern=r"^[0-9a-f]{64}$")


class TakenCredential(BaseModel):
    """The checked data of `host.credential_taken`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(pattern=PUBLIC_KEY)


#: What the data of some kinds of reports are checked as.
Payload = Registered | Inventory | OfferedKey | TakenCredential | SecretsWanted | Said | None


_MODELS: Mapping[Kind, type[BaseModel]] = {
    Kind.HOST_REGISTERED: Registered,
    Kind.HOST_KEY_OFFERED: OfferedKey,
    Kind.HOST_CREDENTIAL_TAKEN: TakenCredential,
    Kind.SECRETS_WANTED: SecretsWanted,
    Kind.RUN_ACCEPTED: Accepted,
    Kind.RUN_AWAITING_APPROVAL: Waiting,
    Kind.RUN_APPROVED: Approved,
    Kind.RUN_REJECTED: Rejected,
    Kind.RUN_EXPIRED: Expired,
    Kind.SESSION_STARTED: Started,
    Kind.SESSION_ENDED: Ended,
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One item, read. Without a report `reason` and `evidence` say why."""

    report: Report | None = None
    payload: Payload = None
    epoch: int = 0
    seq: int = 0
    #: of the item, in bytes
    size: int = 0
    reason: str = ""
    evidence: dict[str, Any] | None = None


def read(item: bytes, sender: str, keys: Iterable[str]) -> list[Reading]:
    """Read one item of the sender's list, which holds reports that one of these public keys has signed."""
    if len(item) > LARGEST_ITEM:
        return [_refused(item, "too large", f"{len(item)} bytes; {LARGEST_ITEM} is the most")]
    try:
        reports = signing.check_reports(item, sender, keys)
    except errors.NotTrusted as exc:
        return [_refused(item, "not signed by its sender", exc.message)]
    return [_read_report(report.encode("utf-8", "replace"), sender) for report in reports]


def places(item: bytes) -> int:
    """Return how many reports an item holds that has been read."""
    return len(json.loads(item)["reports"])


def _read_report(item: bytes, sender: str) -> Reading:
    try:
        report = Report.model_validate_json(item)
    except ValidationError as exc:
        epoch, seq = _number(item, sender)
        return _refused(item, "not a report", _complaint(exc), epoch=epoch, seq=seq)
    if report.sender != sender:
        return _refused(item, "speaks for another sender", report.sender)
    try:
        clock.from_unix(report.at)
        plain = report.model_copy(update={"data": canonical.plain(report.data)})
        read_data = _from_principal if sender.startswith("p:") else _from_host
        payload = read_data(plain, sender)
    except ValidationError as exc:
        return _refused(item, "data do not fit", _complaint(exc), epoch=report.epoch, seq=report.seq)
    except (errors.InvalidValue, ValueError, OverflowError, OSError) as exc:
        # the latter three are what a moment beyond the calendar raises
        return _refused(item, "data do not fit", str(exc), epoch=report.epoch, seq=report.seq)
    return Reading(report=plain, payload=payload, epoch=report.epoch, seq=report.seq, size=len(item))


def _from_principal(report: Report, sender: str) -> Payload:
    if report.kind is Kind.RUN_CANCEL_REQUESTED:
        names.host_of_run(report.run or "")
        reason = report.data.get("reason", "")
        if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
            raise ValueError(f"reason: a text of {_LONGEST_REASON} characters at most")
        return None
    if report.kind is not Kind.RUN_QUEUED:
        raise ValueError(f"a principal reports run.queued and run.cancel_requested, not {report.kind}")
    queued = Queued.model_validate(report.data)
    if names.host_of_run(report.run or "") != queued.host:
        raise ValueError(f"the run {report.run} is not for host {queued.host}")
    if names.principal_sender(queued.submitted_by) != sender:
        raise ValueError(f"submitted by {queued.submitted_by}")
    for moment in (queued.submitted_at, queued.not_after, queued.not_before):
        if moment is not None:
            clock.from_unix(moment)
    return None


def _from_host(report: Report, sender: str) -> Payload:
    if report.seq < 1:
        raise ValueError("a host's report has a number, from 1")
    if report.kind in {Kind.RUN_QUEUED, Kind.RUN_CANCEL_REQUESTED}:
        raise ValueError(f"{report.kind} is a principal's to say")
    if report.kind in runs.KINDS and names.host_of_run(report.run or "") != sender:
        raise ValueError(f"the run {report.run} is another host's")
    if report.kind is Kind.SECRETS_WANTED and names.host_of_run(report.run or "") != sender:
        raise ValueError(f"the run {report.run} is another host's")
    if model := _MODELS.get(report.kind):
        return model.model_validate(report.data)  # type: ignore[return-value]  # each of `_MODELS` is one of `Payload`
    if report.kind is Kind.INVENTORY_SYNCED:
        return Inventory(containers=_CONTAINERS.validate_python(report.data.get("containers")))
    if report.kind is Kind.INVENTORY_CHANGED:
        return Inventory(
            containers=_CONTAINERS.validate_python(report.data.get("changed", [])),
            removed=_IDS.validate_python(report.data.get("removed", [])),
        )
    return None


def _number(item: bytes, sender: str) -> tuple[int, int]:
    """Return epoch and seq of something that is no report, a newer version's perhaps; (0, 0) where it has none."""
    try:
        found = json.loads(item)
    except (ValueError, RecursionError):
        return 0, 0
    if not isinstance(found, dict) or found.get("sender") != sender:
        return 0, 0
    epoch, seq = found.get("epoch"), found.get("seq")
    numbers = all(type(number) is int and 0 <= number <= LARGEST for number in (epoch, seq))
    return (epoch, seq) if numbers else (0, 0)  # type: ignore[return-value]


def _complaint(exc: ValidationError) -> str:
    first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _refused(item: bytes, reason: str, detail: str, *, epoch: int = 0, seq: int = 0) -> Reading:
    evidence = {
        "detail": canonical.text(detail)[:300],
        "size": len(item),
        "sha256": hashlib.sha256(item).hexdigest(),
        "excerpt": canonical.text(item[:_EXCERPT].decode("utf-8", "replace")),
    }
    return Reading(epoch=epoch, seq=seq, reason=reason, evidence=evidence)
