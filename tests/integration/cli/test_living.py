"""The commands that need the others at work: a control worker and a host, as processes, without a Docker Engine."""

import json
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet import names
from tests.integration.cli.conftest import Cli
from tests.services import forks
from tests.services.broker import Broker
from tests.services.freezing import frozen

NO_ENGINE = "unix:///nonexistent/docker.sock"


def until(seen: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Wait until something can be seen from outside; fail when it cannot in time."""
    ends, pause = time.monotonic() + seconds, threading.Event()
    while not seen():
        assert time.monotonic() < ends, "it did not come"
        pause.wait(0.05)


@contextmanager
def running(cli: Cli, *words: str, **environment: str) -> Iterator[forks.Process]:
    """Run a service; ended when the block ends."""
    log = Path(cli.environment["FLEET_STATE_DIR"]) / f"{words[0]}.log"
    with log.open("w") as stream:
        process = forks.start(words, env=cli.environ(**environment), output=stream, errors=stream)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


@pytest.fixture
def control(cli: Cli, broker: Broker) -> Iterator[None]:
    with running(cli, "control"), broker.connect() as client:
        until(lambda: client.exists(names.CONTROL_LEASE))
        yield


@pytest.fixture
def host(cli: Cli, control: None, broker: Broker) -> Iterator[forks.Process]:
    """Run the worker of edge-7, enrolled on the way."""
    token = cli("token", "create", "--label", "env=prod", "-o", "id").out.strip()
    with (
        running(cli, "worker", "--host-id", "edge-7", "--token", token, DOCKER_HOST=NO_ENGINE) as process,
        broker.connect() as client,
    ):
        until(lambda: client.exists(names.presence("edge-7")))
        yield process


def test_a_token_lets_one_host_in_and_the_credential_is_the_owners_alone(cli: Cli, control: None) -> None:
    created = cli("token", "create", "--label", "env=prod", "--json").json
    token = created["token"]
    [listed] = cli("token", "list", "--json").json
    assert listed["id"] == created["id"]
    assert listed["state"] == "valid"
    assert token.split(".")[2] not in json.dumps(listed)

    done = cli("enroll", token, "--host-id", "edge-7", "--json")
    assert done.code == 0
    path = Path(done.json["credential"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert done.json["labels"] == {"env": "prod"}

    again = cli("enroll", token, "--host-id", "edge-7")
    assert again.code == 4
    assert f"edge-7 is enrolled already: {path} exists; `--force` enrolls it again" in again.error
    used = cli("enroll", token, "--host-id", "edge-8")
    assert used.code == 4
    assert "enrollment refused" in used.error
    assert cli("token", "list", "--json").json[0]["state"] == "used"

    [record] = cli("host", "list", "--json").json
    assert record["id"] == "edge-7"
    assert record["presence"] == "offline"
    assert record["labels"] == {"env": "prod"}
    assert cli("host", "list", "-l", "env=test", "--json").json == []
    assert cli("host", "list", "--presence", "online", "--json").json == []

    path.chmod(0o644)
    readable = cli("worker", "--host-id", "edge-7")
    assert readable.code == 4
    assert "others can read it (mode 0644); chmod 600" in readable.error


def test_a_token_may_come_from_a_file_or_the_environment_or_standard_input(
    cli: Cli, control: None, tmp_path: Path
) -> None:
    def token() -> str:
        return cli("token", "create", "-o", "id").out.strip()

    (tmp_path / "token").write_text(token() + "\n")
    assert cli("enroll", "--token-file", str(tmp_path / "token"), "--host-id", "a").code == 0
    assert cli("enroll", "--token-file", "-", "--host-id", "b", stdin=token()).code == 0
    assert cli("enroll", "--host-id", "c", FLEET_TOKEN=token()).code == 0
    (tmp_path / "token").write_text(token())
    assert cli("enroll", "--host-id", "d", FLEET_TOKEN_FILE=str(tmp_path / "token")).code == 0
    assert cli("host", "list", "-o", "id").out.split() == ["a", "b", "c", "d"]
    missing = cli("enroll", "--token-file", "/no/such/file", "--host-id", "e")
    assert missing.code == 2
    assert "cannot read '/no/such/file'" in missing.error
    (tmp_path / "token").write_text("")
    assert "is empty" in cli("enroll", "--token-file", str(tmp_path / "token"), "--host-id", "e").error


def test_a_revoked_or_malformed_token_enrolls_nobody(cli: Cli, control: None) -> None:
    created = cli("token", "create", "--json").json
    assert cli("token", "revoke", created["id"]).code == 0
    assert cli("token", "list", "--json").json[0]["state"] == "revoked"
    refused = cli("enroll", created["token"], "--host-id", "edge-7")
    assert refused.code == 4
    unknown = cli("token", "revoke", "0000000000000000")
    assert unknown.code == 2
    assert "no token with the id" in unknown.error
    malformed = cli("enroll", created["token"][:-70], "--host-id", "edge-7")
    assert malformed.code == 2
    assert "is not an enrollment token" in malformed.error
    assert created["token"].split(".")[2][:20] not in malformed.err
    assert cli("enroll", "--host-id", "edge-7").code == 2


def test_a_worker_without_a_credential_says_how_to_get_one(bare: Cli) -> None:
    done = bare("worker", "--host-id", "edge-7")
    assert done.code == 4
    assert "host 'edge-7' has no credential" in done.error
    assert "`fleet token create`" in done.error


def test_a_task_is_pushed_waited_for_and_followed(cli: Cli, host: forks.Process) -> None:
    waited = cli("push-task", "fleet.host.ping", "--host", "edge-7", "--arg", "echo=5", "--wait", "-o", "json")
    assert waited.code == 0, waited.err
    [run] = waited.json["runs"]
    assert run["state"] == "succeeded"
    assert run["reply"]["echo"] == "5"
    assert run["error"] is None
    assert waited.err == ""

    followed = cli("push-task", "fleet.host.ping", "-l", "env=prod", "--follow", "-o", "jsonl")
    assert followed.code == 0, followed.err
    assert json.loads(followed.out)["state"] == "succeeded"
    told = re.findall(r"run\.\w+", followed.err)
    assert told == ["run.queued", "run.accepted", "run.started", "run.succeeded"]

    pushed = cli("push-task", "fleet.host.ping", "--all", "-o", "id").out.strip()
    assert names.host_of_run(pushed) == "edge-7"
    assert cli("task", "wait", pushed, "--timeout", "30s").code == 0
    until(lambda: cli("task", "show", pushed, "--json").json["state"] == "succeeded")

    people = cli("push-task", "fleet.host.ping", "--host", "edge-7", "--arg", "echo=\x1b[31m", "--wait")
    assert people.code == 0
    assert "State: succeeded" in people.out
    assert "\x1b" not in people.out


def test_a_task_that_fails_says_why_and_exits_so(cli: Cli, host: forks.Process) -> None:
    done = cli("push-task", "fleet.containers.list", "--host", "edge-7", "--wait", "-o", "json")
    [run] = done.json["runs"]
    assert run["state"] == "failed"
    assert run["error"]["kind"] == "engine_unavailable"
    assert run["error"]["message"]
    assert done.code == run["error"]["exit_code"] != 0
    until(lambda: cli("task", "show", run["id"], "--json").json["state"] == "failed")
    waited = cli("task", "wait", run["id"], "-o", "json")
    assert waited.json["runs"][0]["state"] == "failed"
    assert waited.code == 1


def test_an_interrupted_wait_leaves_the_task_alone(cli: Cli, host: forks.Process) -> None:
    with frozen(host.pid):
        process = cli.start("push-task", "fleet.host.ping", "--host", "edge-7", "--follow")
        assert process.stderr is not None
        assert "run.queued" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "fleet: interrupted" in said
    assert "Traceback" not in said


def test_health_follows_the_worker(cli: Cli, host: forks.Process, broker: Broker) -> None:
    until(lambda: cli("health", "--host-id", "edge-7").code == 0)
    here = cli("health", "--host-id", "edge-7", "--json")
    assert {part["part"]: part["healthy"] for part in here.json} == {"worker": True, "control": True}
    ready = cli("health", "worker", "--host-id", "edge-7", "--ready")
    assert ready.code == 1
    assert "the Engine does not answer" in ready.out
    host.terminate()
    host.wait(30)
    gone = cli("health", "worker", "--host-id", "edge-7")
    assert gone.code == 1
    assert "edge-7 has no heartbeat" in gone.out
    broker.stop()
    try:
        until(lambda: cli("health", "control").code == 1)
        away = cli("health", "--host-id", "edge-7", "--json")
        live = cli("health", "control", "--live")
    finally:
        broker.start()
    assert away.code == 1
    assert [part["healthy"] for part in away.json] == [False, False]
    assert live.code == 0, "it tries to connect: nobody gains by ending it"


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(cli: Cli, host: forks.Process, broker: Broker) -> None:
    environment = {"DOCKER_HOST": NO_ENGINE, "FLEET_FLOWER_PORT": "1"}
    well = cli("doctor", "--json", **environment)
    levels = {check["check"]: check["level"] for check in well.json["checks"]}
    assert well.code == 0, well.out
    for check in (
        "broker",
        "append-only file",
        "eviction",
        "clock",
        "control plane",
        "hosts",
        "database",
        "credential",
    ):
        assert levels[check] == "ok", check
    assert levels["docker"] == levels["flower"] == levels["host edge-7"] == "warn"
    with broker.connect() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            evicting = cli("doctor", **environment)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        published = client.get(names.TRUST), client.hgetall(names.HOSTS)
        client.delete(names.TRUST, names.HOSTS)
        try:
            emptied = cli("doctor", **environment)
        finally:
            client.set(names.TRUST, published[0])
            client.hset(names.HOSTS, mapping=published[1])
    assert emptied.code == 1
    assert "knows nothing of the fleet" in emptied.out
    assert evicting.code == 1
    assert "set `maxmemory-policy noeviction`" in evicting.out


def test_the_doctor_works_when_everything_is_down(bare: Cli, tmp_path: Path) -> None:
    down = {
        "FLEET_BROKER_URL": "redis://:hunter2@127.0.0.1:1/0",
        "FLEET_DATABASE_URL": "postgresql://fleet:hunter3@127.0.0.1:1/fleet",
        "DOCKER_HOST": NO_ENGINE,
        "FLEET_FLOWER_PORT": "1",
    }
    done = bare("doctor", "--json", **down)
    assert done.code == 1
    levels = {check["check"]: check["level"] for check in done.json["checks"]}
    assert levels == {
        "broker": "fail",
        "database": "fail",
        "docker": "warn",
        "flower": "warn",
        "principal": "warn",
        "state directory": "ok",
    }
    assert all(check["remedy"] for check in done.json["checks"] if check["level"] != "ok")
    assert "hunter" not in done.out + done.err
    assert bare("doctor", FLEET_BROKR_URL="x").code == 1
