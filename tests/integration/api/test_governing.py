"""Hosts, enrollment tokens, principals and the audit by REST, and what is said when something is away."""

import json
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests

from fleet import clock, credentials, db, errors, inventory, joining
from fleet.bearer import Scope
from fleet.client import Fleet
from fleet.contracts.credentials import PrincipalCredential
from fleet.local import launch
from tests import factories
from tests.services.freezing import frozen
from tests.services.proxy import Link
from tests.services.rest import Rest, serve_rest
from tests.services.system import System
from tests.services.waiting import until

pytestmark = [pytest.mark.xdist_group("rest"), pytest.mark.timeout(180)]


def admin(rest: Rest, method: str, path: str, body: Any = None) -> Any:
    answer = rest.ask(method, path, scope=Scope.ADMIN, json=body)
    assert answer.status in {200, 201}, answer.text
    return answer.json


def test_a_host_is_shown_with_its_presence_and_only_to_whom_may_push_there(rest: Rest) -> None:
    shown = rest.get("/api/hosts/h1").json
    assert (shown["presence"], shown["labels"]["env"], shown["heartbeat"]["host"]) == ("online", "test", "h1")
    assert [host["id"] for host in rest.get("/api/hosts", params={"label": "env=test", "presence": "online"}).json] == [
        "h1"
    ]
    assert rest.get("/api/hosts", params={"label": "env=prod"}).json == []
    assert rest.get("/api/hosts", params={"label": "env"}).json["code"] == "invalid_request"
    rest.system.introduce("afar", selectors={"env": "prod"})
    assert rest.get("/api/hosts", by="afar").json == []
    assert rest.get("/api/hosts", by="afar", params={"label": "env=test"}).json == []
    for path in ("/api/hosts/h1", "/api/hosts/nobody"):
        answer = rest.get(path, by="afar")
        assert (answer.status, answer.json["detail"].replace("nobody", "h1")) == (404, "no host named 'h1' is enrolled")
    assert rest.get("/api/containers", params={"host": "h1"}, by="afar").status == 404


def test_containers_are_listed_of_the_hosts_that_one_may_push_to(rest: Rest) -> None:
    web = factories.container(name="web", state="running")
    old = factories.container(name="old", docker_id="b" * 64, state="exited", labels={"fleet.managed": "true"})
    rest.system.enroll("holder", labels={"env": "shop"})
    with db.session(rest.system.engine) as session:
        inventory.sync_containers(session, "holder", [web, old], at=clock.now())
    listed = rest.get("/api/containers", params={"host": "holder"}).json
    assert [(each["name"], each["state"], each["managed"]) for each in listed] == [
        ("old", "exited", True),
        ("web", "running", False),
    ]
    for narrowed, name in (({"running": True}, "web"), ({"managed": True}, "old")):
        found = rest.get("/api/containers", params={"host": "holder", **narrowed}).json
        assert [each["name"] for each in found] == [name]
    rest.system.introduce("shopper", selectors={"env": "shop"})
    assert {each["host"] for each in rest.get("/api/containers", by="shopper").json} == {"holder"}
    assert rest.get("/api/containers", params={"host": "h1"}, by="shopper").status == 404


def pages(
    rest: Rest,
    path: str,
    cursor: Callable[[Any], str],
    *,
    by: str = "alice",
    scope: Scope = Scope.USE,
    follows: str = "after",
    **params: Any,
) -> list[Any]:
    """Return what pages of two have, one after the other."""
    found: list[Any] = []
    while True:
        after = {follows: cursor(found[-1])} if found else {}
        page = rest.get(path, by=by, scope=scope, params={"limit": 2, **params, **after}).json
        assert len(page) <= 2
        found += page
        if len(page) < 2:
            return found


def test_pages_of_what_there_is_follow_each_other(rest: Rest) -> None:
    for number in range(5):
        rest.system.enroll(f"paged-{number}", labels={"env": "pages"})
    with db.session(rest.system.engine) as session:
        for number in range(5):
            held = [
                factories.container(name="web", labels={"fleet.managed": "true"}),
                factories.container(name="old", state="exited"),
            ]
            inventory.sync_containers(session, f"paged-{number}", held, at=clock.now())
    for params in ({}, {"presence": "offline"}):
        found = pages(rest, "/api/hosts", lambda host: str(host["id"]), label="env=pages", **params)
        assert [host["id"] for host in found] == [f"paged-{number}" for number in range(5)], params
    rest.system.introduce("reader-of-pages", selectors={"env": "pages"})
    for params, names in (({}, ["old", "web"]), ({"running": True}, ["web"]), ({"managed": True}, ["web"])):
        found = pages(
            rest, "/api/containers", lambda one: f"{one['host']}/{one['name']}", by="reader-of-pages", **params
        )
        assert [(one["host"], one["name"]) for one in found] == [
            (f"paged-{number}", name) for number in range(5) for name in names
        ]
    for number in range(3):
        rest.system.introduce(f"paged-{number}")
        rest.system.token()
    for path, follows in (("/api/principals", "after"), ("/api/tokens", "before")):
        found = pages(rest, path, lambda one: str(one["id"]), scope=Scope.ADMIN, follows=follows)
        whole = admin(rest, "GET", f"{path}?limit=1000")
        assert len(whole) > 3
        assert found == whole
    for path in ("/api/hosts", "/api/containers"):
        for wrong in ({"limit": 0}, {"limit": 1001}, {"after": "/"}):
            answer = rest.get(path, params=wrong)
            assert (answer.status, list(answer.json["fields"])) == (400, list(wrong))


def test_labels_are_set_and_removed_and_count_for_pushes(rest: Rest) -> None:
    assert admin(rest, "POST", "/api/hosts/h1/labels", {"set": {"rack": "4"}})["labels"]["rack"] == "4"
    assert rest.post("/api/pushes", {"selector": {"rack": "4"}, "task": "fleet.host.ping"}).status == 200
    assert "rack" not in admin(rest, "POST", "/api/hosts/h1/labels", {"remove": ["rack"]})["labels"]
    wrong = rest.post("/api/hosts/h1/labels", {"set": {"a b": "c"}}, scope=Scope.ADMIN)
    assert (wrong.status, wrong.code) == (400, "invalid_request")
    many = rest.post("/api/hosts/h1/labels", {"set": {f"l{n}": "" for n in range(64)}}, scope=Scope.ADMIN)
    assert (many.status, list(many.json["fields"])) == (400, ["set"]), "with those that it has already"


def test_a_token_made_here_enrolls_a_host_and_a_revoked_one_does_not(rest: Rest) -> None:
    made = admin(rest, "POST", "/api/tokens", {"host_id": "by-rest", "labels": {"env": "rest"}})
    credential = joining.join(made["token"], host="by-rest", version="test")
    assert credential.labels == {"env": "rest"}
    [listed] = [each for each in admin(rest, "GET", "/api/tokens") if each["id"] == made["id"]]
    assert (listed["state"], "token" in listed) == ("used", False)
    other = admin(rest, "POST", "/api/tokens")
    assert admin(rest, "DELETE", f"/api/tokens/{other['id']}") == {"status": "asked", "id": other["id"]}
    assert admin(rest, "DELETE", "/api/hosts/by-rest")["id"] == "by-rest"
    assert rest.get("/api/hosts/by-rest").json["membership"] == "revoked"


def test_a_principal_made_here_pushes_by_its_file_and_by_its_token_until_it_is_revoked(
    rest: Rest, tmp_path: Path
) -> None:
    made = admin(rest, "POST", "/api/principals", {"id": "robot", "level": "student", "approves": ["reads"]})
    path = tmp_path / "robot.json"
    credentials.save_principal(path, PrincipalCredential.model_validate(made["file"]))
    settings = rest.system.settings.model_copy(update={"principal": "robot", "principal_file": path})
    with Fleet(settings) as fleet:
        fleet.push("fleet.host.ping", on="h1")
    headers = {"Authorization": f"Bearer {made['bearer_token']}"}
    me = rest.get("/api/me", by=None, headers=headers).json
    assert (me["id"], me["level"], me["scope"], me["approves"]) == ("robot", "student", "use", ["reads"])
    [token] = admin(rest, "GET", "/api/principals/robot/tokens")
    assert (token["state"], token["id"]) == ("valid", me["token_id"])
    assert admin(rest, "POST", "/api/principals/robot/level", {"level": "intern"})["level"] == "intern"
    assert rest.post("/api/principals", {"id": "robot", "level": "intern"}, scope=Scope.ADMIN).status == 409
    assert "robot" in {each["id"] for each in admin(rest, "GET", "/api/principals")}
    admin(rest, "DELETE", "/api/principals/robot")
    assert rest.get("/api/me", by=None, headers=headers).code == "token_ended"
    wrong = rest.post("/api/principals", {"id": "x", "level": "root"}, scope=Scope.ADMIN)
    assert (wrong.status, list(wrong.json["fields"])) == (400, ["level"])


def test_the_audit_has_who_did_what_by_rest(rest: Rest) -> None:
    made = admin(rest, "POST", "/api/tokens", {"uses": 3})
    found = rest.get("/api/audit", scope=Scope.AUDIT, params={"event": "token.created", "actor": "p:alice"}).json
    assert found[-1]["data"]["token"] == made["id"]
    after = rest.get("/api/audit", scope=Scope.AUDIT, params={"after_id": 0, "limit": 2}).json
    assert [event["id"] for event in after] == [1, 2]
    assert rest.get("/api/audit/sessions", scope=Scope.AUDIT).status == 200
    assert rest.get("/api/audit", scope=Scope.AUDIT, params={"run": "nobody:1"}).status == 404


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/api", "/api/", "/api/hosts/", "/metrics", "/api/h%00sts"])
def test_what_is_not_served_is_a_problem_too(rest: Rest, path: str) -> None:
    answer = rest.get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    answer = rest.ask("DELETE", "/api/hosts")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", "GET")


def test_what_is_too_large_is_refused_before_it_is_read(rest: Rest) -> None:
    answer = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "x", "arguments": {"a": "x" * 2_000_000}})
    assert (answer.status, answer.code) == (413, "too_large")

    def unannounced() -> Any:
        for _ in range(200):
            yield b" " * 10_000

    answer = rest.ask("POST", "/api/admin/push-task", data=unannounced())
    assert (answer.status, answer.code) == (413, "too_large")
    deep = "[" * 100_000
    answer = rest.ask("POST", "/api/admin/push-task", data=deep, headers={"Content-Type": "application/json"})
    assert answer.status == 400


def test_answers_are_data_for_their_caller_alone(rest: Rest) -> None:
    name = "<img src=x onerror=alert(1)>\u202e\u001b[2J\nInjected: header"
    run = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping", "description": name}).json
    answer = rest.get(f"/api/runs/{run['task_id']}")
    assert answer.json["description"] == name
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "injected" not in answer.headers
    for line in rest.part.log.read_text().splitlines()[1:]:
        assert json.loads(line)["level"] != "error", line


def test_no_secret_reaches_the_log(rest: Rest) -> None:
    made = admin(rest, "POST", "/api/tokens")
    rest.get(f"/api/me?token={made['token']}")
    said = rest.part.log.read_text()
    for secret in (made["token"].split(".")[2], *(token.split(".")[2] for token in rest.tokens.values())):
        assert secret not in said


def test_many_ask_at_once(rest: Rest) -> None:
    found: list[int] = []

    def ask() -> None:
        found.append(rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"}).status)

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [200] * 24


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_broker_that_is_away_is_said_without_its_address_and_found_again(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    with serve_rest(system) as rest:
        assert rest.get("/health/ready", by=None).json["status"] == "ok"
        system.broker.stop(kill=True)
        answer = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"})
        assert (answer.status, answer.code) == (503, "broker_unavailable")
        assert answer.headers["retry-after"]
        assert "127.0.0.1" not in answer.text
        assert rest.get("/api/hosts").json[0]["presence"] == "unknown"
        ready = rest.get("/health/ready", by=None)
        assert (ready.status, ready.json["checks"]["broker"]["ok"]) == (503, False)
        assert rest.get("/health/live", by=None).status == 200
        system.broker.start()
        until(lambda: rest.get("/health/ready", by=None).status == 200, "the broker is found again", timeout=30)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_worker_of_its_machine_is_started_and_stopped_and_another_ones_is_left_alone(system: System) -> None:
    system.start_control()
    system.enroll("here")
    with serve_rest(system, FLEET_HOST_ID="here") as rest:
        assert admin(rest, "GET", "/api/worker") == {
            "host": "here",
            "state": "stopped",
            "pid": None,
            "started_by": None,
        }
        started = admin(rest, "POST", "/api/worker/start")
        try:
            assert (started["state"], started["started_by"]) == ("running", "start")
            assert admin(rest, "POST", "/api/worker/start")["pid"] == started["pid"], "one that runs is left as it is"
            pushed = rest.post("/api/admin/push-task", {"agent_id": "here", "task": "fleet.host.ping"})
            assert pushed.status == 200, pushed.text
        finally:
            assert admin(rest, "POST", "/api/worker/stop", {"host_id": "here"})["state"] == "stopped"
        part = system.start_worker("here")
        answer = rest.post("/api/worker/stop", scope=Scope.ADMIN)
        assert (answer.status, answer.code) == (409, "refused")
        assert part.process.poll() is None


def environment_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_worker_is_started_as_its_owner_had_started_it_and_knows_nothing_of_the_control_plane(
    system: System, tmp_path: Path
) -> None:
    system.start_control()
    system.enroll("here")
    (tmp_path / "policy.toml").write_text("[shell]\nenabled = true\n")
    (tmp_path / "own.toml").write_text("shell = true\n")
    own = {"FLEET_CONFIG": str(tmp_path / "own.toml"), "FLEET_CONCURRENCY": "3", "FLEET_PRINCIPAL": "alice"}
    with serve_rest(system, FLEET_HOST_ID="here", FLEET_FLOWER_PASSWORD="a-secret", FLEET_LOG_LEVEL="debug") as rest:
        begun = system.command("worker", "start", "--host-id", "here", "--no-shell", **own)
        assert begun.returncode == 0, begun.stderr
        first = admin(rest, "GET", "/api/worker")["pid"]
        try:
            admin(rest, "POST", "/api/worker/stop")
            again = admin(rest, "POST", "/api/worker/start")["pid"]
            assert again != first
            assert "--no-shell" in Path(f"/proc/{again}/cmdline").read_text().split("\0")
            found = environment_of(again)
            assert (found["FLEET_CONFIG"], found["FLEET_CONCURRENCY"]) == (own["FLEET_CONFIG"], "3")
            assert "FLEET_LOG_LEVEL" not in found, "which is the API's"
            assert not {"FLEET_DATABASE_URL", "FLEET_FLOWER_PASSWORD", "FLEET_PRINCIPAL"} & found.keys()
            refused = system.fleet.push("fleet.shell.run", on="here", arguments={"argv": ["uptime"]}).results[0]
            with pytest.raises(errors.TaskRejected, match="switched_off"):
                refused.get(timeout=30)
        finally:
            admin(rest, "POST", "/api/worker/stop")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_worker_that_has_never_run_is_started_by_the_settings_file_of_the_api(system: System, tmp_path: Path) -> None:
    system.start_control()
    system.enroll("here")
    (tmp_path / "api.toml").write_text("shell = false\n")
    with serve_rest(system, "-c", str(tmp_path / "api.toml"), FLEET_HOST_ID="here") as rest:
        try:
            pid = admin(rest, "POST", "/api/worker/start")["pid"]
            assert environment_of(pid)["FLEET_CONFIG"] == str(tmp_path / "api.toml")
            assert (
                "no commands and no files, which are switched off"
                in (system.directory / "hosts/here/worker.log").read_text()
            )
        finally:
            admin(rest, "POST", "/api/worker/stop")
        note = system.directory / "hosts" / "here" / launch.FILE
        assert note.stat().st_mode & 0o777 == 0o600
        note.write_text("{")
        answer = rest.post("/api/worker/start", scope=Scope.ADMIN)
        assert (answer.status, answer.code) == (409, "refused")
        assert admin(rest, "GET", "/api/worker")["state"] == "stopped"


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_stream_ends_when_the_api_does_and_the_api_ends_well(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    system.start_worker("h1")
    with serve_rest(system) as rest:
        body = {"agent_id": "h1", "task": "fleet.host.ping", "delay_seconds": 600}
        run = rest.post("/api/admin/push-task", body).json["task_id"]
        url = f"{rest.url}/api/runs/{run}/events"
        with requests.get(url, headers={"Authorization": f"Bearer {rest.token()}"}, stream=True, timeout=60) as stream:
            lines = stream.iter_lines(decode_unicode=True)
            assert next(lines) == "event: run.queued"
            assert rest.part.stop(timeout=30) == 0
            assert "event: end" not in list(lines), "the run goes on"


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_database_that_is_away_is_said_without_its_address_and_found_again(system: System) -> None:
    parts = urlsplit(system.database_url)
    link = Link(parts.port or 5432)
    url = urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{link.port}"))
    system.start_control()
    system.enroll("h1")
    with closing(link), serve_rest(system, FLEET_DATABASE_URL=url) as rest:
        assert rest.get("/api/hosts").status == 200
        link.cut()
        answer = rest.get("/api/hosts")
        assert (answer.status, answer.code, "127.0.0.1" in answer.text) == (503, "database_unavailable", False)
        assert rest.get("/health/ready", by=None).json["checks"]["database"]["ok"] is False
        link.mend()
        until(lambda: rest.get("/api/hosts").status == 200, "the database is found again", timeout=30)


def test_a_broker_that_hangs_holds_up_no_one_who_does_not_need_it(rest: Rest) -> None:
    server = rest.system.broker.process
    assert server is not None
    with frozen(server.pid):
        assert rest.get("/api/tasks").status == 200
        assert rest.get("/health/live", by=None).status == 200
        answer = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"})
        assert (answer.status, answer.code) == (503, "broker_unavailable")
    until(lambda: rest.get("/health/ready", by=None).status == 200, "it is back", timeout=30)
    rest.system.await_heartbeat("h1")
