"""Outcomes: how pushed tasks ended, host by host and all together, with the exit code that says so."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fleet import errors, shapes
from fleet.cli import invocation, progress, render, steps, tables
from fleet.cli.tables import Column

if TYPE_CHECKING:
    from fleet.cli.waiting import Earlier
    from fleet.client import Batch, Outcome

    Pushed = Batch | Earlier

#: State of a run whose end was not awaited, and of one that did not come within the time limit.
PUSHED, UNFINISHED = "queued", "unfinished"


def _result(run: Mapping[str, Any], brief: Callable[[Mapping[str, Any]], str] = steps.brief) -> str:
    if run["error"]:
        return str(run["error"]["message"])
    return brief(run["reply"] or {})


_ENDED = (
    Column(heading="HOST", value=lambda run: run["host"]),
    Column(heading="STATE", value=lambda run: run["state"], state=True),
    Column(heading="TASK ID", value=lambda run: run["id"], from_width=120),
    Column(heading="RESULT", value=_result, shrinks=True),
)
_BRIEF = (
    Column(heading="HOST", value=lambda run: run["host"]),
    Column(heading="STATE", value=lambda run: run["state"], state=True),
    Column(heading="RESULT", value=lambda run: run["result"], wraps=True),
)
_PUSHED = (
    Column(heading="HOST", value=lambda run: run["host"]),
    Column(heading="TASK ID", value=lambda run: run["id"]),
)


def tell_pushed(batch: "Batch") -> int:
    """Print the ids of what was pushed; return the exit code."""
    from fleet import names

    runs = [shapes.outcome(run_id, names.host_of_run(run_id), None, state=PUSHED) for run_id in batch.run_ids]
    _print(batch, runs, people=lambda: render.listing(runs, columns=_PUSHED, key="id", empty="nothing was pushed"))
    _tell_skipped(batch)
    if len(runs) == 1:
        render.say(f"pushed; `fleet task wait {runs[0]['id']}` waits for it")
    elif runs:
        render.say(f"pushed to {len(runs)} hosts; `fleet task list --batch {batch.id}` shows them")
    return exit_code(runs, skipped=batch.skipped)


def tell_ended(
    batch: "Pushed",
    *,
    timeout: timedelta | None,
    bar: bool = True,
    wanted: str = "succeeded",
    brief: "Callable[[Mapping[str, Any]], str] | None" = None,
) -> int:
    """Wait for all runs, print how they ended, and return the exit code; 0 where all are in the state `wanted`.

    `brief` says in a few words what a reply means, for people; without it they see all of it.

    Where waiting is cut short (by `timeout`, by Ctrl-C, by a broker that goes away), what had ended by then is printed
    first, and the error raised then: `errors.TimedOut`, `KeyboardInterrupt`, `errors.BrokerUnavailable`.
    """
    from fleet import names

    streaming = invocation.current().format == "jsonl"
    ended: dict[str, Outcome] = {}
    cut_short: BaseException | None = None
    try:
        _collect(batch, ended, timeout=timeout, bar=bar, streaming=streaming)
    except (errors.TimedOut, errors.BrokerUnavailable, KeyboardInterrupt) as exc:
        cut_short = exc
    hosts = {run_id: names.host_of_run(run_id) for run_id in batch.run_ids}
    runs = [shapes.outcome(run_id, host, ended.get(run_id), state=UNFINISHED) for run_id, host in hosts.items()]
    rest = [run for run in runs if run["state"] == UNFINISHED] if streaming else runs
    _print(batch, runs, parts=rest, people=lambda: _tell_people(runs, brief))
    _tell_skipped(batch)
    if cut_short is not None:
        raise cut_short
    if runs and all(run["state"] == wanted for run in runs):
        return 0
    return exit_code(runs, skipped=batch.skipped)


def exit_code(runs: Sequence[Mapping[str, Any]], *, skipped: Sequence[str] = ()) -> int:
    """Return what the shell gets: 0, the one code that all share, or 3 where they ended in different ways."""
    if not runs:
        # Every host was left out.
        return 5 if skipped else 0
    codes = {run["error"]["exit_code"] if run["error"] else 0 for run in runs}
    return int(codes.pop()) if len(codes) == 1 else 3


def _collect(
    batch: "Pushed", ended: "dict[str, Outcome]", *, timeout: timedelta | None, bar: bool, streaming: bool
) -> None:
    count = len(batch.run_ids)
    what = batch.task or "waiting for tasks"
    text = f"{what} on {count} hosts" if count > 1 else what
    with progress.bar(text, total=count if count > 1 else None, wanted=bar) as advance:
        for outcome in batch.wait(timeout=timeout.total_seconds() if timeout else None):
            ended[outcome.run_id] = outcome
            advance("")
            if streaming:
                render.item(shapes.outcome(outcome.run_id, outcome.host, outcome), line="", key="id")


def _print(
    batch: "Pushed", runs: list[dict[str, Any]], *, people: Any, parts: list[dict[str, Any]] | None = None
) -> None:
    whole = {"batch": batch.id, "task": batch.task, "runs": runs, "skipped": list(batch.skipped)}
    render.compound(whole, parts=runs if parts is None else parts, key="id", people=people)


def _tell_people(runs: list[dict[str, Any]], brief: Callable[[Mapping[str, Any]], str] | None) -> None:
    if brief is not None:
        told = [{**run, "result": _result(run, brief)} for run in sorted(runs, key=lambda run: str(run["host"]))]
        render.listing(told, columns=_BRIEF, key="id", empty="")
    elif len(runs) == 1:
        [run] = runs
        result = ("Error", run["error"]["message"]) if run["error"] else ("Reply", run["reply"])
        tables.show_detail([("Task", run["id"]), ("Host", run["host"]), ("State", run["state"]), result])
    elif runs:
        render.listing(sorted(runs, key=lambda run: str(run["host"])), columns=_ENDED, key="id", empty="")
        states = [run["state"] for run in runs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        render.say(f"{len(runs)} hosts: {counts}")


def _tell_skipped(batch: "Pushed") -> None:
    if batch.skipped:
        render.say(f"left out, not connected or not taking work: {', '.join(batch.skipped)}")
