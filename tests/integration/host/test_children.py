"""Runs in processes of their own: whatever a function does, its run ends, alone, and what happened is known."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet import errors
from tests.services.waiting import LIMITS, until
from workers.host.children import Children
from workers.host.job import Job
from workers.host.process import Zygote
from workers.host.spool import Ending, Spool

pytestmark = pytest.mark.usefixtures("offered")


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path / "spool", docker_url="unix:///nonexistent.sock", memory_bytes=2**29)
    made.start()
    yield made
    made.close()


def job(name: str, log: Path, **more: Any) -> Job:
    limits = {"soft_seconds": more.pop("soft", None), "hard_seconds": more.pop("hard", 30.0)}
    return Job(
        run_id=f"h1:{uuid.uuid4()}",
        attempt=1,
        task=f"offered.{name}",
        arguments={"log": str(log), **more},
        host="h1",
        description="",
        metadata={},
        submitted_by="alice",
        **limits,
    )


def perform(children: Children, name: str, log: Path, **more: Any) -> Ending:
    ending = children.run(job(name, log, **more), on_progress=lambda _step, _percent: None)
    assert ending is not None
    return ending


def background(children: Children, wanted: Job) -> "tuple[threading.Thread, list[Ending | None]]":
    endings: list[Ending | None] = []
    thread = threading.Thread(
        target=lambda: endings.append(children.run(wanted, on_progress=lambda _step, _percent: None))
    )
    thread.start()
    return thread, endings


def zygote(children: Children) -> psutil.Process:
    assert children._zygote is not None
    return psutil.Process(children._zygote._process.pid)


def supervisors(children: Children) -> list[psutil.Process]:
    return zygote(children).children()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def begun(log: Path) -> bool:
    """Say whether a run has written its first line."""
    return log.exists() and log.read_text().endswith("\n")


def let_go(log: Path) -> None:
    """Have `offered.held` end."""
    log.with_name("log.go").touch()


def limited(children: Children, name: str, log: Path, *, limit: str, **more: Any) -> Ending:
    """Perform something into a limit of that kind, one that lets it begin; return how it ended."""
    for seconds in LIMITS:
        log.unlink(missing_ok=True)
        ending = perform(children, name, log, seconds=60, **{limit: seconds}, **more)
        if log.exists() and log.read_text():
            return ending
    raise AssertionError(f"it does not begin within {seconds:g} s")


def test_a_reply_comes_back(children: Children, log: Path) -> None:
    ending = perform(children, "effect", log)
    assert (ending.kind, ending.reply) == ("replied", {"said": "done"})
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fail", "impossible"),
        ("wrong_reply", "wrong_reply"),
        ("large_reply", "reply_too_large"),
        ("odd_error", "internal_error"),
        ("eat_memory", "out_of_memory"),
    ],
)
def test_an_error_of_any_kind_is_a_failure_with_a_name(children: Children, log: Path, name: str, kind: str) -> None:
    ending = perform(children, name, log)
    assert ending.kind == "failed"
    assert ending.error is not None
    assert ending.error[0] == kind


@pytest.mark.parametrize(("name", "status"), [("exit", 3), ("close_everything", 0)])
def test_an_end_without_a_word_says_how_it_ended(children: Children, log: Path, name: str, status: int) -> None:
    ending = perform(children, name, log)
    assert (ending.kind, ending.exit_status) == ("died", status)


def test_output_is_kept_head_and_tail_and_never_fills_the_disk(children: Children, log: Path, tmp_path: Path) -> None:
    wanted = job("shout", log, count=1024, hard=100.0)
    ending = children.run(wanted, on_progress=lambda _step, _percent: None)
    assert ending is not None
    assert ending.kind == "replied"
    assert ending.output.endswith("the last words\n")
    kept = (Spool.all(tmp_path / "spool")[0].path / "output").read_bytes()
    assert kept.startswith(b"the first words\n")
    assert b"bytes left out" in kept
    assert len(kept) < 1024 * 1024 + 100


def test_the_hard_limit_ends_what_ignores_every_request(children: Children, log: Path) -> None:
    ending = limited(children, "stubborn", log, limit="hard")
    assert ending.kind == "time_limit"
    assert ending.duration_seconds < 50  # it would take sixty
    assert "late" not in log.read_text()


def test_the_soft_limit_lets_a_task_put_things_in_order(children: Children, log: Path) -> None:
    ending = limited(children, "tidy", log, limit="soft")
    assert ending.error is not None
    assert ending.error[0] == "soft_time_limit"
    assert log.read_text().splitlines()[1:] == ["warned", "tidied"]
    assert limited(children, "tidy", log, limit="soft", count=1).reply == {"said": "in time"}


def test_a_soft_limit_that_is_over_at_once_is_a_failure_with_that_name(children: Children, log: Path) -> None:
    ending = perform(children, "effect", log, seconds=60, soft=0.0)
    assert ending.error is not None
    assert ending.error[0] == "soft_time_limit"


def test_who_is_asked_to_end_before_it_begins_ends_when_it_does(children: Children, log: Path) -> None:
    wanted = job("effect", log, seconds=60)
    assert not children.end(wanted.run_id, why="cancelled")
    ending = children.run(wanted, on_progress=lambda _step, _percent: None)
    assert ending is not None
    assert ending.kind == "cancelled"


def test_a_cancelled_run_may_tidy_up_and_ends(children: Children, log: Path) -> None:
    wanted = job("tidy", log, seconds=60)
    thread, endings = background(children, wanted)
    until(lambda: begun(log), "it runs")
    assert children.end(wanted.run_id, why="cancelled")
    thread.join(30)
    assert endings[0] is not None
    assert endings[0].kind == "cancelled"
    assert log.read_text().splitlines()[1:] == ["tidied"]
    assert not children.end(wanted.run_id, why="cancelled")


@pytest.mark.parametrize("kind", ["replied", "time_limit"])
def test_no_descendant_is_left_also_of_those_that_leave_the_session(children: Children, log: Path, kind: str) -> None:
    if kind == "replied":
        ending = perform(children, "fork_away", log)
    else:
        ending = limited(children, "fork_away", log, limit="hard")
    assert ending.kind == kind
    assert not psutil.pid_exists(int(log.read_text()))


def test_what_is_always_a_new_process_is_caught(children: Children, log: Path) -> None:
    assert perform(children, "flee_by_forking", log).kind == "replied"
    log.unlink()
    threading.Event().wait(0.2)
    assert not log.exists()


def test_a_run_that_kills_its_supervisor_dies_with_it_and_leaves_no_word(children: Children, log: Path) -> None:
    wanted = job("kill_supervisor", log)
    assert children.run(wanted, on_progress=lambda _step, _percent: None) is None
    child = int(log.read_text())
    until(lambda: not psutil.pid_exists(child), "the child has ended")
    assert [(found.began, found.running, found.ending) for found in children.found()] == [(True, False, None)]


def test_a_step_that_lasts_is_shown_while_it_does(children: Children, log: Path) -> None:
    steps: list[tuple[str, float | None]] = []
    wanted = job("tell_two_steps", log, seconds=60)
    thread = threading.Thread(
        target=lambda: children.run(wanted, on_progress=lambda step, percent: steps.append((step, percent)))
    )
    thread.start()
    until(lambda: ("second", 2.0) in steps, "the second step, told right after the first")
    assert children.end(wanted.run_id, why="cancelled")
    thread.join()


def test_a_percentage_that_is_none_is_the_tasks_own_failure(children: Children, log: Path) -> None:
    ending = perform(children, "tell_nonsense", log)
    assert ending.error == ("internal_error", "progress: the percentage is not a number")


def test_what_is_no_message_harms_nobody(children: Children, log: Path) -> None:
    assert perform(children, "write_everywhere", log).reply == {"said": "done"}


def test_progress_is_told_at_most_once_a_second_and_the_last_is_not_lost(children: Children, log: Path) -> None:
    steps: list[tuple[str, float | None]] = []
    begun = time.monotonic()
    children.run(job("tell_steps", log), on_progress=lambda step, percent: steps.append((step, percent)))
    assert steps[-1] == ("last", 100.0)
    assert len(steps) <= 3 + time.monotonic() - begun


def test_a_run_outlives_the_worker_and_is_waited_for_by_the_next_one(
    children: Children, log: Path, tmp_path: Path
) -> None:
    wanted = job("held", log)
    thread, endings = background(children, wanted)
    until(lambda: begun(log), "it runs")
    later = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)
    [found] = later.found()
    assert (found.run_id, found.began, found.running) == (wanted.run_id, True, True)
    let_go(log)
    ending = later.wait(wanted.run_id, 1, on_progress=lambda _step, _percent: None)
    thread.join()
    assert ending == endings[0]
    assert ending is not None
    assert ending.kind == "replied"
    later.forget(wanted.run_id, 1)
    assert later.found() == []


def test_a_supervisor_that_is_told_to_end_ends_its_run_and_writes_that_down(children: Children, log: Path) -> None:
    wanted = job("tidy", log, seconds=60)
    thread, endings = background(children, wanted)
    until(lambda: begun(log), "it runs")
    for supervisor in supervisors(children):
        supervisor.terminate()
    thread.join(30)
    assert endings[0] is not None
    assert endings[0].kind == "stopped"
    assert log.read_text().splitlines()[1:] == ["tidied"]


def test_an_adopted_run_can_be_ended(children: Children, log: Path, tmp_path: Path) -> None:
    wanted = job("stubborn", log, seconds=60)
    thread, _endings = background(children, wanted)
    until(lambda: begun(log), "it runs")
    later = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)
    waited: list[Ending | None] = []
    adopted = threading.Thread(
        target=lambda: waited.append(later.wait(wanted.run_id, 1, on_progress=lambda _step, _percent: None))
    )
    adopted.start()
    until(lambda: later.end(wanted.run_id, why="cancelled"), "the supervisor is asked")
    adopted.join(30)
    thread.join(30)
    assert waited[0] is not None
    assert waited[0].kind == "cancelled"


def test_a_killed_zygote_is_replaced_and_what_runs_goes_on(children: Children, log: Path) -> None:
    wanted = job("held", log)
    thread, endings = background(children, wanted)
    until(lambda: begun(log), "it runs")
    zygote(children).kill()
    assert perform(children, "effect", log).kind == "replied"
    let_go(log)
    thread.join()
    assert endings[0] is not None
    assert endings[0].kind == "replied"


@pytest.mark.parametrize("description", ["short", "longer than a socket holds" * 50_000], ids=["short", "long"])
def test_a_run_that_a_hanging_zygote_was_asked_for_begins_once_with_another(
    tmp_path: Path, log: Path, description: str
) -> None:
    children = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29, begin_within_seconds=2.0)
    children.start()
    hanging = zygote(children)
    hanging.suspend()
    wanted = replace(job("effect", log), description=description)
    ending = children.run(wanted, on_progress=lambda _step, _percent: None)
    assert ending is not None
    assert ending.kind == "replied"
    assert len(log.read_text().splitlines()) == 1
    children.close()
    assert not hanging.is_running()


def test_a_zygote_that_is_always_killed_is_given_up_and_nothing_has_begun(
    children: Children, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = children._started

    def kill() -> Zygote:
        found = started()
        found._process.kill()
        found._process.wait()
        return found

    monkeypatch.setattr(children, "_started", kill)
    with pytest.raises(errors.LocalFault, match="no process can be started"):
        perform(children, "effect", log)
    [found] = children.found()
    assert (found.began, found.running, found.ending) == (False, False, None)
    assert not log.exists()


def test_a_zygote_stays_until_its_last_supervisor_has_ended(children: Children, log: Path) -> None:
    thread, endings = background(children, job("held", log))
    until(lambda: begun(log), "it runs")
    alone = children._zygote
    assert alone is not None
    children.close()
    assert alone.alive()
    let_go(log)
    thread.join()
    assert endings[0] is not None
    assert endings[0].kind == "replied"
    until(lambda: not alone.alive(), "the zygote has ended")


def test_a_killed_supervisor_leaves_nothing_and_its_lock_says_when(children: Children, log: Path) -> None:
    wanted = job("orphan", log)
    assert children.run(wanted, on_progress=lambda _step, _percent: None) is None
    until(lambda: not children.found()[0].running, "the lock is free")
    assert not psutil.pid_exists(int(log.read_text()))


@pytest.fixture
def install(tmp_path: Path, offered: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install one more package, whose module for hosts is given; its contract is like `offered.effect`."""

    def install(code: str) -> None:
        place = tmp_path / "packages"
        (place / "more-1.dist-info").mkdir(parents=True)
        (place / "more-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: more\nVersion: 1\n")
        (place / "more-1.dist-info" / "entry_points.txt").write_text("[fleet.contracts]\nmore = more:MORE\n")
        (place / "more.py").write_text(
            "from dataclasses import replace\nfrom offered_contracts import ALL\n"
            "MORE = replace(ALL[0], name='more.task', perform='more_functions:task')\n"
        )
        (place / "more_functions.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ["PYTHONPATH"]]))

    return install


@pytest.mark.parametrize("code", ["import no_such_module", "1 / 0", "raise SystemExit(2)", "nothing = 1"])
def test_a_worker_does_not_start_with_a_package_that_cannot_be_imported(
    install: Callable[[str], None], tmp_path: Path, code: str
) -> None:
    install(code)
    children = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)
    with pytest.raises(errors.SettingsInvalid, match=r"'more\.task': 'more_functions:task' cannot be imported"):
        children.start()
    children.close()


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", "import os; os._exit(0)"])
def test_nor_with_one_that_hangs_or_ends_the_interpreter(
    install: Callable[[str], None], tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(code)
    monkeypatch.setattr("workers.host.children._START_SECONDS", 2.0)
    children = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)
    with pytest.raises(errors.LocalFault, match="did not start"):
        children.start()
    children.close()


def test_user_code_sees_none_of_fleets_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", "redis://:secret@127.0.0.1/0")
    children = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)
    ending = perform(children, "show_environment", log)
    children.close()
    assert ending.reply is not None
    assert "FLEET_" not in ending.reply["said"]
    assert "PATH" in ending.reply["said"]


def test_an_unwritable_spool_is_an_error_before_anything_begins(tmp_path: Path, log: Path) -> None:
    (tmp_path / "spool").write_text("a file where the directory should be")
    children = Children(tmp_path / "spool", docker_url="", memory_bytes=2**29)
    with pytest.raises(errors.LocalFault, match="spool"):
        children.run(job("effect", log), on_progress=lambda _step, _percent: None)
    assert not log.exists()
