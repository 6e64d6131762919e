"""`fleet file` on a fleet as it runs: what waits says so, whoever answers reads why, and `explain` knows it before."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.services.office import office, rule, session_of, standing, start
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


@pytest.fixture
def root(office: System, tmp_path: Path) -> Path:
    """What every host grants."""
    granted = tmp_path / "granted"
    granted.mkdir()
    (granted / "app.conf").write_text("a = 1\n")
    (tmp_path / "new.conf").write_text("a = 2\n")
    rule(office, f'[[files]]\nname = "app"\nroot = "{granted}"\nmay = ["list", "get", "put"]\nmost_bytes = 1000\n')
    return granted


@pytest.mark.parametrize("operation", ["ls", "get", "put"])
def test_what_waits_says_so_and_whoever_answers_reads_why(
    office: System, root: Path, tmp_path: Path, operation: str
) -> None:
    path = str(root if operation == "ls" else root / "app.conf")
    words = {"ls": (path,), "get": (path, "-O", "-"), "put": (str(tmp_path / "new.conf"), path)}[operation]
    asked = ("--host", "h1", "--reason", f"to {operation} for ticket 4711")
    process = start(office, "file", operation, *words, *asked, FLEET_PRINCIPAL="stu")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "h1: waits for approval" in line
    assert "students ask for everything" in line
    run = line.split("`fleet approval approve ")[1].split("`")[0]

    shown = office.command("approval", "show", run)
    assert f"Description: to {operation} for ticket 4711" in " ".join(shown.stdout.split())
    listed = office.command("approval", "list")
    if operation == "put":
        assert "- a = 2" in shown.stdout, "who approves reads what would be written"
        assert "Size: 6 bytes" in " ".join(shown.stdout.split())
        assert "content=6 bytes" in " ".join(listed.stdout.split())
    assert (root / "app.conf").read_text() == "a = 1\n"
    told = office.command("approval", "approve", run, "--reason", "go ahead", FLEET_PRINCIPAL="boss")
    assert told.returncode == 0, told.stderr
    assert f"to {operation} for ticket 4711" in told.stderr
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "approved by boss: go ahead" in err
    assert {"ls": "app.conf", "get": "a = 1", "put": "replaced"}[operation] in out
    assert (root / "app.conf").read_text() == ("a = 2\n" if operation == "put" else "a = 1\n")

    until(lambda: session_of(office, run).outcome == "done", "the session has ended")
    audited = office.command("audit", "session", run)
    assert f"Description: to {operation} for ticket 4711" in " ".join(audited.stdout.split())
    record = json.loads(office.command("audit", "session", run, "-o", "json").stdout)
    assert (record["description"], record["approved_by"]) == (f"to {operation} for ticket 4711", "boss")
    events = json.loads(office.command("audit", "list", "--event", "run.queued", "-o", "json").stdout)
    assert [event["data"]["description"] for event in events if event["run"] == run] == [record["description"]]


def test_a_put_that_nobody_waits_for_carries_its_reason_as_well(office: System, root: Path, tmp_path: Path) -> None:
    words = ("file", "put", str(tmp_path / "new.conf"), str(root / "app.conf"), "--host", "h1", "--no-wait")
    pushed = office.command(*words, "--reason", "in the night", "-o", "id", FLEET_PRINCIPAL="stu")
    run = office.record(pushed.stdout.strip(), state="awaiting_approval")
    assert run.description == "in the night"
    denied = office.command("approval", "deny", run.id, FLEET_PRINCIPAL="boss")
    assert denied.returncode == 0, denied.stderr


@pytest.mark.parametrize("principal", ["stu", "alice"])
def test_explain_says_of_files_what_the_host_then_does(office: System, root: Path, principal: str) -> None:
    asked = [
        (operation, path)
        for operation in ("ls", "get", "put")
        for path in (str(root / "app.conf"), str(root), f"{root}-not", "/etc/passwd")
    ]

    def newest() -> str:
        listed = json.loads(office.command("audit", "list", "--kind", "shell", "-n", "1", "-o", "json").stdout)
        return str(listed[-1]["id"]) if listed else ""

    def recorded_after(former: str) -> str:
        """Return the newest session once it is another: whoever has the answer may be ahead of the record."""
        found = newest()
        return found if found != former else ""

    for operation, path in asked:
        words = ("--as", principal, "--host", "h1", "--file", operation, path)
        explained = json.loads(office.command("policy", "explain", *words, "-o", "json").stdout)
        source = ("/dev/null",) if operation == "put" else ()
        to = ("-O", str(root.parent / "got"), "--force") if operation == "get" else ()
        if explained["decision"] == "ask":
            process = start(office, "file", operation, *source, path, *to, "--host", "h1", FLEET_PRINCIPAL=principal)
            assert process.stderr is not None
            run = process.stderr.readline().split("`fleet approval approve ")[1].split("`")[0]
            office.command("approval", "deny", run, FLEET_PRINCIPAL="boss")
            process.communicate(timeout=30)
        else:
            former = newest()
            done = office.command("file", operation, *source, path, *to, "--host", "h1", FLEET_PRINCIPAL=principal)
            run = until(partial(recorded_after, former), "it is on record")
            assert ("not_in_allow_list" in done.stdout + done.stderr) is (explained["decision"] == "deny")
        recorded = session_of(office, run)
        assert recorded.argv[-1] == path
        told = tuple(explained[word] for word in ("decision", "reason", "rule", "risk", "level"))
        assert told == (recorded.decision, recorded.reason, recorded.rule, recorded.risk, recorded.level)
