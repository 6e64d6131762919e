"""What changes while the API runs counts at once: keys of the fleet, levels, and tokens that end under way."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests

from fleet.api.news import MOST_OF_ONE
from fleet.api.routes import pushing
from fleet.bearer import Scope
from tests.services.freezing import frozen
from tests.services.rest import Answer, Rest, serve_rest
from tests.services.system import System
from tests.services.waiting import until

pytestmark = [pytest.mark.xdist_group("rest"), pytest.mark.timeout(180)]

PING = {"agent_id": "h1", "task": "fleet.host.ping"}


def succeeds(system: System, *words: str) -> None:
    done = system.command(*words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_fleets_keys_may_be_changed_while_it_runs(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    system.start_worker("h1")
    with serve_rest(system) as rest:
        assert rest.post("/api/admin/push-task", PING).status == 200
        for words in (("key", "rotate"), ("key", "retire", "-y")):
            succeeds(system, *words)
            assert rest.post("/api/admin/push-task", PING).status == 200, "a connection that it has already"
            rest.tokens.clear()  # by another token it makes another
            answer = rest.post("/api/admin/push-task", PING)
            assert answer.status == 200, answer.text


def test_more_principals_than_are_kept_push_at_once(rest: Rest) -> None:
    """What one request uses is not closed for another one's."""
    tokens = [rest.token("alice", description=str(number)) for number in range(48)]

    def push(token: str) -> Answer:
        return rest.post("/api/admin/push-task", PING, by=None, headers={"Authorization": f"Bearer {token}"})

    with ThreadPoolExecutor(48) as pool:
        found = list(pool.map(push, tokens * 3))
    assert {answer.status for answer in found} == {200}, {answer.text for answer in found if answer.status != 200}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_push_is_told_although_the_broker_goes_away_after_it(system: System) -> None:
    system.start_control()
    system.enroll("h1")
    batch = system.fleet.push("fleet.host.ping", on="h1", offline="queue")
    system.broker.stop(kill=True)
    assert pushing.recorded(system.fleet, batch) is False


def test_where_no_more_may_wait_nothing_is_pushed_and_what_need_not_wait_is_answered(rest: Rest) -> None:
    run = rest.post("/api/admin/push-task", {**PING, "delay_seconds": 600}).json["task_id"]
    headers = {"Authorization": f"Bearer {rest.token()}"}
    followed = []
    with ExitStack() as streams:
        for _ in range(MOST_OF_ONE):
            stream = requests.get(f"{rest.url}/api/runs/{run}/events", headers=headers, stream=True, timeout=60)
            followed.append(streams.enter_context(stream).iter_lines())
            assert next(followed[-1]) == b"event: run.queued"
        answer = rest.post("/api/shell/execute", {"host_id": "h1", "argv": ["/usr/bin/uptime"]})
        assert (answer.status, answer.code) == (429, "too_many_waiting")
        assert rest.get(f"/api/runs/{run}", params={"wait_seconds": 1}).code == "too_many_waiting"
        assert rest.get(f"/api/runs/{run}").json["id"] == run
        rest.system.introduce("patient")
        other = rest.get(f"/api/runs/{run}", by="patient", params={"wait_seconds": 1})
        assert other.status == 200, "one principal keeps no other out"
    until(lambda: rest.get(f"/api/runs/{run}", params={"wait_seconds": 1}).status == 200, "there is room again")
    assert rest.post(f"/api/runs/{run}/cancel").status == 200
    assert "fleet.shell.run" not in {each["task"] for each in rest.get("/api/runs").json}


def test_a_stream_ends_with_the_token_that_it_was_asked_for_by(rest: Rest) -> None:
    run = rest.post("/api/admin/push-task", {**PING, "delay_seconds": 600}).json["task_id"]
    token = rest.token("alice", description="of a stream")
    headers = {"Authorization": f"Bearer {token}"}
    with requests.get(f"{rest.url}/api/runs/{run}/events", headers=headers, stream=True, timeout=60) as stream:
        lines = stream.iter_lines()
        assert next(lines) == b"event: run.queued"
        assert rest.delete("/api/bearer-tokens/" + token.split(".")[1], scope=Scope.ADMIN).status == 200
        said = list(lines)
    assert b"event: end" not in said
    assert rest.post(f"/api/runs/{run}/cancel").status == 200


def test_it_lives_while_its_threads_wait_for_a_broker_that_hangs(rest: Rest) -> None:
    server = rest.system.broker.process
    assert server is not None
    rest.token()
    with ThreadPoolExecutor(60) as pool, frozen(server.pid):
        pushes = [pool.submit(rest.post, "/api/admin/push-task", PING) for _ in range(60)]
        began, longest = time.monotonic(), 0.0
        while not any(push.done() for push in pushes):
            asked = time.monotonic()
            assert rest.get("/health/live", by=None).status == 200
            longest = max(longest, time.monotonic() - asked)
        assert longest < (time.monotonic() - began) * 0.8, "it did not wait for one of them to end"
        assert {push.result().code for push in pushes} == {"broker_unavailable"}
    rest.system.await_heartbeat("h1")  # its presence ran out meanwhile, or is about to


def test_whoever_asks_for_nothing_takes_nobodys_place(rest: Rest) -> None:
    address = urlsplit(rest.url)
    with ExitStack() as idle:
        silent = [socket.create_connection((address.hostname, address.port), timeout=60) for _ in range(520)]
        for each in silent:
            idle.enter_context(each)
        silent[0].sendall(b"GET /health/live HTTP/1.1\r\nHost:")
        assert silent[0].recv(100) == b"", "it is hung up on"
        until(lambda: rest.get("/health/live", by=None).status == 200, "there is room again", timeout=30)
