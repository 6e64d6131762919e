"""Stopping a worker whose host runs a command: it waits for the program, as it does for every other task."""

import signal
from pathlib import Path

import pytest

from tests.services.office import fleet_of, list_programs
from tests.services.system import System
from tests.services.waiting import until


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_clean_stop_waits_for_the_command_that_runs_and_its_end_is_on_record(system: System, tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", f"touch {tmp_path}/begun; while ! [ -e {tmp_path}/go ]; do sleep 0.1; done"]
    system.start_control()
    system.enroll("h1")
    worker = system.start_worker("h1")
    list_programs(system, argv)
    with fleet_of(system, "alice") as fleet:
        batch = fleet.push("fleet.shell.run", on="h1", arguments={"argv": argv})
        until((tmp_path / "begun").exists, "it runs")
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: "worker.stopping" in worker.log.read_text(), "it stops")
        assert worker.process.poll() is None
        (tmp_path / "go").touch()
        assert worker.process.wait(30) == 0
        [outcome] = batch.wait(timeout=30)
    assert outcome.state == "succeeded"
    run = system.record(batch.run_ids[0], state="succeeded")
    assert [event.event for event in system.life(run.id)][-1] == "run.succeeded"
