"""What the pages of docs/ tell people to type does what they say, on real components: a session of commands a test."""

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.services import reader as readers
from tests.services.database import SERVER, administer
from tests.services.docker import IMAGE
from tests.services.documents import ROOT, all_blocks, session
from tests.services.ports import free_ports
from tests.services.private_engine import PrivateEngine
from tests.services.reader import Reader

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def test_the_tutorial(make_reader: Callable[..., Reader], docker_engine: PrivateEngine, on_tmpfs: Path) -> None:
    broker, flower, api = free_ports(3)
    reader = make_reader(DOCKER_HOST=docker_engine.url, FLEET_SECRETS_DIR=str(on_tmpfs))
    reader.meant = {
        "make up": f"fleet up --host-id laptop --broker-port {broker} --flower-port {flower} --api-port {api}",
        "--name web nginx": f"--name web --stop-signal KILL {IMAGE} /bin/sleep 300",
    }
    reader.shows = {"fleet ps": "web", "fleet host list": "laptop"}
    reader.ends = {
        "fleet exec --host \"$HOST\" -- bash -c 'echo hello'": 125,
        'FLEET_PRINCIPAL=student-1 fleet approval approve "$RUN" -y': 4,
    }
    reader.follow(session("tutorial"))

    events = [json.loads(line) for line in (reader.here / "audit.jsonl").read_text().splitlines()]
    assert {"host.enrolled", "run.succeeded", "run.approved"} <= {event["event"] for event in events}


@pytest.fixture
def role() -> Iterator[str]:
    """A name for a role and its database that nobody else has; both are gone afterwards."""
    name = f"fleet_test_{uuid.uuid4().hex}"
    yield name
    administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    administer(f"DROP ROLE IF EXISTS {name}")


@pytest.mark.postgres
def test_the_guide_to_production(
    make_reader: Callable[..., Reader], docker_engine: PrivateEngine, on_tmpfs: Path, postgres: None, role: str
) -> None:
    broker, metrics, flower, health, host_health = free_ports(5)
    control = make_reader(FLEET_FLOWER_PORT=str(flower), FLEET_HEALTH_ADDRESS=f"127.0.0.1:{health}")
    etc = control.directory / "etc"
    control.environment |= {"FLEET_CONFIG": str(etc / "fleet" / "fleet.toml")}
    server = urlsplit(SERVER)
    control.meant = {
        "/etc/": f"{etc}/",
        "/var/": f"{control.directory}/var/",
        "broker.example:6379": f"localhost:{broker}",
        "broker.example": "localhost",
        "tls-port 6379": f"tls-port {broker}",
        "127.0.0.1:9464": f"127.0.0.1:{metrics}",
        "127.0.0.1:8001": f"127.0.0.1:{health}",
        "postgresql://postgres@db.example/postgres": SERVER,
        "db.example": f"{server.hostname}:{server.port or 5432}",
        "fleetdb": role,
        "cp config/": f"cp {ROOT}/config/",
    }
    (etc / "fleet").mkdir(parents=True)
    # What /etc/fleet/fleet.toml is on a machine of its own: found by itself, and not there in the beginning.
    (etc / "fleet" / "fleet.toml").touch()
    control.follow(session("production"))

    host = make_reader(
        DOCKER_HOST=docker_engine.url,
        FLEET_SECRETS_DIR=str(on_tmpfs),
        FLEET_HEALTH_ADDRESS=f"127.0.0.1:{host_health}",
    )
    host.meant = {"127.0.0.1:8000": f"127.0.0.1:{host_health}"}
    shutil.copy(control.here / "edge-7.token", host.here)
    host.follow(session("production-host"))
    try:
        control.shows = {"fleet host list": "online"}
        control.follow(session("production-works"))
        served = control.run("curl --silent --fail http://127.0.0.1:9464/metrics")
        for name in set(re.findall(r"fleet_\w+", "".join(b.text for b in all_blocks() if b.kind == "alerts"))):
            assert f"\n# TYPE {name} " in served, f"no metric {name}"

        assert "fleet-control" in control.follow(session("production-systemd"))
        control.follow(session("production-health"))
        host.follow(session("production-host-health"))

        control.follow(session("production-backup"))
        control.run("fleet principal create made-since --level student")
        control.end("fleet control")
        control.follow(session("production-restore"))
        control.start("fleet control", says="control.started", where="a test")
        control.shows["fleet host list"] = "edge-7  online"
        control.follow(session("production-after"))
        assert control.run("fleet principal list -o id").split() == ["admin"]

        control.end("redis-server /etc/redis/fleet.conf")
        shutil.rmtree(control.directory / "var" / "lib" / "redis" / "appendonlydir")
        control.start("redis-server /etc/redis/fleet.conf", says="Ready to accept connections", where="a test")
        control.shows["fleet push-task fleet.host.ping --host edge-7 --arg echo=hello --wait"] = "hello"
        control.follow(session("production-works"))

        control.follow(session("production-upgrade"))
        host.follow(session("production-host-upgrade"))
        control.follow(session("production-upgraded"))
    finally:
        host.run("fleet worker stop --host-id edge-7")


def test_the_page_about_the_rest_api(
    make_reader: Callable[..., Reader], docker_engine: PrivateEngine, on_tmpfs: Path
) -> None:
    broker, flower, api = free_ports(3)
    reader = make_reader(DOCKER_HOST=docker_engine.url, FLEET_SECRETS_DIR=str(on_tmpfs), FLEET_API_PORT=str(api))
    readers.up(reader, broker=broker, flower=flower)
    reader.meant = {"edge-7": "laptop", "127.0.0.1:5556": f"127.0.0.1:{api}"}
    executed = json.loads(reader.follow(session("rest")))
    assert (executed["status"], executed["exit_code"]) == ("completed", 0)
    pushed = json.loads((reader.here / "pushed.json").read_text())
    assert (pushed["status"], pushed["agent_id"]) == ("queued", "laptop")
    (events,) = (said for command, said in reader.said.items() if command.endswith("/events"))
    assert "event: run.succeeded" in events
    assert "event: end" in events


POLICY = """
[[commands]]
name = "uptime"
risk = "reads"
argv = ["/usr/bin/uptime"]

[[commands]]
name = "free disk space"
risk = "reads"
argv = ["/bin/df", "-h"]

[[commands]]
name = "restart a service"
risk = "changes"
argv = ["/usr/bin/systemctl", "restart", { enum = ["nginx"] }]

[[files]]
name = "the application"
root = "ROOT"
may = ["list", "get", "put"]
"""


def test_the_pages_about_what_may_be_done(
    make_reader: Callable[..., Reader], docker_engine: PrivateEngine, on_tmpfs: Path
) -> None:
    broker, flower = free_ports(2)
    reader = make_reader(DOCKER_HOST=docker_engine.url, FLEET_SECRETS_DIR=str(on_tmpfs))
    readers.up(reader, broker=broker, flower=flower)
    app = reader.directory / "app"
    app.mkdir()
    (app / "app.log").write_text("it works\n")
    (reader.here / "app.env").write_text("LEVEL=1\n")
    (reader.here / "policy.toml").write_text(POLICY.replace("ROOT", str(app)))
    reader.run("fleet host label laptop env=prod")
    reader.run("fleet principal create deploy-bot --level supervised")
    reader.run("fleet principal create student-1 --level student")
    reader.meant = {"edge-7": "laptop", "/srv/app": str(app), "--owner app --group app": "--owner root --group root"}
    reader.shows = {"fleet policy show": "restart a service"}
    reader.follow(session("policy"))

    reader.shows = {"fleet file get /srv/app/app.log --host edge-7 -O -": "it works"}
    reader.follow(session("files"))
    assert (app / "app.env").read_text() == "LEVEL=1\n"
    assert (app / "app.env").stat().st_mode & 0o777 == 0o640

    asked = reader.run("FLEET_PRINCIPAL=student-1 fleet exec --host laptop --detach -o id -- df -h").strip()
    reader.meant = {"5f0d1c2b3a49": asked, "edge-7": "laptop"}
    reader.shows = {"fleet approval list": asked, "fleet audit list --kind shell": "student-1"}
    assert reader.follow(session("shell")).startswith("0 Filesystem")
