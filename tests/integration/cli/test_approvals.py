"""`fleet approval list | show`, and shell sessions by `fleet audit`: what people and programs are told."""

import json
import re
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine

from fleet import approvals, canonical, db, names, sessions, shapes
from fleet.cli import approval, recorded, tables
from fleet.contracts.approvals import digest
from fleet.contracts.envelope import HEADER
from fleet.contracts.reports import Report
from tests import factories
from tests.integration.cli.conftest import Cli
from tests.services import governed
from workers.control import recording
from workers.control.batches import Batch

EVIL = "web\x1b]52;c;QUFB\x07\u202e"


def message(run: str, argv: list[str], **more: Any) -> str:
    """Return the message of a command as it lies in its host's queue, without its signature."""
    envelope = {
        "host": names.host_of_run(run),
        "host_key": "k",
        "submitted_by": "alice",
        "submitted_at": 1_750_000_000.25,
        "limits": {"hard_seconds": 90.0},
        "retry": {"max_retries": 7},
        "description": "is it up?",
        **more,
    }
    body = canonical.encode([[], {"argv": argv, "cwd": "/srv", "env": {"LANG": "C"}}, {}]).decode()
    return json.dumps({"headers": {"id": run, "task": "fleet.shell.run", HEADER: {"v": 2, **envelope}}, "body": body})


class Recorder:
    """Writes into the database what hosts and principals report."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with db.session(engine) as session:
            factories.enroll(session, "edge-7", labels={"env": "prod"})
        self._seq = 0

    def take(self, *reports: Report) -> None:
        with db.session(self.engine) as session:
            for each in reports:
                recording.record(session, [Batch(sender=each.sender, items=[factories.signed(each).encode()])])

    def waits(self, *steps: Any, argv: tuple[str, ...] = ("/bin/echo", EVIL), reported: str | None = None) -> str:
        """Have a command wait for approval, and go on with these steps; `reported` is the message on record."""
        run = names.new_run_id("edge-7")
        item = message(run, list(argv))
        told = governed.verdict(argv=list(argv))
        parked = governed.awaiting(digest=digest(item), verdict=told)
        self.take(governed.queued(run, message=item if reported is None else reported))
        self.go_on(run, parked, *steps)
        return run

    def go_on(self, run: str, *steps: Any) -> None:
        self.take(*governed.told(run, *steps, first_seq=self._seq + 1))
        self._seq += len(steps)


@pytest.fixture
def recorder(ledger: Engine) -> Recorder:
    return Recorder(ledger)


def safe(text: str) -> bool:
    return "\x1b" not in text and "\u202e" not in text


def test_what_waits_is_listed_with_who_what_and_why(cli: Cli, recorder: Recorder) -> None:
    run = recorder.waits()
    table = cli("approval", "list")
    assert table.code == 0, table.err
    heading, line = table.out.splitlines()
    assert heading.split() == ["RUN", "HOST", "WHO", "WHAT", "RISK", "WHY", "ASKED", "EXPIRES"]
    assert run in line
    assert "alice (student)" in line
    assert "/bin/echo" in line
    assert "student: every listed command asks; is it up?" in line
    assert safe(table.out)
    [record] = cli("approval", "list", "-o", "json").json
    assert (record["id"], record["state"], record["principal"], record["exact"]) == (run, "pending", "alice", True)
    assert record["arguments"]["argv"] == ["/bin/echo", EVIL]
    assert record["limit_seconds"] == 90
    assert cli("approval", "list", "-o", "id").out == f"{run}\n"
    assert cli("approval", "list", "--host", "lab").err == "nothing waits for approval\n"


def test_what_was_answered_is_listed_by_its_state(cli: Cli, recorder: Recorder) -> None:
    approved, denied = recorder.waits(governed.approved()), recorder.waits(governed.denied())
    assert cli("approval", "list").err == "nothing waits for approval\n"
    assert cli("approval", "list", "--state", "denied", "-o", "id").out == f"{denied}\n"
    everything = cli("approval", "list", "--state", "all")
    assert everything.out.splitlines()[0].split()[-2:] == ["STATE", "BY"]
    assert {row["id"]: row["decided_by"] for row in cli("approval", "list", "--state", "all", "--json").json} == {
        approved: "bob",
        denied: "bob",
    }


def test_a_request_is_shown_with_everything_that_whoever_approves_should_know(cli: Cli, recorder: Recorder) -> None:
    run = recorder.waits()
    shown = cli("approval", "show", run[-12:])
    assert shown.code == 0
    assert shown.err == ""
    for words in (
        run,
        "alice (student)",
        "1 (1 waiting)",
        "env=prod",
        "fleet.shell.run",
        "- /bin/echo",
        "/srv",
        "LANG: C",
        "1m30s",
        "up to 7 times",
        "reads",
        "is it up?",
        "student: every listed command asks",
    ):
        assert words in shown.out, words
    assert safe(shown.out)
    whole = cli("approval", "show", run, "--json").json
    assert whole["labels"] == {"env": "prod"}
    assert (whole["record"]["asked"], whole["record"]["waiting"]) == (1, 1)
    assert whole["exact"] is True
    assert whole["max_retries"] == 7
    assert whole["arguments"] == {"argv": ["/bin/echo", EVIL], "cwd": "/srv", "env": {"LANG": "C"}}


def test_a_request_that_was_reported_as_another_than_the_host_has_parked_is_warned_of(
    cli: Cli, recorder: Recorder
) -> None:
    other = message(names.new_run_id("edge-7"), ["/usr/bin/uptime"])
    shown = cli("approval", "show", recorder.waits(reported=other))
    assert "the message on record is not the one that edge-7 has parked" in shown.err
    assert "/usr/bin/uptime" not in shown.out, "what the principal reported is not what it asked of the host"
    assert "- /bin/echo" in shown.out, "but what the host says"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"headers": []}', '{"headers": {"id": 1}, "body": "[[]]"}', "\x00"])
def test_a_message_on_record_that_is_none_is_warned_of_as_well(cli: Cli, recorder: Recorder, text: str) -> None:
    shown = cli("approval", "show", recorder.waits(reported=text))
    assert shown.code == 0
    assert "the message on record is not the one" in shown.err


def test_a_run_that_never_waited_is_named(cli: Cli, recorder: Recorder) -> None:
    run = names.new_run_id("edge-7")
    recorder.take(governed.queued(run))
    shown = cli("approval", "show", run)
    assert shown.code == 2
    assert "never asked for approval; `fleet approval list --state all` shows those that did" in shown.error


def test_sessions_are_listed_with_who_asked_what_was_decided_and_how_it_ended(cli: Cli, recorder: Recorder) -> None:
    ended = governed.ended(exit_code=3, stdout=f"{EVIL}\nup 3 days\n")
    run = recorder.waits(governed.approved(), governed.STARTED, ended)
    denied = recorder.waits(governed.rejected())
    table = cli("audit", "list", "--kind", "shell")
    heading, first, second = table.out.splitlines()
    assert heading.split() == ["TIME", "RUN", "HOST", "PRINCIPAL", "COMMAND", "DECISION", "EXIT", "TOOK"]
    assert "ask by bob" in first
    assert first.split()[-2:] == ["3", "250ms"]
    assert "deny" in second
    assert "rejected" in second
    assert safe(table.out)
    records = cli("audit", "list", "--kind", "shell", "-o", "json").json
    assert [record["id"] for record in records] == [run, denied]
    assert records[0]["stdout"] == f"{EVIL}\nup 3 days\n"
    assert (records[0]["approved_by"], records[0]["exit_code"], records[0]["policy"]) == ("bob", 3, 3)
    one = cli("audit", "list", "--kind", "shell", "--run", run, "-o", "jsonl")
    assert json.loads(one.out) == records[0]
    assert cli("audit", "list", "--kind", "shell", "--principal", "bob").err == "no session matches\n"
    assert cli("audit", "list", "--kind", "shell", "--host", "edge-7", "-n", "1", "-o", "id").out == f"{denied}\n"


def test_the_events_of_a_run_that_waited_say_what_people_want_to_know(cli: Cli, recorder: Recorder) -> None:
    run = recorder.waits(governed.approved(signed="a long word"))
    events = cli("task", "events", run)
    assert "verdict=ask rule=student: every listed command asks" in events.out
    assert "by=bob reason=it only looks" in events.out
    assert "a long word" not in events.out
    assert cli("task", "list", "--state", "awaiting_approval").err == "no task matches\n"
    waiting = recorder.waits()
    assert cli("task", "list", "--state", "awaiting_approval", "-o", "id").out == f"{waiting}\n"


def test_a_session_is_shown_with_what_it_wrote_and_moves_no_terminal(cli: Cli, recorder: Recorder) -> None:
    run = recorder.waits(governed.approved(), governed.STARTED, governed.ended(stdout=f"{EVIL}\nup 3 days\n"))
    shown = cli("audit", "session", run[-12:])
    assert shown.code == 0, shown.err
    assert shown.out.endswith("up 3 days\n")
    assert "Approved by:" in shown.out
    assert safe(shown.out)
    assert cli("audit", "session", run, "-o", "json").json["stdout"] == f"{EVIL}\nup 3 days\n"
    missing = cli("audit", "session", "ffffffffffff")
    assert "no recorded session ends in 'ffffffffffff'" in missing.error


def test_a_session_shows_what_ran_beside_what_was_asked_for(cli: Cli, recorder: Recorder) -> None:
    ran = governed.started(program=f"/usr/bin/{EVIL}", argv=["/bin/echo", "/srv/real"], cwd="/srv", env=["LANG", "TZ"])
    run = recorder.waits(governed.approved(), governed.STARTED, ran, governed.ended(), argv=("echo", "/srv/link"))
    shown = cli("audit", "session", run)
    assert shown.code == 0, shown.err
    for words in ("/srv/link", "/srv/real", "/usr/bin/web", "LANG, TZ"):
        assert words in shown.out, words
    assert safe(shown.out)
    record = cli("audit", "session", run, "-o", "json").json
    assert (record["argv"], record["cwd"]) == (["echo", "/srv/link"], "/")
    assert record["run_as"]["argv"] == ["/bin/echo", "/srv/real"]
    assert record["run_as"]["cwd"] == "/srv"
    exact = recorder.waits(governed.approved(), governed.STARTED, governed.started(), argv=governed.ARGV)
    shown = cli("audit", "session", exact)
    assert "Program:" in shown.out
    assert "As:" not in shown.out
    assert "In:" not in shown.out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--kind", "shell", "--event", "run.failed"), "--event and --by are about events"),
        (("--principal", "alice"), "--principal goes with --kind shell"),
        (("--kind", "containers"), "is not one of 'events', 'shell'"),
    ],
)
def test_filters_that_do_not_go_together_are_refused(cli: Cli, words: tuple[str, ...], error: str) -> None:
    done = cli("audit", "list", *words)
    assert done.code == 2
    assert error in done.error


def test_a_table_of_either_fits_a_narrow_terminal(recorder: Recorder, ledger: Engine) -> None:
    for _ in range(3):
        recorder.waits(governed.approved(), governed.STARTED, governed.ended("time_limit", exit_code=None))
    recorder.waits(argv=("/usr/bin/journalctl", "-u", "a-service-with-a-long-name", "-n", "100"))
    with db.session(ledger, write=False) as session:
        found = approvals.listing(session)
        told = [shapes.shell_session(row) for row in sessions.listing(session)]
    records = [shapes.approval(row, run, request=None, session=None) for row, run in found]
    for columns, rows in ((approval.WAITING, records), (approval.ANSWERED, records), (recorded.COLUMNS, told)):
        table = tables.made(rows, columns=columns, width=80)
        console = Console(width=80, record=True, force_terminal=False)
        with console.capture() as captured:
            console.print(table)
        lines = captured.get().splitlines()
        assert max(len(line.rstrip()) for line in lines) <= 80
        assert sum(bool(re.match("[0-9a-f]{12}|[0-9]+[smhd] ", line.strip())) for line in lines) == len(rows)
