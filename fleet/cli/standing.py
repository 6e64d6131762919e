"""Standing: what a principal may approve and its record, as people and programs read them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fleet.cli import when

if TYPE_CHECKING:
    from sqlmodel import Session


def record(session: "Session", name: str) -> dict[str, Any]:
    """Return a principal's record for programs."""
    from fleet import records

    return asdict(records.of(session, name))


def rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a record (`record`) as labels and values for people."""
    if not found["runs"]:
        return [("Record", "it has pushed nothing yet")]
    ended = _counted(found, "succeeded", "failed", "cancelled", "unknown", "rejected")
    refused = f"{found['denied_by_policy']} of its commands and files" if found["denied_by_policy"] else "nothing"
    answers = _counted(found, "waiting", "approved", "denied", "expired")
    return [
        ("Runs", f"{found['runs']:,}{ended}"),
        ("Denied by hosts", refused),
        ("Asked approval", f"{found['asked']:,}{answers}" if found["asked"] else "never"),
        ("First run", str(when.both(found["since"]))),
        ("Newest run", str(when.both(found["last"]))),
    ]


def repeats(max_retries: int) -> list[tuple[str, str]]:
    """Return what whoever approves has to know of a run that is begun again after it failed."""
    if not max_retries:
        return []
    return [("Repeats", f"after a failure, up to {max_retries} times, by the same approval")]


def risks(approves: Sequence[str]) -> str:
    """Return risks in one word where that can be: `all`, `none`, or them with commas."""
    from fleet.contracts import Risk

    return "all" if set(approves) == set(Risk) else ",".join(approves) or "none"


def _counted(found: Mapping[str, Any], *words: str) -> str:
    told = ", ".join(f"{found[word]:,} {word}" for word in words if found[word])
    return f" ({told})" if told else ""
