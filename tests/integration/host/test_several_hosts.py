"""Pushes to several hosts: by name, by label, to all; each host answers for itself, and the exit code for them all."""

import json
from collections.abc import Iterator

import pytest

from fleet import db, errors, inventory, names
from fleet.cli.main import ENTRIES
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from tests.services.system import System
from tests.services.three_hosts import fleet_of
from tests.services.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("several_hosts")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, session_engine: PrivateEngine) -> Iterator[System]:
    hosts = {"edge-1": {"env": "prod", "site": "north"}, "edge-2": {"env": "prod"}}
    with fleet_of(hosts, tmp_path_factory, {"edge-1": session_engine}) as started:
        yield started


@pytest.fixture
def fleet_of_two(shared: System, docker_engine: PrivateEngine) -> Iterator[System]:
    """edge-1 with a Docker Engine (env=prod, site=north), edge-2 without one (env=prod), which a test may stop."""
    yield shared
    if shared.parts[-1].process.poll() is not None:
        shared.start_worker("edge-2")


def test_what_fails_on_one_host_and_works_on_another_is_partly_failed(fleet_of_two: System) -> None:
    done = fleet_of_two.command("push-task", "fleet.containers.list", "--all", "-y", "--wait", "-o", "json")
    assert done.returncode == 3, done.stderr
    states = {run["host"]: run["state"] for run in json.loads(done.stdout)["runs"]}
    assert states == {"edge-1": "succeeded", "edge-2": "failed"}


def test_labels_choose_hosts_and_all_of_them_must_match(fleet_of_two: System) -> None:
    ping = ("push-task", "fleet.host.ping", "--wait", "-o", "json")
    both = fleet_of_two.command(*ping, "-l", "env=prod")
    one = fleet_of_two.command(*ping, "-l", "env=prod", "-l", "site=north")
    none = fleet_of_two.command(*ping, "-l", "env=prod", "-l", "site=south")
    assert {run["host"] for run in json.loads(both.stdout)["runs"]} == {"edge-1", "edge-2"}
    assert {run["host"] for run in json.loads(one.stdout)["runs"]} == {"edge-1"}
    assert none.returncode == 5
    assert "no host has the labels env=prod,site=south" in none.stderr


def test_one_absent_host_stops_the_whole_push_unless_it_is_skipped_or_queued_for(fleet_of_two: System) -> None:
    assert fleet_of_two.parts[-1].stop() == 0
    ping = ("push-task", "fleet.host.ping", "--all", "-y", "-o", "json")
    refused = fleet_of_two.command(*ping)
    assert refused.returncode == 5
    assert json.loads(refused.stderr or refused.stdout)["error"]["code"] == "host_not_connected"
    assert fleet_of_two.redis.llen(names.queue("edge-1")) == 0
    skipped = fleet_of_two.command(*ping, "--offline", "skip", "--wait")
    assert skipped.returncode == 0
    assert {run["host"] for run in json.loads(skipped.stdout)["runs"]} == {"edge-1"}
    queued = fleet_of_two.command(*ping, "--offline", "queue", "--detach")
    assert queued.returncode == 0
    assert fleet_of_two.redis.llen(names.queue("edge-2")) == 1


def test_a_container_appears_in_ps_and_in_the_database_and_is_gone_when_it_is_gone(
    fleet_of_two: System, docker_engine: PrivateEngine
) -> None:
    def in_database() -> set[str]:
        with db.session(fleet_of_two.engine, write=False) as session:
            return {row.name for row in inventory.containers(session, host="edge-1")}

    def in_ps() -> set[str]:
        listed = json.loads(fleet_of_two.command("ps", "-o", "json").stdout)
        assert "edge-2" in listed["unknown"]  # it has no Engine: unknown, and not "none"
        return {container["name"] for container in listed["containers"]}

    client = docker_engine.client()
    web = client.containers.run(IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL")
    until(lambda: "web" in in_ps(), "the container in ps")
    until(lambda: "web" in in_database(), "the container in the database")
    web.remove(force=True)
    client.close()
    until(lambda: "web" not in in_ps(), "its disappearance from ps")
    until(lambda: "web" not in in_database(), "its disappearance from the database")


def test_the_commands_that_were_promised_are_there() -> None:
    promised = "up, worker, control, flower, enroll, token, host, ps, push-task, task, audit, health, doctor"
    assert set(promised.split(", ")) <= set(ENTRIES)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"metadata": {"x": object()}}, "metadata"),
        ({"metadata": {"x": float("nan")}}, "metadata"),
        ({"expires": float("nan")}, "expires"),
        ({"expires": "soon"}, "expires"),
        ({"expires": -1}, "expires"),
    ],
)
def test_options_that_cannot_travel_are_refused_by_name_and_nothing_is_sent(
    fleet_of_two: System, options: dict[str, object], field: str
) -> None:
    fleet = fleet_of_two.fleet
    (before,) = fleet.push("fleet.host.ping", on="edge-1").run_ids
    fleet_of_two.record(before, state="succeeded")  # and with it, whatever was pushed before
    queued = len(fleet_of_two.events("run.queued"))
    with pytest.raises(errors.InvalidValue) as caught:
        fleet.push("fleet.host.ping", on="edge-1", **options)  # type: ignore[arg-type]
    assert caught.value.field == field
    (good,) = fleet.push("fleet.host.ping", on="edge-1").run_ids
    fleet_of_two.record(good, state="succeeded")
    assert [event.run_id for event in fleet_of_two.events("run.queued")[queued:]] == [good]


def test_a_push_that_is_cut_short_names_what_was_pushed(fleet_of_two: System, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = fleet_of_two.fleet.targets(all_hosts=True)
    assert fleet_of_two.parts[-1].stop() == 0  # edge-2 goes away after the client has looked for it
    monkeypatch.setattr(fleet_of_two.fleet, "targets", lambda **_: targets)
    with pytest.raises(errors.PartlyPushed, match="pushed to 1 of 2 hosts, then: host_not_connected") as caught:
        fleet_of_two.fleet.push("fleet.host.ping", all_hosts=True)
    assert [names.host_of_run(run_id) for run_id in caught.value.run_ids] == ["edge-1"]
    skipping = fleet_of_two.fleet.push("fleet.host.ping", all_hosts=True, offline="skip")
    assert skipping.skipped == ("edge-2",)
