"""Commands and approvals by REST: asked for, answered by somebody else, and run once."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fleet import names
from fleet.contracts import Risk
from fleet.security.identity import Level
from tests.services.freezing import frozen
from tests.services.office import TOUCH, approval_of, office, policy_text, rule
from tests.services.rest import Answer, Rest
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["office"]

pytestmark = [pytest.mark.xdist_group("rest"), pytest.mark.timeout(180)]


@pytest.fixture
def canary(office: System, rest: Rest, tmp_path: Path) -> Path:
    rule(office, policy_text(tmp_path))
    return tmp_path / "canary"


def execute(rest: Rest, *argv: str, by: str = "stu", **more: object) -> Answer:
    return rest.post("/api/shell/execute", {"host_id": "h1", "argv": list(argv), **more}, by=by)


def asked(rest: Rest, *argv: str, by: str = "stu") -> str:
    """Have a command wait; return its id."""
    answer = execute(rest, *argv, by=by)
    assert (answer.status, answer.json["status"]) == (202, "approval_required"), answer.text
    return str(answer.json["approval_id"])


def test_an_autonomous_principal_runs_what_is_listed_at_once(rest: Rest, canary: Path) -> None:
    answer = execute(rest, "/usr/bin/uptime", by="alice", reason="slow")
    assert answer.status == 200, answer.text
    assert (answer.json["status"], answer.json["exit_code"]) == ("completed", 0)
    assert "load average" in answer.json["stdout"]
    again = rest.get(f"/api/shell/status/{answer.json['run_id']}")
    assert again.json == answer.json


def test_what_a_student_asks_for_waits_for_somebody_else_and_runs_once(rest: Rest, canary: Path) -> None:
    run = asked(rest, TOUCH, str(canary))
    assert not canary.exists()
    listed = rest.get("/api/approvals", by="boss").json
    [mine] = [each for each in listed if each["id"] == run]
    assert (mine["principal"], mine["arguments"]["argv"], mine["exact"]) == ("stu", [TOUCH, str(canary)], True)
    shown = rest.get(f"/api/approvals/{run}", by="boss").json
    assert shown["record"]["runs"] >= 1
    body = {"digest": shown["digest"], "reason": "ticket 4711"}
    answer = rest.post(f"/api/approvals/{run}/approve", body, by="boss")
    assert (answer.status, answer.json["state"], answer.json["decided_by"]) == (200, "approved", "boss"), answer.text
    assert rest.get(f"/api/runs/{run}", by="stu", params={"wait_seconds": 30}).json["state"] == "succeeded"
    assert canary.exists()
    again = rest.post(f"/api/shell/approve/{run}", by="boss")
    assert again.status == 409
    said = {each["event"] for each in rest.events(f"/api/runs/{run}/events", by="stu")}
    assert {"run.queued", "run.awaiting_approval", "run.approved", "run.succeeded", "end"} <= said


@pytest.mark.parametrize(
    ("by", "status", "code"),
    [("stu", 403, "own_request"), ("reader", 403, "not_permitted"), ("elsewhere", 404, "not_found")],
)
def test_who_may_not_answer_is_told_why_and_nothing_runs(
    rest: Rest, canary: Path, by: str, status: int, code: str
) -> None:
    run = asked(rest, TOUCH, str(canary))
    answer = rest.post(f"/api/approvals/{run}/approve", by=by)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert rest.get(f"/api/shell/status/{run}", by="stu").json["status"] == "approval_required"
    assert rest.post(f"/api/approvals/{run}/deny", {"reason": "no"}, by="boss").json["state"] == "denied"
    assert not canary.exists()


def waits(office: System, kind: str) -> bool:
    """Say whether a word of that kind waits for h1 to read it, among others such as the control plane's own."""
    words: Any = office.redis.lrange(names.control("h1"), 0, -1)
    return any(kind in word for word in words)


def test_who_approves_what_somebody_else_has_just_denied_comes_too_late_and_lacks_no_right(
    rest: Rest, office: System, canary: Path
) -> None:
    run = asked(rest, TOUCH, str(canary))
    beat = office.heartbeat("h1")
    assert beat is not None
    with ThreadPoolExecutor(2) as pool:
        with frozen(beat.pid):
            denies = pool.submit(rest.post, f"/api/approvals/{run}/deny", {"reason": "no"}, by="eve")
            until(lambda: waits(office, "run.deny"), "the first answer waits for the host")
            approves = pool.submit(rest.post, f"/api/approvals/{run}/approve", by="boss")
            until(lambda: waits(office, "run.approve"), "both wait")
        assert denies.result().json["state"] == "denied"
        answer = approves.result()
    assert (answer.status, answer.code) == (409, "refused"), answer.text
    assert "denied by eve: no" in answer.json["detail"]
    assert "level" not in answer.json
    assert not canary.exists()


def test_what_nobody_answered_in_time_is_gone(rest: Rest, office: System, tmp_path: Path) -> None:
    run = ""
    for within in ("1s", "5s", "20s"):
        rule(office, policy_text(tmp_path, approve_within=within))
        answer = execute(rest, TOUCH, str(tmp_path / "canary"))
        if answer.status == 202:  # else it was gone before it was told of
            assert answer.json["status"] == "approval_required"
            run = str(answer.json["approval_id"])
            break
    office.record(run, state="expired")
    until(lambda: approval_of(office, run).state == "expired", "the approval is expired")
    for says in ("approvals/{}/approve", "approvals/{}/deny", "shell/approve/{}"):
        answer = rest.post(f"/api/{says.format(run)}", by="boss")
        assert (answer.status, answer.code) == (410, "expired"), answer.text
    answer = rest.get(f"/api/shell/status/{run}", by="stu")
    assert (answer.status, answer.code) == (410, "expired"), answer.text
    assert rest.get(f"/api/approvals/{run}", by="boss").json["state"] == "expired", "its record is there all the same"
    told = office.command("approval", "approve", run, "-y", FLEET_PRINCIPAL="boss")
    assert (told.returncode, "nobody answered in time" in told.stderr) == (5, True), told.stderr


def test_an_answer_to_another_request_than_was_shown_does_not_count(rest: Rest, canary: Path) -> None:
    run = asked(rest, TOUCH, str(canary))
    answer = rest.post(f"/api/approvals/{run}/approve", {"digest": "0" * 64}, by="boss")
    assert (answer.status, answer.code) == (409, "refused")
    answer = rest.post(f"/api/shell/approve/{run}", {"approve": False}, by="boss")
    assert (answer.status, answer.json["state"]) == (200, "denied")
    assert rest.get(f"/api/shell/status/{run}", by="stu").json["status"] == "denied"


@pytest.mark.parametrize("argv", [("bash", "-c", "id"), ("/usr/bin/uptime", "-p"), ("/usr/bin/uptime;id",)])
def test_what_is_not_listed_is_a_bad_request_by_name(rest: Rest, canary: Path, argv: tuple[str, ...]) -> None:
    answer = execute(rest, *argv, by="alice")
    assert (answer.status, answer.code) == (400, "not_in_allow_list"), answer.text


def test_the_answer_comes_while_it_runs_and_says_so(rest: Rest, canary: Path) -> None:
    run = asked(rest, TOUCH, str(canary))
    ended: list[Answer] = []
    waits = threading.Thread(
        target=lambda: ended.append(rest.get(f"/api/runs/{run}", by="stu", params={"wait_seconds": 60}))
    )
    waits.start()
    assert rest.post(f"/api/approvals/{run}/approve", by="boss").status == 200
    waits.join(60)
    assert ended[0].json["state"] == "succeeded"
    without = execute(rest, "/usr/bin/uptime", by="alice", wait_seconds=0)
    assert without.status == 202
    assert without.json["status"] in {"queued", "running", "completed"}
    until(lambda: rest.get(f"/api/shell/status/{without.json['run_id']}").json["status"] == "completed", "it has ended")


def test_the_log_names_who_asked_of_which_host_and_about_which_run(rest: Rest, canary: Path) -> None:
    run = asked(rest, TOUCH, str(canary))
    rest.post(f"/api/approvals/{run[-12:]}/approve", by="boss")
    rest.get(f"/api/runs/{run}", by="stu", params={"wait_seconds": 30})
    rest.post(f"/api/runs/{run}/retry", by="stu")
    pushed = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"}).json["task_id"]
    rest.post(f"/api/runs/{pushed}/cancel")
    rest.post("/api/admin/push-task", {"agent_id": "nobody", "task": "fleet.host.ping"})
    several = rest.post("/api/pushes", {"selector": {"env": "test"}, "task": "fleet.host.ping"}).json["batch"]
    rest.post("/api/runs/h1:made-up/cancel")

    def answered() -> list[Any] | None:  # a line follows its answer
        found = rest.part.log.read_text().splitlines()
        lines = [json.loads(line) for line in found if '"request.answered"' in line]
        # alice herself asks for no run here: where one is late on record, that is waited for
        lines = [line for line in lines if (line["principal"], line["route"]) != ("alice", "/api/runs/{run}")]
        last = lines[-1]["route"].rpartition("/")[2], lines[-1]["status"]
        return lines[-8:] if last == ("cancel", 404) else None

    lines = until(answered, "the last one is logged")
    said = [(line["route"].rpartition("/")[2], *map(line.get, ("principal", "host", "run", "batch"))) for line in lines]
    assert said == [
        ("approve", "boss", "h1", run, None),
        ("{run}", "stu", "h1", run, None),
        ("retry", "stu", "h1", said[2][3], None),
        ("push-task", "alice", "h1", pushed, None),
        ("cancel", "alice", "h1", pushed, None),
        ("push-task", "alice", "nobody", None, None),
        ("pushes", "alice", None, None, several),
        ("cancel", "alice", None, None, None),
    ]
    assert said[2][3] not in {run, None}, "it is about the new one"


def test_a_run_that_is_no_command_has_no_status_here(rest: Rest, office: System) -> None:
    pushed = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"}).json
    rest.get(f"/api/runs/{pushed['task_id']}", params={"wait_seconds": 30})
    assert rest.get(f"/api/shell/status/{pushed['task_id']}").status == 404


def test_a_student_sees_its_own_runs_and_whoever_may_change_something_those_of_its_hosts(
    rest: Rest, canary: Path
) -> None:
    rest.system.introduce("stranger", Level.STUDENT)
    rest.system.introduce("operator", Level.SUPERVISED, selectors={"env": "test"})
    rest.system.introduce("outsider", Level.AUTONOMOUS, approves=tuple(Risk), selectors={"env": "prod"})
    run = asked(rest, TOUCH, str(canary))
    for path in (f"/api/runs/{run}", f"/api/shell/status/{run}", f"/api/runs/{run}/events"):
        for who in ("stranger", "outsider"):
            assert rest.get(path, by=who).status == 404, (who, path)
    for who, sees in (("stu", True), ("operator", True), ("stranger", False), ("outsider", False)):
        listed = {each["id"] for each in rest.get("/api/runs", by=who).json}
        assert (run in listed) is sees, who
        waiting = {each["id"] for each in rest.get("/api/approvals", by=who).json}
        assert (run in waiting) is sees, who
    assert rest.post(f"/api/runs/{run}/cancel", by="stranger").status == 404
    assert rest.post(f"/api/runs/{run}/cancel", {"reason": "never mind"}, by="stu").status == 200
    assert rest.get(f"/api/runs/{run}", by="stu", params={"wait_seconds": 30}).json["state"] == "cancelled"
