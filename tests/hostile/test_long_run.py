"""What takes longer of a normal run: what a broker loses is made good, and the command line."""

import json
from pathlib import Path

import pytest

from fleet import names
from tests.hostile.conftest import push
from tests.integration.test_flower import Window
from tests.services import locked as users
from tests.services.broker import Broker, emptied
from tests.services.freezing import frozen
from tests.services.locked import Locked
from tests.services.waiting import until


@pytest.fixture(params=["valkey", pytest.param("redis", marks=pytest.mark.long)])
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """On one of them, as long as nobody asks for more (`make hostile`)."""
    return emptied(request.getfixturevalue(f"{request.param}_server"))


def test_what_the_broker_lost_is_sent_and_written_again(fleet_of_two: Locked) -> None:
    fleet, (control, worker, other) = fleet_of_two.fleet, fleet_of_two.parts
    with fleet_of_two.broker.connect() as admin:
        admin.lpush(names.inbox("h1", 1), "stray")  # handed to a connection that has died
        assert other.stop() == 0
        forgotten = push(fleet_of_two, host="h2", offline="queue")
        lost = push(fleet_of_two)
        fleet_of_two.record(lost, state="succeeded")
        with frozen(control.process.pid):
            unheard = push(fleet_of_two)
            until(lambda: admin.exists(names.result(unheard)), "the result")
            admin.delete(names.reports("h1"), names.queue("h2"), names.HOSTS)
        assert control.stop() == 0
        fleet_of_two.start_control()
        until(lambda: admin.hexists(names.HOSTS, "h2"), "the registry is written anew")
        assert [outcome.state for outcome in fleet.push("fleet.host.ping", on="h1").wait(timeout=30)] == ["succeeded"]
        fleet_of_two.record(unheard, state="succeeded")
        until(lambda: fleet_of_two.life(forgotten)[-1].event == "run.sent_again", "it is sent again", timeout=90)
        fleet_of_two.start_worker("h2")
        fleet_of_two.record(forgotten, state="succeeded")
        until(lambda: admin.llen(names.dead("h1")), "the stray is put back, and put aside", timeout=60)
        assert worker.stop() == 0


def test_the_command_line_of_a_principal_needs_no_more_than_its_user(fleet_of_two: Locked, tmp_path: Path) -> None:
    """On a machine of its own, without the control plane's database."""
    own = {
        "FLEET_BROKER_URL": users.url(fleet_of_two.broker, "nobody"),  # where the broker is, its file knows
        "FLEET_PRINCIPAL_FILE": str(fleet_of_two.settings.principal_path("alice")),
        "FLEET_STATE_DIR": str(tmp_path / "own"),
        "FLEET_DATABASE_URL": f"sqlite:///{tmp_path / 'none.db'}",
    }
    pushed = fleet_of_two.command("push-task", "fleet.host.ping", "--all", "-y", "--wait", "-o", "json", **own)
    assert pushed.returncode == 0, pushed.stderr
    run = json.loads(pushed.stdout)["runs"][0]["id"]
    for words in (("ps",), ("task", "wait", run), ("task", "cancel", run)):
        done = fleet_of_two.command(*words, **own)
        assert done.returncode == 0, done.stderr


def test_the_control_plane_needs_no_more_than_its_user_to_let_members_in_and_put_them_out(locked: Locked) -> None:
    locked.start_control()
    locked.enroll("h1")
    locked.start_worker("h1")
    locked.enroll("h2")
    for command in (
        "principal create bob --level student",
        "principal set-level bob supervised",
        "principal rotate bob",
        "principal list",
        "principal revoke bob",
        "key rotate",
        "key list",
        "host rotate h1",
        "host revoke h2",
    ):
        done = locked.command(*command.split(), "-y")
        assert done.returncode == 0, f"{command}: {done.stderr}"
    token = json.loads(locked.command("token", "create", "-o", "json").stdout)
    assert locked.command("token", "revoke", token["id"], "-y").returncode == 0
    until(lambda: locked.events("host.credential_taken"), "h1 has its new key, and its new password")
    done = locked.command("push-task", "fleet.host.ping", "--host", "h1", "-y", "--wait")
    assert done.returncode == 0, done.stderr
    with locked.broker.connect() as admin:
        users = [user for user in admin.acl_users() if not user.startswith("join-")]
    assert sorted(users) == ["control", "default", "flower", "h-h1", "p-alice", "test-admin"]


def test_the_command_line_of_the_control_plane_needs_no_more_than_its_user(fleet_of_two: Locked) -> None:
    window = Window(users.url(fleet_of_two.broker, "flower"), fleet_of_two.directory / "flower")
    try:
        until(lambda: window.json("/api/workers"), "Flower hears a worker", timeout=60)
        assert window.ask("/broker", password=window.password)[0] == 200
        commands = [
            "push-task fleet.host.ping --all -y --wait",
            "push-task fleet.host.ping --host h1 --detach",
            "task list",
            "host list",
            "host show h1",
            "host label h1 site=north",
            "host pause h1",
            "host resume h1",
            "host drain h2 --wait",
            "host resume h2",
            "ps",
            "audit list",
            "token create --host-id h3",
            "token list",
            "health control",
            "health worker --host-id h1",
            "doctor",
        ]
        for command in commands:
            done = fleet_of_two.command(*command.split())
            assert done.returncode == 0 or command == "doctor", f"{command}: {done.stderr}"
            assert "permission" not in done.stdout + done.stderr, f"{command}: {done.stdout}{done.stderr}"
        run = json.loads(fleet_of_two.command("push-task", "fleet.host.ping", "--host", "h1", "-o", "json").stdout)
        for words in (("task", "show"), ("task", "wait"), ("task", "events")):
            assert fleet_of_two.command(*words, run["runs"][0]["id"]).returncode == 0
    finally:
        assert window.stop() == 0
    with fleet_of_two.broker.connect() as admin:
        expected = {"control", "h-h1", "h-h2", "test-admin"}
        # Who has connected and not logged in yet is shown as `default` for that moment.
        until(lambda: {each["user"] for each in admin.client_list()} == expected, "nobody came in as anybody else")
