"""`fleet exec` and the answers of `fleet approval` as people run them, on a fleet of one host."""

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.services.office import TOUCH, answer, ask, office, policy_text, rule, session_of, standing, start
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


@pytest.fixture
def ruled(office: System, tmp_path: Path) -> Path:
    """A policy that lists a few programs, and the directory that they may touch."""
    rule(
        office,
        policy_text(tmp_path)
        + f"""
[[commands]]
name = "script"
risk = "reads"
argv = ["/bin/sh", "{tmp_path / "script"}"]
limit = "10m"
[[commands]]
name = "a moment"
risk = "reads"
argv = ["/bin/sleep", "300"]
limit = "1s"
""",
    )
    return tmp_path


def script(directory: Path, text: str) -> tuple[str, str]:
    (directory / "script").write_text(text)
    return "sh", str(directory / "script")


@pytest.mark.parametrize(("ends", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_programs_streams_and_its_code_are_passed_on(office: System, ruled: Path, ends: str, code: int) -> None:
    argv = script(ruled, f"echo said\necho complained >&2\nprintf unended\n{ends}\n")
    done = office.command("exec", "--host", "h1", "--", *argv)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\nunended", "complained\n")


def test_who_asks_for_no_time_has_what_the_entry_has(office: System, ruled: Path) -> None:
    done = office.command("exec", "--host", "h1", "--", "sleep", "300")
    assert "by its time limit" in done.stderr, done.stderr
    asks = office.command("exec", "--host", "h1", "--time-limit", "2s", "--", "sleep", "300")
    assert "not_in_allow_list" in asks.stderr
    assert "but not more than 1 s" in asks.stderr


def test_what_is_followed_comes_as_it_is_said(office: System, ruled: Path) -> None:
    argv = script(ruled, f"echo first\nwhile [ ! -e {ruled}/go ]; do sleep 0.1; done\necho second >&2\nexit 3\n")
    process = start(office, "exec", "--host", "h1", "--follow", "--", *argv)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    (ruled / "go").touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (3, "", "second\n")


@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_all_that_is_kept_is_followed_whole_however_fast_it_comes(office: System, ruled: Path, form: str) -> None:
    """As much as is kept, in one go: once, in order, from the first line to the last."""
    argv = script(ruled, "seq 1 160000\nseq 1 100 >&2\n")
    done = office.command("exec", "--host", "h1", "--follow", "-o", form, "--", *argv)
    assert done.returncode == 0, done.stderr[-500:]
    records = [json.loads(line) for line in done.stdout.splitlines()] if form == "jsonl" else []
    for name, count, text in (("stdout", 160_000, done.stdout), ("stderr", 100, done.stderr)):
        said = [record["line"] for record in records if record["stream"] == name]
        assert (said or text.splitlines()) == [str(number) for number in range(1, count + 1)]
    assert not any(record["dropped"] for record in records)


def test_of_more_than_is_kept_what_is_missing_is_told_and_no_part_of_a_line_passes_for_one(
    office: System, ruled: Path
) -> None:
    lines = 2_000_000
    argv = script(ruled, f"seq 1000000000 {10**9 + lines - 1}\n")
    done = office.command("exec", "--host", "h1", "--follow", "-o", "jsonl", "--", *argv)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[0]["line"] == "1000000000"
    assert records[-1]["line"] == str(10**9 + lines - 1)
    assert any(record["dropped"] for record in records)
    said = [record["line"] for record in records if record["line"] is not None]
    whole = [line for line in said if "…" not in line]
    assert all(len(line) == 10 and line.isdigit() for line in whole)
    ended = len(whole) + sum(line.startswith("…") for line in said)
    assert ended + sum(record["dropped"] or 0 for record in records) == lines


def test_what_is_denied_says_why_and_where_to_look(office: System, ruled: Path) -> None:
    done = office.command("exec", "--host", "h1", "--", "bash", "-c", "echo hello")
    assert done.returncode == 125
    assert "not_in_allow_list" in done.stderr
    assert "'bash'" in done.stderr
    assert "fleet policy show" in done.stderr
    assert done.stdout == ""


def test_what_waits_says_what_for_and_goes_on_when_somebody_approves(office: System, ruled: Path) -> None:
    process = start(office, "exec", "--host", "h1", "--", TOUCH, str(ruled / "made"), FLEET_PRINCIPAL="stu")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "h1: waits for approval" in line
    assert "students ask for everything" in line
    run = line.split("`fleet approval approve ")[1].split("`")[0]

    own = office.command("approval", "approve", run, FLEET_PRINCIPAL="stu")
    assert own.returncode == 4
    assert "own_request" in own.stderr
    assert not (ruled / "made").exists()

    told = office.command("approval", "approve", run, "--reason", "looks fine", FLEET_PRINCIPAL="boss")
    assert told.returncode == 0, told.stderr
    assert "approved; h1 runs it once" in told.stderr
    assert f"'{ruled / 'made'}'" in told.stderr
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "approved by boss: looks fine" in err
    assert (ruled / "made").exists()

    again = office.command("approval", "approve", run, FLEET_PRINCIPAL="boss")
    assert again.returncode == 4
    assert "succeeded" in again.stderr


def test_what_is_denied_by_somebody_ends_with_who_it_was(office: System, ruled: Path) -> None:
    process = start(office, "exec", "--host", "h1", "--", TOUCH, str(ruled / "made"), FLEET_PRINCIPAL="stu")
    assert process.stderr is not None
    run = process.stderr.readline().split("`fleet approval approve ")[1].split("`")[0]
    told = office.command("approval", "deny", run, "--reason", "not today", FLEET_PRINCIPAL="boss")
    assert told.returncode == 0, told.stderr
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 125
    assert "denied by boss: not today" in err
    assert not (ruled / "made").exists()


def test_ctrl_c_ends_the_program(office: System, ruled: Path) -> None:
    argv = script(ruled, f"touch {ruled}/begun\nsleep 300\ntouch {ruled}/not-ended\n")
    process = start(office, "exec", "--host", "h1", "--", *argv)
    until((ruled / "begun").exists, "it has begun")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    mark = str(ruled / "script")
    until(lambda: not _alive(mark), "nothing is left of it")
    assert not (ruled / "not-ended").exists()


def _alive(mark: str) -> bool:
    return any(mark in (each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))


def test_programs_get_all_of_it_as_json(office: System, ruled: Path) -> None:
    argv = script(ruled, "echo out\necho err >&2\nexit 5\n")
    done = office.command("exec", "--host", "h1", "-o", "json", "--", *argv)
    assert done.returncode == 5
    [run] = json.loads(done.stdout)["runs"]
    assert (run["reply"]["exit_code"], run["reply"]["stdout"], run["reply"]["stderr"]) == (5, "out\n", "err\n")
    recorded = session_of(office, run["id"])
    until(lambda: session_of(office, run["id"]).outcome == "exited", "the session has ended")
    assert recorded.argv == list(argv)


def test_the_record_lists_who_did_what_by_whose_leave(office: System, ruled: Path) -> None:
    run, digest = ask(office, TOUCH, str(ruled / "made"))
    answer(office, "boss", run, digest)
    office.record(run, state="succeeded")
    assert office.command("exec", "--host", "h1", "--", "uptime").returncode == 0
    assert office.command("exec", "--host", "h1", "--", "bash").returncode == 125

    def listed() -> list[dict[str, object]]:
        done = office.command("audit", "list", "--kind", "shell", "-o", "json")
        records: list[dict[str, object]] = json.loads(done.stdout)
        return records

    until(lambda: {record["decision"] for record in listed()} >= {"allow", "ask", "deny"}, "all of it is on record")
    assert any(record["approved_by"] == "boss" and record["principal"] == "stu" for record in listed())


def test_an_option_of_the_program_is_not_ones_own(office: System, ruled: Path) -> None:
    done = office.command("exec", "--host", "h1", "uptime", "--help")
    assert done.returncode == 125  # the policy lists no such argument; it was no option of ours
    assert "not_in_allow_list" in done.stderr
