"""Sight by REST: a host that the caller's selectors do not name is answered for like one that does not exist."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet import names
from fleet.bearer import Scope
from fleet.dispatch import MOST_WAITING
from fleet.security.identity import Level
from tests.services.rest import Answer, Rest
from tests.services.waiting import until

pytestmark = [pytest.mark.xdist_group("rest"), pytest.mark.timeout(180)]

PUSH = "/api/admin/push-task"
PING = {"task": "fleet.host.ping"}
#: Like no other name here, so that nothing is suggested for it.
UNKNOWN = "zzzzzz"
#: Hosts out of near's sight: away, away and paused, and away with a full queue.
AWAY, PAUSED, FULL = "prod-away", "prod-paused", "prod-full"


@pytest.fixture(scope="module")
def sighted(rest: Rest) -> Iterator[Rest]:
    """The standing fleet with hosts of two kinds: `near` sees h1, which is there, and `afar` the others."""
    for host in (AWAY, PAUSED, FULL):
        rest.system.enroll(host, labels={"env": "prod"})
    for name, env in (("near", "test"), ("afar", "prod"), ("nowhere", "lab")):
        rest.system.introduce(name, selectors={"env": env})
    rest.system.introduce("near-student", Level.STUDENT, selectors={"env": "test"})
    assert rest.post(f"/api/hosts/{PAUSED}/pause", scope=Scope.ADMIN).status == 200
    rest.system.redis.lpush(names.queue(FULL), *["x"] * MOST_WAITING)
    answers = {host: push_to(rest, host) for host in (PAUSED, FULL)}
    assert {host: answer.code for host, answer in answers.items()} == {PAUSED: "host_not_available", FULL: "queue_full"}
    yield rest
    rest.system.redis.delete(names.queue(FULL))


def push_to(rest: Rest, host: str, *, by: str = "alice") -> Answer:
    """Push to a host that all of this is about, so that it is queued for where it can be."""
    offline = "fail" if host == PAUSED else "queue"
    return rest.post(PUSH, {"host_id": host, "offline": offline, **PING}, by=by)


def shown(answer: Answer, host: str) -> dict[str, Any]:
    """Return all that a problem says, but for the name that was asked for."""
    assert answer.code
    text = answer.text.replace(host, "HOST")
    assert not [name for name in (AWAY, PAUSED, FULL) if name in text], text
    found: dict[str, Any] = Answer(answer.status, answer.headers, text).json
    return found


#: Requests that name a host (HOST), each as method, path and body.
ASKED: dict[str, tuple[str, str, Any]] = {
    "single": ("POST", PUSH, {"host_id": "HOST", **PING}),
    "by the other word": ("POST", PUSH, {"agent_id": "HOST", **PING}),
    "queued": ("POST", PUSH, {"host_id": "HOST", "offline": "queue", **PING}),
    "container": (
        "POST",
        PUSH,
        {"host_id": "HOST", "task": "fleet.containers.restart", "arguments": {"container": "web"}},
    ),
    "list": ("POST", "/api/pushes", {"hosts": ["HOST"], **PING}),
    "list with others": ("POST", "/api/pushes", {"hosts": ["h1", "HOST"], **PING}),
    "list that skips": ("POST", "/api/pushes", {"hosts": ["HOST"], "offline": "skip", **PING}),
    "list that queues": ("POST", "/api/pushes", {"hosts": ["HOST"], "offline": "queue", **PING}),
    "command": ("POST", "/api/shell/execute", {"host_id": "HOST", "argv": ["uptime"]}),
    "host": ("GET", "/api/hosts/HOST", None),
    "containers": ("GET", "/api/containers?host=HOST", None),
}


def ask(rest: Rest, what: str, host: str, *, by: str) -> Answer:
    method, path, body = ASKED[what]
    named = {
        key: [host if each == "HOST" else each for each in value]
        if isinstance(value, list)
        else value.replace("HOST", host)
        if isinstance(value, str)
        else value
        for key, value in (body or {}).items()
    }
    return rest.ask(method, path.replace("HOST", host), by=by, json=named or None)


@pytest.mark.parametrize("by", ["near", "near-student"])
@pytest.mark.parametrize("host", [AWAY, PAUSED, FULL])
@pytest.mark.parametrize("what", ASKED)
def test_a_host_out_of_sight_is_answered_for_like_one_that_does_not_exist(
    sighted: Rest, what: str, host: str, by: str
) -> None:
    hidden, unknown = ask(sighted, what, host, by=by), ask(sighted, what, UNKNOWN, by=by)
    assert shown(hidden, host) == shown(unknown, UNKNOWN)
    assert (hidden.status, hidden.code) == (404, "not_found" if what in {"host", "containers"} else "host_not_enrolled")


@pytest.mark.parametrize("what", [what for what in ASKED if what != "list with others"])
def test_a_host_out_of_sight_that_is_there_is_none_either(sighted: Rest, what: str) -> None:
    hidden, unknown = ask(sighted, what, "h1", by="afar"), ask(sighted, what, UNKNOWN, by="afar")
    assert shown(hidden, "h1") == shown(unknown, UNKNOWN)
    assert hidden.status == 404


def test_runs_of_a_host_out_of_sight_are_those_of_one_that_does_not_exist(sighted: Rest) -> None:
    run = push_to(sighted, AWAY, by="afar").json["task_id"]
    for path in (f"/api/runs/{run}", f"/api/runs/{run}/events", f"/api/shell/status/{run}", f"/api/approvals/{run}"):
        other = run.replace(AWAY, UNKNOWN)
        hidden, unknown = sighted.get(path, by="near"), sighted.get(path.replace(AWAY, UNKNOWN), by="near")
        assert shown(hidden, run) == shown(unknown, other)
        assert hidden.status == 404
    for path in ("/api/runs", "/api/approvals"):
        assert sighted.get(path, params={"host": AWAY}, by="near").json == []
        assert sighted.get(path, params={"host": UNKNOWN}, by="near").json == []


@pytest.mark.parametrize("what", ["single", "list", "command"])
def test_only_hosts_in_sight_are_suggested(sighted: Rest, what: str) -> None:
    mistyped = f"{AWAY}x"
    assert f"did you mean '{AWAY}'?" in ask(sighted, what, mistyped, by="afar").json["remedy"]
    assert "did you mean 'h1'?" in ask(sighted, what, "h11", by="near").json["remedy"]
    for by, name in (("near", mistyped), ("afar", "h11"), ("nowhere", mistyped), ("nowhere", "h11")):
        answer = ask(sighted, what, name, by=by)
        assert "did you mean" not in answer.text, answer.text
        assert shown(answer, name) == shown(ask(sighted, what, UNKNOWN, by=by), UNKNOWN)


@pytest.mark.parametrize("offline", ["fail", "skip", "queue"])
def test_all_are_all_in_sight(sighted: Rest, offline: str) -> None:
    answer = sighted.post("/api/pushes", {"all": True, "offline": offline, **PING}, by="near")
    assert answer.status == 200, answer.text
    assert [run["host_id"] for run in answer.json["runs"]] == ["h1"]
    assert answer.json["skipped"] == []
    none = sighted.post("/api/pushes", {"all": True, "offline": offline, **PING}, by="nowhere")
    assert (none.status, none.code, none.json["detail"]) == (404, "no_hosts", "no host is enrolled")


@pytest.mark.parametrize("offline", ["fail", "skip", "queue"])
def test_a_selector_chooses_among_the_hosts_in_sight(sighted: Rest, offline: str) -> None:
    def select(by: str, env: str) -> Answer:
        return sighted.post("/api/pushes", {"selector": {"env": env}, "offline": offline, **PING}, by=by)

    assert [run["host_id"] for run in select("near", "test").json["runs"]] == ["h1"]
    hidden, unknown = select("near", "prod"), select("near", UNKNOWN)
    assert (hidden.status, hidden.code) == (404, "no_hosts")
    assert shown(hidden, "prod") == shown(unknown, UNKNOWN)


def test_a_host_that_has_gone_out_of_sight_is_none_to_whoever_has_runs_there(sighted: Rest) -> None:
    sighted.system.enroll("mover", labels={"env": "test"})
    ended, waits = (push_to(sighted, "mover", by="near").json["task_id"] for _ in range(2))
    assert sighted.post(f"/api/runs/{ended}/cancel", by="near").status == 200
    until(lambda: sighted.get(f"/api/runs/{ended}", by="near").json["state"] == "cancelled", "it has ended")
    labels = {"set": {"env": "prod"}}
    assert sighted.post("/api/hosts/mover/labels", labels, scope=Scope.ADMIN).status == 200
    again = sighted.post(f"/api/runs/{ended}/retry", by="near")
    assert shown(again, "mover") == shown(ask(sighted, "single", UNKNOWN, by="near"), UNKNOWN)
    answer = sighted.post(f"/api/runs/{waits}/cancel", by="near")
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.json["detail"] == "no host named 'mover' is enrolled, so it has no tasks"
    assert "did you mean" not in answer.text
