"""Recovery: what a restart makes of runs that a kill -9 interrupted."""

import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from fleet import errors, names
from tests.services.system import Part, System
from tests.services.waiting import until
from workers.host.spool import Spool


@pytest.fixture
def backend() -> str:
    """What a host makes of its own past is written into its journal, whatever records it in the end."""
    return "sqlite"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "effects"


def let_go(log: Path) -> None:
    """Have end what is `held`."""
    log.with_name("effects.go").touch()


@pytest.fixture
def fleet(system: System, offered: Path) -> System:
    """A fleet with one enrolled host, which has the test package installed."""
    system.packages.append(offered)
    system.start_control()
    system.enroll("h1")
    return system


def push(system: System, name: str, log: Path, **arguments: object) -> str:
    return system.fleet.push(f"offered.{name}", on="h1", arguments={"log": str(log), **arguments}).run_ids[0]


def effects(log: Path) -> Counter[str]:
    """Return how often each run had its effect."""
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def told(system: System, run: str) -> list[str]:
    return [event.event for event in system.life(run)]


def kill(worker: Part) -> None:
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()


def kill_everything(system: System, worker: Part) -> None:
    """Kill the worker and every process that it started: what a machine that goes down does."""
    spool = str(system.directory / "hosts" / "h1" / "spool")
    kill(worker)
    for process in psutil.process_iter(["pid", "name"]):
        try:
            held = [file.path for file in process.open_files()] if process.info["name"] == "fleet-run" else []
        except psutil.Error:
            continue
        if any(path.startswith(spool) for path in held):
            process.kill()
            process.wait()


def test_ten_interrupted_runs_are_recovering_while_they_go_on_and_all_end_with_one_effect(
    fleet: System, log: Path
) -> None:
    worker = fleet.start_worker("h1", FLEET_CONCURRENCY="10")
    runs = [push(fleet, "held", log) for _ in range(10)]
    until(lambda: len(effects(log)) == 10, "all ten run")
    kill(worker)
    fleet.start_worker("h1", FLEET_CONCURRENCY="10")
    for run in runs:
        until(lambda run=run: "run.recovering" in told(fleet, run), "it is recovering")  # type: ignore[misc]
    assert not [run for run in runs if "run.succeeded" in told(fleet, run)], "they go on"
    let_go(log)
    for run in runs:
        fleet.record(run, state="succeeded")
    assert effects(log) == dict.fromkeys(runs, 1)


def test_what_nobody_can_say_is_unknown_and_what_may_run_again_does(fleet: System, log: Path) -> None:
    worker = fleet.start_worker("h1")
    once, again = push(fleet, "effect", log, seconds=60), push(fleet, "held_again", log)
    until(lambda: len(effects(log)) == 2, "both run")
    kill_everything(fleet, worker)
    let_go(log)
    fleet.start_worker("h1")
    assert fleet.record(again, state="succeeded").attempt == 2
    unknown = fleet.record(once, state="unknown")
    assert unknown.error is not None
    assert effects(log) == {once: 1, again: 2}
    with pytest.raises(errors.OutcomeUnknown):
        fleet.fleet.dispatcher.task("offered.effect").AsyncResult(once).get(timeout=30)


def test_what_is_cancelled_while_no_worker_is_there_is_ended_and_not_begun_again(fleet: System, log: Path) -> None:
    worker = fleet.start_worker("h1")
    again = push(fleet, "held_again", log)
    until(lambda: len(effects(log)) == 1, "it runs")
    kill_everything(fleet, worker)
    worker = fleet.start_worker("h1", FLEET_CONCURRENCY="1")
    until(lambda: effects(log) == {again: 2}, "its second attempt runs")
    kill_everything(fleet, worker)
    fleet.fleet.cancel(again)
    until(lambda: fleet.redis.llen(names.control("h1")), "the host is told")
    fleet.start_worker("h1")
    assert fleet.record(again, state="cancelled").attempt == 2
    assert fleet.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)
    assert effects(log) == {again: 2}


def test_a_supervisor_that_outlived_its_worker_ends_what_was_cancelled_meanwhile(fleet: System, log: Path) -> None:
    worker = fleet.start_worker("h1")
    run = push(fleet, "held_again", log)
    until(lambda: effects(log), "it runs")
    kill(worker)
    fleet.fleet.cancel(run)
    until(lambda: fleet.redis.llen(names.control("h1")), "the host is told")
    fleet.start_worker("h1")
    fleet.record(run, state="cancelled")
    assert effects(log) == {run: 1}


def test_the_end_that_came_while_no_worker_was_there_is_reported_by_the_next(fleet: System, log: Path) -> None:
    worker = fleet.start_worker("h1")
    run = push(fleet, "held", log)
    until(lambda: effects(log), "it runs")
    kill(worker)
    let_go(log)
    [spool] = Spool.all(fleet.directory / "hosts" / "h1" / "spool")
    until(spool.ending, "it has ended, and nobody is there to hear of it")
    fleet.start_worker("h1")
    assert fleet.record(run, state="succeeded").reply == {"said": "done"}
    assert effects(log) == {run: 1}


def test_a_run_that_kills_its_worker_is_given_up_after_three_attempts_and_the_queue_moves(
    fleet: System, log: Path
) -> None:
    worker = fleet.start_worker("h1")
    poison = None
    for _ in range(3):
        Path(f"{log}.worker").write_text(str(worker.process.pid))
        poison = poison or push(fleet, "kill_worker", log)
        worker.process.wait(30)
        worker = fleet.start_worker("h1")
    assert poison is not None
    failed = fleet.record(poison, state="failed")
    assert failed.error is not None
    assert failed.error["kind"] == "poison"
    assert effects(log) == {poison: 3}
    assert fleet.fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=30)


def test_sigterm_lets_a_task_finish_and_a_second_one_ends_it_for_the_next_session_to_decide(
    fleet: System, log: Path
) -> None:
    worker = fleet.start_worker("h1")
    finishing = push(fleet, "held", log)
    until(lambda: effects(log), "it runs")
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "worker.stopping" in worker.log.read_text(), "it stops")
    let_go(log)
    assert worker.process.wait(30) == 0
    fleet.record(finishing, state="succeeded")

    worker = fleet.start_worker("h1")
    again, once = push(fleet, "again", log, seconds=600), push(fleet, "effect", log, seconds=600)
    until(lambda: len(effects(log)) == 3, "both run")
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "worker.stopping" in worker.log.read_text(), "it stops")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0
    fleet.start_worker("h1")
    stopped = fleet.record(once, state="failed")
    assert stopped.error is not None
    assert stopped.error["kind"] == "interrupted"
    until(lambda: effects(log)[again] == 2, "it runs again")
