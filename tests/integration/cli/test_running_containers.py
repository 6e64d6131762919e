"""`fleet run` and the commands on containers, from the command line to a real Engine."""

import json
from pathlib import Path

import docker
import pytest

from fleet.contracts.container_output import LOGS
from tests.integration.cli.conftest import Cli
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from tests.services.system import System
from workers.host.attached import MOST_ATTACHED

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("fleet_of_three")]

SLEEP = (IMAGE, "sleep", "300")
KILLED = ("--stop-signal", "KILL")


@pytest.fixture
def cli(fleet_of_three: System, docker_engine: PrivateEngine) -> Cli:
    """`fleet` beside them, and the Engine without containers."""
    return Cli({name: value for name, value in fleet_of_three.environment().items() if name.startswith("FLEET_")})


def names(client: docker.DockerClient) -> list[str]:
    return sorted(str(each.name) for each in client.containers.list(all=True, ignore_removed=True))


def test_run_says_what_the_container_says_and_exits_as_it_does(cli: Cli, docker_client: docker.DockerClient) -> None:
    done = cli("run", "--host", "edge-7", "--rm", "-e", "A=1", IMAGE, "sh", "-c", "echo $A; echo oh >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "1\n", "oh\n")
    assert names(docker_client) == []


def test_run_on_several_hosts_tells_them_apart(cli: Cli, docker_client: docker.DockerClient) -> None:
    script = "echo here; exit 3"
    done = cli("run", "-l", "kind=edge", "--name", "job", IMAGE, "sh", "-c", script)
    assert done.code == 125, "one Engine has a name once only"
    assert "--replace" in done.err
    assert names(docker_client) == ["job"]
    both = cli("run", "-l", "kind=edge", "--rm", IMAGE, "sh", "-c", script)
    assert (both.code, sorted(both.out.splitlines())) == (3, ["edge-7 | here", "edge-8 | here"])


def test_run_that_is_detached_returns_when_it_has_started(cli: Cli, docker_client: docker.DockerClient) -> None:
    done = cli("--json", "run", "--host", "edge-7", "-d", "--name", "web", *KILLED, *SLEEP)
    assert done.code == 0, done.err
    assert done.json[0]["container"]["name"] == "web"
    assert docker_client.containers.get("web").status == "running"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--host", "edge-7", "fleet-test/absent"), 125, "fleet-test/absent"),
        (("--host", "edge-7", "--privileged", *SLEEP), 125, "privileged (true is not granted)"),
        (("--host", "bare", *SLEEP), 125, "does not answer"),
        (("--host", "edge-7", "--network", "absent", *SLEEP), 125, "absent"),
        (("--host", "edge-7", "--memory", "much", *SLEEP), 2, "memory"),
        (("--host", "edge-7", "--name", "a/b", *SLEEP), 2, "name"),
        (("--host", "edge-7", "--rm", "-d", *SLEEP), 2, "--rm"),
        (SLEEP, 2, "no host is selected"),
    ],
    ids=["image", "policy", "no Engine", "network", "size", "slash", "flags", "no host"],
)
def test_what_cannot_run_is_said_and_nothing_is_left(
    cli: Cli, docker_client: docker.DockerClient, words: tuple[str, ...], code: int, says: str
) -> None:
    done = cli("run", *words)
    assert (done.code, says in done.err) == (code, True), done.err
    assert names(docker_client) == []


def test_a_container_is_made_from_a_file_and_steered(
    cli: Cli, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(f"image: {IMAGE}\nname: web\ncommand: [sleep, '300']\nlabels: {{app: shop}}\nstop_signal: KILL\n")
    assert cli("container", "create", "--host", "edge-7", "-f", str(file)).code == 0
    assert docker_client.containers.get("web").status == "created"
    for words in (("start", "web"), ("restart", "web", "-t", "1s"), ("kill", "web", "-s", "kill")):
        done = cli("container", *words, "--host", "edge-7")
        assert done.code == 0, done.err + done.out
        assert "web" in done.out
    assert docker_client.containers.get("web").wait()["StatusCode"] == 137
    waited = cli("container", "wait", "web", "--host", "edge-7")
    assert (waited.code, "exit code 137" in waited.out) == (0, True)
    looked = cli("container", "inspect", "web", "--host", "edge-7", "-o", "json").json
    assert looked["runs"][0]["reply"]["inspect"]["Config"]["Labels"]["app"] == "shop"
    replaced = cli("container", "create", "--host", "edge-7", "-f", str(file), "--replace", "--start")
    assert replaced.code == 0, replaced.err + replaced.out
    assert cli("container", "rm", "web", "--host", "edge-7").code == 1, "it runs"
    assert cli("container", "rm", "web", "--host", "edge-7", "--force").code == 0
    assert names(docker_client) == []
    gone = cli("container", "rm", "web", "--host", "edge-7")
    assert (gone.code, "`fleet ps` shows what there is" in gone.out) == (1, True)


def test_a_dry_run_says_what_the_policy_says_and_what_would_be_asked_for(
    cli: Cli, docker_client: docker.DockerClient
) -> None:
    fine = cli("container", "create", "--host", "edge-7", "--dry-run", "-p", "8080:80", *SLEEP)
    assert (fine.code, "lets it be made" in fine.out) == (0, True)
    told = cli("--json", "container", "create", "--host", "edge-7", "--dry-run", "-v", "/etc:/host", *SLEEP)
    assert told.code == 4
    (host,) = told.json["hosts"]
    assert (host["allowed"], [each["field"] for each in host["denials"]]) == (False, ["binds.0"])
    assert host["request"]["Image"] == IMAGE
    assert names(docker_client) == []
    assert told.json["spec"]["command"] == ["sleep", "300"]


def test_a_dry_run_tells_no_host_of_secrets_and_shows_them(cli: Cli, docker_client: docker.DockerClient) -> None:
    words = ("--host", "edge-7", "--dry-run", "--secret", "absent", "--secret", "absent:key", *SLEEP)
    for command in (("container", "create"), ("run",)):
        shown = cli(*command, *words)
        assert (shown.code, "lets it be made" in shown.out) == (0, True), shown.err
        assert "absent, as /run/secrets/absent" in shown.out
        assert "absent, as /run/secrets/key" in shown.out
        told = cli("--json", *command, *words)
        assert told.json["spec"]["secrets"] == [{"name": "absent"}, {"name": "absent", "file": "key"}]
    [newest, *_] = cli("task", "list", "--json").json
    seen = cli("task", "show", newest["id"], "--json").json
    assert (seen["task"], "absent" in json.dumps(seen)) == ("fleet.containers.check", False)
    assert "sleep" in json.dumps(seen)
    assert names(docker_client) == []


def test_run_says_that_a_container_cannot_be_followed_and_removes_it_all_the_same(
    cli: Cli, fleet_of_three: System, docker_client: docker.DockerClient
) -> None:
    talker = docker_client.containers.run(IMAGE, ["sleep", "300"], name="talker", detach=True)
    wish = {"container": "talker", "follow": True}
    fleet = fleet_of_three.fleet
    batches = [fleet.push(LOGS, on="edge-7", arguments=wish) for _ in range(MOST_ATTACHED)]
    # What is pushed later is taken later: all places are taken when this is carried out.
    done = cli("run", "--host", "edge-7", "--rm", "--name", "job", IMAGE, "true")
    runs = [run_id for batch in batches for run_id in batch.run_ids]
    for run_id in runs:
        fleet.cancel(run_id)
    for run_id in runs:  # the next test may want their places
        fleet_of_three.record(run_id, state="cancelled")
    assert "edge-7: what the container says cannot be followed: " in done.err
    assert f"{MOST_ATTACHED} tasks follow something here already" in done.err
    assert done.code == 125, "it cannot be waited for, either"
    assert names(docker_client) == ["talker"]
    talker.remove(force=True)


def test_a_secret_comes_from_the_standard_input(cli: Cli, tmp_path: Path) -> None:
    made = cli("secret", "create", "key", stdin="hunter2\n")
    assert (made.code, "hunter2" in made.out + made.err) == (0, False)
    assert "ends with a line break, which is part of it" in made.err
    assert "key" in cli("secret", "list").out
    missing = cli("secret", "create", "other", "--from-file", str(tmp_path / "absent"))
    assert (missing.code, "cannot be read" in missing.error) == (2, True)
    assert cli("secret", "rm", "key").code == 0
    assert cli("secret", "rm", "key").code == 2
