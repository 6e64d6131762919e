"""Attending: staying with what was pushed, for commands that are one task on a few hosts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fleet import errors
from fleet.cli import outcomes, progress, render, shapes

if TYPE_CHECKING:
    from fleet.client import Batch, Fleet, Outcome
    from fleet.contracts import AnyContract


@contextmanager
def pushed(
    fleet: "Fleet", contract: "AnyContract", *, where: Mapping[str, Any], arguments: Mapping[str, Any], offline: Any
) -> "Iterator[Batch]":
    """Push, and cancel what still runs where the block ends otherwise than well: nobody looks any more."""
    batch = fleet.push(contract, **where, arguments=arguments, offline=offline)
    try:
        yield batch
    except BaseException:
        cancel(fleet, batch)
        raise


def cancel(fleet: "Fleet", batch: "Batch") -> None:
    """Ask for the end of all runs, as far as the broker can be reached."""
    with suppress(errors.FleetError):
        for run_id in batch.run_ids:
            fleet.cancel(run_id, reason="whoever asked for it has left")


def ended(batch: "Batch", *, bar: bool = True) -> "list[Outcome]":
    """Wait for all runs and return how they ended, in the order of their hosts."""
    count = len(batch.run_ids)
    text = f"{batch.task} on {count} hosts" if count > 1 else batch.task
    found = []
    with progress.bar(text, total=count if count > 1 else None, wanted=bar) as advance:
        for outcome in batch.wait():
            found.append(outcome)
            advance("")
    return sorted(found, key=lambda outcome: outcome.host)


def tell_failures(batch: "Batch", found: "Sequence[Outcome]") -> int:
    """Say which hosts failed, and which were left out; return the exit code.

    Raises the error of a single host as it is.
    """
    if batch.skipped:
        render.say(f"left out, not connected or not taking work: {', '.join(batch.skipped)}")
    failed = [outcome for outcome in found if outcome.error is not None]
    if len(batch.run_ids) == 1 and failed and failed[0].error:
        raise failed[0].error
    for outcome in failed:
        render.warn(f"{outcome.host}: {outcome.error}")
    runs = [shapes.outcome(outcome.run_id, outcome.host, outcome) for outcome in found]
    return outcomes.exit_code(runs, skipped=batch.skipped)
