"""Pushing by REST: what is answered for what, on a real host."""

import json
import re
from typing import Any

import pytest

from fleet.bearer import Scope
from fleet.contracts.envelope import LONGEST_BACKOFF_SECONDS, LONGEST_LIMIT_SECONDS, LONGEST_WAY_SECONDS
from fleet.contracts.hosts import Availability
from fleet.security.identity import Level
from tests.services.rest import Rest
from tests.services.waiting import until

pytestmark = pytest.mark.xdist_group("rest")

PUSH = "/api/admin/push-task"
PING = {"agent_id": "h1", "task": "fleet.host.ping"}


def push(rest: Rest, **wishes: Any) -> Any:
    return rest.post(PUSH, {"agent_id": "h1", "task": "fleet.host.ping", **wishes}, by=wishes.pop("by", "alice"))


def test_a_task_is_pushed_to_one_host_and_runs(rest: Rest) -> None:
    answer = push(rest, arguments={"echo": "hi"}, description="a try", metadata={"ticket": 4711}, time_limit_seconds=60)
    assert answer.status == 200, answer.text
    said = answer.json
    assert (said["status"], said["agent_id"]) == ("queued", "h1")
    until(lambda: push(rest).json["recorded"], "one is on record when it is answered")
    run = rest.get(f"/api/runs/{said['task_id']}", params={"wait_seconds": 30}).json
    assert (run["state"], run["reply"]["echo"], run["submitted_by"]) == ("succeeded", "hi", "alice")
    assert (run["description"], run["metadata"], run["limit_seconds"]) == ("a try", {"ticket": 4711}, 60)
    assert [each["state"] for each in run["attempts"]] == ["succeeded"]


def test_the_host_may_be_named_by_either_word(rest: Rest) -> None:
    answer = rest.post(PUSH, {"host_id": "h1", "task": "fleet.host.ping"})
    assert (answer.status, answer.json["host_id"]) == (200, "h1")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"task": "fleet.host.ping"}, "agent_id"),
        ({"agent_id": "h1"}, "task"),
        ({"agent_id": "h1", "host_id": "h2", "task": "fleet.host.ping"}, "host_id"),
        ({"host_id": "dirty", "task": "fleet.host.ping"}, "host_id"),
        ({"agent_id": "../etc", "task": "fleet.host.ping"}, "agent_id"),
        ({"agent_id": "h1\n", "task": "fleet.host.ping"}, "agent_id"),
        ({"agent_id": "h1", "task": "fleet.host.pnig"}, "task"),
        ({"agent_id": "h1", "task": "fleet.host.ping", "argumnets": {}}, "argumnets"),
        ({"agent_id": "h1", "task": "fleet.host.ping", "arguments": []}, "arguments"),
        ({"agent_id": "h1", "task": "fleet.host.ping", "time_limit_seconds": -1}, "time_limit_seconds"),
        ({"agent_id": "h1", "task": "fleet.host.ping", "description": "a\0b"}, "description"),
        (
            {"agent_id": "h1", "task": "fleet.host.ping", "metadata": {"a": json.loads("[" * 300 + "]" * 300)}},
            "metadata",
        ),
        ({**PING, "time_limit_seconds": 9e7}, "time_limit_seconds"),
        ({**PING, "soft_time_limit_seconds": 9e7}, "soft_time_limit_seconds"),
        ({**PING, "soft_time_limit_seconds": 60, "time_limit_seconds": 60}, "soft_time_limit_seconds"),
        ({**PING, "delay_seconds": 4e6}, "delay_seconds"),
        ({**PING, "expires_in_seconds": 5, "delay_seconds": 10}, "expires_in_seconds"),
        ({**PING, "retry_backoff_seconds": 5}, "retry_backoff_seconds"),
        ({**PING, "retry_backoff_seconds": 1e5, "max_retries": 1}, "retry_backoff_seconds"),
    ],
)
def test_a_wrong_or_missing_field_is_named_by_the_requests_own_word(
    rest: Rest, body: dict[str, Any], field: str
) -> None:
    answer = rest.post(PUSH, body)
    assert answer.status == 400, answer.text
    assert answer.code in {"invalid_request", "unknown_task", "invalid_value"}
    assert list(answer.json["fields"]) == [field]
    assert field in answer.json["detail"]
    foreign = r"countdown|timedelta|--help|\b(expires|(soft_)?time_limit|retry_backoff)\b"
    assert not re.search(foreign, answer.text), answer.text


def test_a_wrong_field_of_a_push_to_several_is_named_so_too(rest: Rest) -> None:
    wrong = {"time_limit_seconds": 60, "soft_time_limit_seconds": 61}
    answer = rest.post("/api/pushes", {"all": True, "task": "fleet.host.ping", "offline": "skip", **wrong})
    assert (answer.status, list(answer.json["fields"])) == (400, ["soft_time_limit_seconds"])
    assert answer.json["remedy"] == "give a longer time_limit_seconds, or a shorter soft_time_limit_seconds"


def test_what_is_as_large_as_may_be_is_taken(rest: Rest) -> None:
    largest = {
        "delay_seconds": LONGEST_WAY_SECONDS,
        "time_limit_seconds": LONGEST_LIMIT_SECONDS,
        "retry_backoff_seconds": LONGEST_BACKOFF_SECONDS,
        "max_retries": 100,
    }
    answer = push(rest, **largest)
    assert answer.status == 200, answer.text
    assert rest.post(f"/api/runs/{answer.json['task_id']}/cancel").status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"agent_id": "\xff"}', b'"h1"'])
def test_what_is_no_json_object_is_a_bad_request(rest: Rest, body: bytes) -> None:
    answer = rest.ask("POST", PUSH, data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.code in {"invalid_request", "bad_request"}


def test_arguments_that_do_not_fit_the_task_are_named(rest: Rest) -> None:
    answer = rest.post(PUSH, {"agent_id": "h1", "task": "fleet.containers.stop", "arguments": {"timeout": 1}})
    assert (answer.status, answer.code) == (422, "invalid_arguments")
    assert set(answer.json["fields"]) == {"arguments.container", "arguments.timeout"}
    answer = rest.post(PUSH, {"agent_id": "h1", "task": "fleet.host.ping", "arguments": {"\ud800": 1}})
    assert answer.status in {400, 422}


def test_a_host_that_is_not_there_and_one_that_is_unknown_are_told_apart(rest: Rest) -> None:
    rest.system.enroll("away")
    answer = rest.post(PUSH, {"agent_id": "away", "task": "fleet.host.ping"})
    assert (answer.status, answer.code) == (404, "host_not_connected")
    answer = rest.post(PUSH, {"agent_id": "away", "task": "fleet.host.ping", "offline": "queue"})
    assert answer.status == 200
    assert rest.post(f"/api/runs/{answer.json['task_id']}/cancel").status == 200
    answer = rest.post(PUSH, {"agent_id": "nobody", "task": "fleet.host.ping"})
    assert (answer.status, answer.code) == (404, "host_not_enrolled")


def test_what_the_level_does_not_allow_is_refused_with_the_level(rest: Rest) -> None:
    rest.system.introduce("looker", Level.STUDENT)
    answer = rest.post(
        PUSH, {"agent_id": "h1", "task": "fleet.containers.remove", "arguments": {"container": "x"}}, by="looker"
    )
    assert (answer.status, answer.code, answer.json["level"]) == (403, "not_permitted", "student")


def test_several_hosts_are_pushed_to_at_once(rest: Rest) -> None:
    answer = rest.post("/api/pushes", {"selector": {"env": "test"}, "task": "fleet.host.ping"})
    assert [run["host_id"] for run in answer.json["runs"]] == ["h1"]
    listed = rest.get("/api/runs", params={"batch": answer.json["batch"]}).json
    assert [run["id"] for run in listed] == [answer.json["runs"][0]["task_id"]]
    for body in ({}, {"hosts": ["h1"], "all": True}, {"selector": {}}, {"hosts": []}):
        assert rest.post("/api/pushes", {"task": "fleet.host.ping", **body}).status == 400


def test_a_run_is_followed_to_its_end_and_gone_on_with_where_one_was_cut_off(rest: Rest) -> None:
    run = push(rest, arguments={"echo": "<script>\u001b[31m\n"}).json["task_id"]
    seen = rest.events(f"/api/runs/{run}/events")
    names = [each["event"] for each in seen]
    assert names[0] == "run.queued"
    assert names[-2:] == ["run.succeeded", "end"]
    assert seen[-1]["data"]["reply"]["echo"] == "<script>\u001b[31m\n"
    assert [each["data"]["run"] for each in seen[:-1]] == [run] * (len(seen) - 1)
    rest_of_it = rest.events(f"/api/runs/{run}/events", headers={"Last-Event-ID": seen[1]["id"]})
    assert rest_of_it == seen[2:]


def test_pages_of_runs_follow_each_other(rest: Rest) -> None:
    for _ in range(3):
        push(rest)
    first = rest.get("/api/runs", params={"limit": 2}).json
    second = rest.get("/api/runs", params={"limit": 2, "before": first[-1]["id"]}).json
    whole = rest.get("/api/runs", params={"limit": 4}).json
    assert [run["id"] for run in first + second] == [run["id"] for run in whole]
    assert rest.get("/api/runs", params={"limit": 0}).status == 400
    assert rest.get("/api/runs", params={"lmit": 1}).json["fields"].keys() == {"lmit"}


def test_a_task_that_has_ended_is_pushed_once_more_and_one_that_goes_on_is_not(rest: Rest) -> None:
    run = push(rest, arguments={"echo": "twice"}).json["task_id"]
    rest.get(f"/api/runs/{run}", params={"wait_seconds": 30})
    again = rest.post(f"/api/runs/{run}/retry").json["task_id"]
    shown = rest.get(f"/api/runs/{again}", params={"wait_seconds": 30}).json
    assert (shown["retry_of"], shown["reply"]["echo"]) == (run, "twice")
    assert rest.post(f"/api/runs/{run}/cancel").code == "refused"
    later = push(rest, delay_seconds=600).json["task_id"]
    assert rest.post(f"/api/runs/{later}/retry").status == 409
    assert rest.post(f"/api/runs/{later}/cancel").json["id"] == later
    assert rest.get(f"/api/runs/{later}", params={"wait_seconds": 30}).json["state"] == "cancelled"


def test_a_host_that_takes_no_work_is_a_conflict(rest: Rest) -> None:
    assert rest.post("/api/hosts/h1/pause", scope=Scope.ADMIN).status == 200
    try:
        answer = push(rest)
        assert (answer.status, answer.code) == (409, "host_not_available")
        assert rest.get("/api/hosts/h1").json["availability"] == Availability.PAUSED
    finally:
        assert rest.post("/api/hosts/h1/resume", scope=Scope.ADMIN).status == 200
    until(lambda: push(rest).status == 200, "it takes work again")
