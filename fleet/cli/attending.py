"""Attending: staying with what was pushed, for commands that are one task on a few hosts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from fleet import errors, shapes
from fleet.cli import approving, outcomes, progress, render

if TYPE_CHECKING:
    from fleet.client import Batch, Fleet, Outcome
    from fleet.contracts import AnyContract


@contextmanager
def pushed(
    fleet: "Fleet",
    contract: "AnyContract",
    *,
    where: Mapping[str, Any],
    arguments: Mapping[str, Any],
    offline: Any = "fail",
    description: str = "",
    time_limit: timedelta | None = None,
) -> "Iterator[Batch]":
    """Push, say which runs wait for approval, and cancel what still runs where the block ends otherwise than well:
    nobody looks any more. Where only the caller's patience has ended (`errors.TimedOut`), the runs go on."""
    with approving.announced(fleet, contract) as waits:
        batch = fleet.push(
            contract, **where, arguments=arguments, offline=offline, description=description, time_limit=time_limit
        )
        try:
            waits.start(batch.run_ids)
            yield batch
        except (click.exceptions.Exit, errors.TimedOut):
            raise
        except BaseException:
            cancel(fleet, batch)
            raise


def cancel(fleet: "Fleet", batch: "Batch") -> None:
    """Ask for the end of all runs, as far as the broker can be reached."""
    with suppress(errors.FleetError):
        for run_id in batch.run_ids:
            fleet.cancel(run_id, reason="whoever asked for it has left")


def ended(batch: "Batch", *, bar: bool = True, timeout: float | None = None) -> "list[Outcome]":
    """Wait for all runs and return how they ended, in the order of their hosts; raises `errors.TimedOut`."""
    count = len(batch.run_ids)
    text = f"{batch.task} on {count} hosts" if count > 1 else batch.task
    found = []
    with progress.bar(text, total=count if count > 1 else None, wanted=bar) as advance:
        for outcome in batch.wait(timeout=timeout):
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
