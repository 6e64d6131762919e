"""Commands: a program gets what it was granted and nothing else, and ends with all that it started."""

import hashlib
import json
import multiprocessing
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet import errors, names
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from fleet.contracts.shell import KEPT_BYTES, LARGEST_REPLY, RUN
from tests.services.commands import Entry, Shell
from tests.services.sessions import Session
from tests.services.waiting import LIMITS, until
from workers.host import programs
from workers.host.children import Children
from workers.host.executing import Execution
from workers.host.job import Job
from workers.host.recovery import Recovery
from workers.host.running import EndRequest, Why

#: Runs a line of shell; no policy would grant that.
SH = ("/bin/sh", "-c")
PYTHON = str(Path(sys.executable).resolve())


#: Signals 32 and 33 are the C library's own: nobody can set them by it, and `make` hands them on ignored.
_LIBRARYS = 0b11 << 31


@pytest.fixture
def shell(session: Session, client: Any, tmp_path: Path) -> Iterator[Shell]:
    with Shell(session, client, tmp_path).at_work() as made:
        yield made


def cancelled(run_id: str) -> EndRequest:
    return EndRequest(Why.CANCELLED, CancelRun(run=run_id, by="ann", reason="enough"))


class TestWhatAProgramIsGiven:
    def test_it_is_given_its_arguments_as_they_are(self, shell: Shell) -> None:
        odd = ["a b", "$(id)", "`id`", "*", "", "ü\U0001f600", "\n", "--", "'\"\\"]
        said = shell.run("/usr/bin/printf", "%s|", *odd)
        assert (said.exit_code, said.stdout, said.stderr) == (0, "".join(f"{each}|" for each in odd), "")

    def test_it_is_the_entrys_program_also_where_it_was_asked_for_by_its_name(self, shell: Shell) -> None:
        shell.grants.decide = lambda _request: Entry("/bin/sh")
        assert shell.run("sh", "-c", "echo $0").stdout == "/bin/sh\n"

    def test_of_the_workers_environment_it_sees_nothing(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("BASH_ENV", "ENV", "GIT_DIR", "DOCKER_CONFIG", "FLEET_BROKER_URL", "TERM"):
            monkeypatch.setenv(name, "/tmp/evil")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), "/tmp/evil"]))
        monkeypatch.setenv("LD_PRELOAD", "/tmp/evil")  # the loader finds nothing there, says so, and goes on
        assert set(shell.run("/usr/bin/env").stdout.splitlines()) == {
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"HOME={pwd.getpwuid(os.geteuid()).pw_dir}",
            "LANG=C.UTF-8",
        }

    def test_it_sees_the_variables_that_were_granted(self, shell: Shell) -> None:
        assert "COLUMNS=120" in shell.run("/usr/bin/env", env={"COLUMNS": "120"}).stdout.splitlines()

    def test_it_reads_nothing_has_no_terminal_and_leads_its_own_session_and_group(self, shell: Shell) -> None:
        said = shell.run(
            PYTHON, "-c", "import os; print(repr(os.read(0, 9)), os.getsid(0) == os.getpgid(0) == os.getpid(), end='')"
        )
        assert said.stdout == "b'' True"

    def test_it_has_three_descriptors_default_signals_a_usual_umask_and_limits(self, shell: Shell) -> None:
        code = (
            "import os, resource as r\n"
            "lines = open('/proc/self/status').read().splitlines()\n"
            "status = dict(line.split(':\\t') for line in lines if ':\\t' in line)\n"
            "print(sorted(os.listdir('/proc/self/fd'), key=int)[:4])\n"
            "limits = r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_NOFILE)[0] <= 4096\n"
            "print(status['SigBlk'], status['Umask'], *limits)\n"
        )
        listed, rest = shell.run(PYTHON, "-I", "-c", code).stdout.splitlines()
        assert listed == "['0', '1', '2', '3']"  # the last is of the directory that is listed
        assert rest == "0000000000000000 0022 (0, 0) True"
        status = shell.run("/bin/cat", "/proc/self/status").stdout
        ignored = int(status.split("SigIgn:\t")[1].split("\n")[0], 16)
        assert ignored & ~_LIBRARYS == 0

    @pytest.mark.parametrize(
        ("asked", "granted", "expected"),
        [(None, (), "/"), (None, ("/usr",), "/usr"), ("/etc", ("/usr", "/etc"), "/etc")],
    )
    def test_it_runs_where_it_was_granted(
        self, shell: Shell, asked: str | None, granted: tuple[str, ...], expected: str
    ) -> None:
        shell.grants.decide = lambda request: Entry(request.argv[0], cwd=granted)
        assert shell.run("/bin/pwd", cwd=asked).stdout == f"{expected}\n"

    def test_a_directory_that_leads_elsewhere_or_is_none_is_refused(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/etc")
        for directory, kind in ((tmp_path / "link", "cwd_changed"), (tmp_path / "none", "no_such_directory")):
            run_id = shell.begin("/bin/pwd", cwd=str(directory))
            assert shell.failure(run_id) == kind
            assert shell.record(run_id).outcome == "failed"

    def test_what_is_about_to_run_is_reported_before_it_does(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("hello")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        (tmp_path / "cat").symlink_to("/bin/cat")
        shell.grants.decide = lambda _request: Entry(
            str(tmp_path / "cat"), cwd=(str(tmp_path),), paths={1: str(tmp_path)}
        )
        run_id = shell.begin("cat", str(tmp_path / "link"), env={"LANG": "C", "A": "a value"})
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        [told] = [report for report in shell.session.reports(run_id) if report.kind is Kind.SESSION_STARTED]
        assert told.attempt == 1
        assert told.data == {
            "run_as": {
                "program": str(Path("/bin/cat").resolve()),
                "argv": [str(tmp_path / "cat"), str(tmp_path / "real")],
                "cwd": str(tmp_path),
                "env": ["A", "LANG"],
            }
        }
        kinds = shell.session.kinds(run_id)
        assert kinds.index(Kind.RUN_STARTED) < kinds.index(Kind.SESSION_STARTED) < kinds.index(Kind.SESSION_ENDED)


class TestHowItEnds:
    @pytest.mark.parametrize("code", [0, 1, 42, 255])
    def test_a_program_that_ends_by_itself_has_succeeded_with_its_exit_code(self, shell: Shell, code: int) -> None:
        run_id = shell.begin(*SH, f"echo out; echo err >&2; exit {code}")
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        assert shell.session.kinds(run_id) == [
            *(Kind.RUN_ACCEPTED, Kind.RUN_STARTED, Kind.SESSION_STARTED, Kind.SESSION_ENDED, Kind.RUN_SUCCEEDED)
        ]
        record = shell.record(run_id)
        assert (record.outcome, record.exit_code, record.stdout, record.stderr) == ("exited", code, "out\n", "err\n")
        assert record.stdout_sha256 == hashlib.sha256(b"out\n").hexdigest()
        result = shell.session.result(run_id)
        assert result is not None
        assert result["result"]["exit_code"] == code

    def test_a_program_that_a_signal_ended_says_so(self, shell: Shell) -> None:
        said = shell.run(*SH, "kill -9 $$")
        assert (said.exit_code, said.signal) == (137, 9)

    def test_a_time_limit_ends_it_and_what_it_wrote_is_known(self, shell: Shell) -> None:
        record = shell.limited(*SH, "echo begun; sleep 60")
        assert (record.outcome, record.exit_code, record.stdout) == ("time_limit", None, "begun\n")

    def test_the_entry_may_allow_less_time_than_was_asked_for(self, shell: Shell) -> None:
        shell.grants.decide = lambda request: Entry(request.argv[0], limit_seconds=0.3)
        assert shell.failure(shell.begin("/bin/sleep", "60", limit=50)) == "time_limit"

    def test_what_ignores_the_end_is_killed_three_seconds_later(self, shell: Shell) -> None:
        record = shell.limited(*SH, "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
        assert 3 < record.duration_seconds < 30 + max(LIMITS)  # it would go on for ever

    def test_a_cancelled_command_ends_and_what_it_wrote_is_known(self, shell: Shell) -> None:
        run_id = shell.begin(*SH, "echo begun; sleep 60")
        until(
            lambda: shell.client.exists(f"out:{run_id}") or shell.session.kinds(run_id)[-1] is Kind.SESSION_STARTED,
            "it runs",
        )
        until(lambda: _children_of(shell), "it runs")
        shell.running.end(run_id, cancelled(run_id))
        assert shell.until_ended(run_id) is Kind.RUN_CANCELLED
        assert shell.record(run_id).outcome == "cancelled"

    def test_a_command_that_was_cancelled_before_it_began_ends_as_cancelled(self, shell: Shell, tmp_path: Path) -> None:
        run_id = shell.deliver(arguments={"argv": ["/bin/sleep", "60"]})
        shell.running.end(run_id, cancelled(run_id))
        shell.pipeline.carry_out(RUN, run_id)
        assert shell.until_ended(run_id) is Kind.RUN_CANCELLED

    def test_a_worker_that_stops_ends_it_as_interrupted(self, shell: Shell) -> None:
        run_id = shell.begin("/bin/sleep", "60")
        until(lambda: _children_of(shell), "it runs")
        shell.running.end_all(EndRequest(Why.STOPPED))
        assert shell.failure(run_id) == "interrupted"
        assert shell.record(run_id).outcome == "failed"

    @pytest.mark.parametrize("outcome", ["exited", "time_limit"])
    def test_no_descendant_is_left_also_of_those_that_forked_away(
        self, shell: Shell, tmp_path: Path, outcome: str
    ) -> None:
        log = tmp_path / "pid"
        code = (
            "import os, sys, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            f"        open({str(log)!r}, 'w').write(str(os.getpid()))\n"
            "        time.sleep(600)\n"
            "    os._exit(0)\n"
            f"while not (os.path.exists({str(log)!r}) and os.path.getsize({str(log)!r})): time.sleep(0.01)\n"
            "print('it is away', flush=True)\n"
            f"time.sleep({0 if outcome == 'exited' else 600})\n"
        )
        argv = (PYTHON, "-I", "-c", code)
        if outcome == "exited":
            shell.run(*argv)
        else:
            shell.limited(*argv)
        assert not psutil.pid_exists(int(log.read_text()))

    def test_a_retry_of_what_its_time_limit_ended_is_a_session_of_its_own(self, shell: Shell) -> None:
        run_id = shell.begin("/bin/sleep", "60", limit=0.3, max_retries=1)
        assert shell.until_ended(run_id) is Kind.RUN_RETRYING
        assert [record.outcome for record in shell.records(run_id)] == ["time_limit"]


class TestWhatIsRefused:
    def test_what_the_governor_does_not_grant_any_more_never_runs(self, shell: Shell, tmp_path: Path) -> None:
        def deny(_request: Any) -> Entry:
            raise errors.NotGranted("it was taken out of the policy", kind="not_in_allow_list")

        shell.grants.decide = deny
        run_id = shell.begin("/usr/bin/touch", str(tmp_path / "canary"))
        assert shell.failure(run_id) == "not_in_allow_list"
        assert not (tmp_path / "canary").exists()
        assert shell.record(run_id).detail.startswith("it was taken out of the policy")

    def test_a_program_that_is_not_there_or_unsafe_or_cannot_be_run_fails(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "unsafe").write_text("#!/bin/sh\n")
        (tmp_path / "unsafe").chmod(0o777)
        (tmp_path / "broken").write_text("no program")
        (tmp_path / "broken").chmod(0o755)
        for name, kind in (("absent", "no_such_program"), ("unsafe", "unsafe_program"), ("broken", "cannot_run")):
            assert shell.failure(shell.begin(str(tmp_path / name))) == kind

    def test_a_refused_command_is_not_tried_again(self, shell: Shell, tmp_path: Path) -> None:
        assert shell.failure(shell.begin(str(tmp_path / "absent"), max_retries=3)) == "no_such_program"

    def test_an_argument_that_is_a_path_is_followed_and_must_stay_below_its_root(
        self, shell: Shell, tmp_path: Path
    ) -> None:
        root = tmp_path / "logs"
        (root / "real").mkdir(parents=True)
        (root / "inside").symlink_to("real")
        (root / "outside").symlink_to("/etc")
        (root / "dangling").symlink_to("/nowhere/at/all")
        (root / "up").symlink_to("..")
        shell.grants.decide = lambda request: Entry(request.argv[0], paths={1: str(root)})
        for asked, given in (("real", "real"), ("inside", "real"), ("inside/new", "real/new"), (".", "")):
            assert shell.run("/bin/echo", str(root / asked)).stdout == f"{root / given}\n"
        for asked in ("outside", "outside/passwd", "dangling", "up", "up/canary", "none/below"):
            assert shell.failure(shell.begin("/bin/echo", str(root / asked))) == "not_granted", asked

    def test_a_path_that_leads_to_a_name_which_is_no_text_is_refused(self, shell: Shell, tmp_path: Path) -> None:
        root = tmp_path / "logs"
        root.mkdir()
        for directory, link in ((tmp_path, "outside"), (root, "inside")):
            odd = os.fsencode(directory) + b"/f\xff"
            Path(os.fsdecode(odd)).touch()
            (root / link).symlink_to(os.fsdecode(odd))
        shell.grants.decide = lambda request: Entry(request.argv[0], paths={1: str(root)})
        for link in ("outside", "inside"):
            run_id = shell.begin("/bin/echo", str(root / link))
            assert shell.failure(run_id) == "not_granted"
            assert "f\ufffd" in shell.session.reports(run_id)[-1].data["message"]

    def test_a_host_without_commands_runs_none(self, shell: Shell) -> None:
        shell.pipeline._commands = None
        with pytest.raises(errors.NotGranted):
            shell.begin("/bin/true")


class TestOutput:
    def test_large_output_is_kept_head_and_tail_and_its_digest_is_of_all(self, shell: Shell) -> None:
        said = shell.run(PYTHON, "-I", "-c", "import sys; sys.stdout.write('first' + 'x' * 5_000_000 + 'last')")
        assert said.truncated
        assert said.stdout.startswith("firstxxx")
        assert said.stdout.endswith("xxxlast")
        assert "bytes left out" in said.stdout
        assert KEPT_BYTES * 0.9 < len(said.stdout) < KEPT_BYTES + 100
        assert said.stdout_bytes == 5_000_009
        assert said.stdout_sha256 == hashlib.sha256(b"first" + b"x" * 5_000_000 + b"last").hexdigest()

    def test_one_stream_may_use_what_the_other_leaves(self, shell: Shell) -> None:
        code = "import sys; sys.stdout.write('x' * 800_000); sys.stderr.write('y' * 200_000)"
        said = shell.run(PYTHON, "-I", "-c", code)
        assert not said.truncated
        assert (len(said.stdout), len(said.stderr)) == (800_000, 200_000)
        said = shell.run(PYTHON, "-I", "-c", code.replace("200_000", "900_000"))
        assert said.truncated
        assert min(len(said.stdout), len(said.stderr)) > KEPT_BYTES * 0.49

    @pytest.mark.parametrize(
        "written", ["'\\0' * 900_000", "'\\x01\\U0001f600' * 150_000", "'ü' * 500_000", "'\"' * 1_000_000"]
    )
    def test_a_reply_of_any_characters_is_bounded_as_json(self, shell: Shell, written: str) -> None:
        run_id = shell.begin(PYTHON, "-X", "utf8", "-I", "-c", f"print({written}, end='last')")
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        reply = shell.session.reports(run_id)[-1].data["reply"]
        assert len(json.dumps(reply)) <= LARGEST_REPLY
        assert reply["stdout"].endswith("last")
        assert "\ufffd" not in reply["stdout"]
        assert len(json.dumps(shell.record(run_id).model_dump(mode="json"))) < 120_000

    def test_bytes_that_are_no_text_are_shown_as_such(self, shell: Shell) -> None:
        said = shell.run("/usr/bin/printf", r"a\377\300b\033[2J")
        assert said.stdout == "a\ufffd\ufffdb\x1b[2J"
        assert said.stdout_sha256 == hashlib.sha256(b"a\xff\xc0b\x1b[2J").hexdigest()

    def test_known_secrets_are_masked_before_anything_is_kept_hashed_or_sent(
        self, shell: Shell, tmp_path: Path
    ) -> None:
        secret = "s3cr3t-of-the-broker"
        shell.secrets = [secret.encode(), b"\x00binary\xff"]
        (tmp_path / "file").write_text(f"password={secret}\n" * 3)
        shown = (f"{how} {tmp_path}/file" for how in ("cat", "base64", "od -v -w999 -An -tx1"))
        run_id = shell.begin(*SH, f"{'; '.join(shown)} | tr -d ' '; printf '\\000binary\\377'")
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        assert shell.client.xlen(names.output(run_id))
        reply = shell.session.reports(run_id)[-1].data["reply"]
        assert reply["stdout"].startswith("password=***\npassword=***\n")
        assert reply["stdout"].endswith("***")
        everything = json.dumps([report.model_dump(mode="json") for report in shell.session.reports()])
        everything += repr(shell.client.xrange(names.output(run_id)))
        for form in (secret, secret.encode().hex(), "czNjcjN0"):
            assert form not in everything
        assert reply["stdout_sha256"] == hashlib.sha256(reply["stdout"].encode()).hexdigest()
        left = "".join(path.read_text(errors="replace") for path in tmp_path.glob("spool/*/*") if path.is_file())
        assert secret not in left

    def test_a_secret_of_several_lines_is_masked_also_where_the_program_pauses_between_them(self, shell: Shell) -> None:
        lines = [
            "-----BEGIN PRIVATE KEY-----",
            *(f"{letter * 60}{letter}=9" for letter in "Kx"),
            "-----END PRIVATE KEY-----",
        ]
        shell.secrets = ["\n".join(lines).encode()]
        slowly = "; ".join(f"echo {line}; sleep 0.5" for line in lines)
        run_id = shell.begin(*SH, f"echo first; sleep 0.5; {slowly}; echo last")
        until(lambda: said(shell, run_id) == "first\n", "what is no secret is in the stream")
        assert run_id in shell.running.ids()
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        reply = shell.session.reports(run_id)[-1].data["reply"]
        assert reply["stdout"] == "first\n***\nlast\n"
        assert reply["stdout_sha256"] == hashlib.sha256(b"first\n***\nlast\n").hexdigest()
        written = [report for report in shell.session.reports() if report.kind is not Kind.SESSION_STARTED]
        everything = json.dumps([report.model_dump(mode="json") for report in written])  # its arguments are no secret
        assert said(shell, run_id) == "first\n***\nlast\n"
        assert not any(line in everything for line in lines)

    @pytest.mark.parametrize("place", ["argument", "directory"])
    def test_what_keeps_a_program_from_running_is_told_without_secrets(
        self, shell: Shell, tmp_path: Path, place: str
    ) -> None:
        path = f"{tmp_path}/hunter2/file"
        shell.grants.decide = lambda request: Entry(
            request.argv[0], cwd=(path,), paths={1: str(tmp_path)} if place == "argument" else {}
        )
        run_id = shell.begin("/bin/cat", path)
        shell.failure(run_id)
        assert "***/file" in shell.record(run_id).detail
        assert "hunter2" not in json.dumps([report.model_dump(mode="json") for report in shell.session.reports()])


class TestWhileItRuns:
    def test_what_it_writes_is_in_the_stream_of_the_run_before_it_ends(self, shell: Shell, tmp_path: Path) -> None:
        go = tmp_path / "go"
        run_id = shell.begin(*SH, f"echo one; echo two >&2; while ! [ -e {go} ]; do sleep 0.05; done; printf end")
        until(lambda: "two" in streamed(shell, run_id), "it is in the stream")
        assert run_id in shell.running.ids()
        go.touch()
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        said = streamed(shell, run_id)
        assert json.loads(said.splitlines()[-1])["data"] == {"pieces": [["stdout", "end"]]}

    def test_what_is_too_much_for_the_stream_is_missing_and_counted(self, shell: Shell) -> None:
        run_id = shell.begin(*SH, "yes | head -c 20000000; echo last")
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        until(lambda: "last" in streamed(shell, run_id), "all is sent")
        last = json.loads(streamed(shell, run_id).splitlines()[-1])
        assert last["before"] + last["lines"] == 10_000_001

    def test_a_worker_that_is_killed_leaves_a_command_whose_end_and_output_the_next_session_reports_once(
        self, shell: Shell, session: Session, client: Any, tmp_path: Path
    ) -> None:
        go = tmp_path / "go"
        line = f"echo one; while ! [ -e {go} ]; do sleep 0.05; done; head -c 3000000 /dev/zero; echo last; exit 7"
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
            run_id = shell.deliver(arguments={"argv": [*SH, line]})
            assert session.journal.claim(run_id, durable=True)
            pid = worker.submit(os.getpid).result()
            task = worker.submit(run_and_be_killed, tmp_path / "spool", run_id, [*SH, line])
            until(lambda: list(tmp_path.glob("spool/*/output")), "it runs")
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(BrokenProcessPool):
                task.result()
        shell.handover.release(run_id)
        shell.running.leave(run_id)
        recovery = Recovery(
            session.journal, session.endings, shell.settling, shell.children, shell.running, unbegun=session.unbegun
        )
        recovery.run(client, inboxes=(), superseded=False, rebooted=False)
        assert shell.running.ids() == [run_id]
        go.touch()
        assert shell.until_ended(run_id) is Kind.RUN_SUCCEEDED
        record = shell.record(run_id)
        assert (record.outcome, record.exit_code, record.stdout_bytes) == ("exited", 7, 3_000_009)
        assert record.stdout.startswith("one\n")
        assert record.stdout.endswith("last\n")
        assert session.kinds(run_id).count(Kind.RUN_SUCCEEDED) == 1
        assert shell.children.found() == []

    def test_a_command_of_which_nobody_knows_is_unknown_and_so_is_its_session(self, shell: Shell) -> None:
        run_id = shell.begin("/bin/sleep", "60")
        until(lambda: _children_of(shell), "it runs")
        for process in _children_of(shell):
            process.parent().kill()  # its supervisor
        assert shell.until_ended(run_id) is Kind.RUN_UNKNOWN
        assert shell.record(run_id).outcome == "unknown"


def run_and_be_killed(spool: Path, run_id: str, argv: list[str]) -> None:
    """Run a command as a worker does, in a process that is killed meanwhile."""
    children = Children(spool, docker_url="", memory_bytes=2**30)
    execution = Execution(programs.find(argv[0]), tuple(argv), {"PATH": "/usr/bin:/bin"}, "/")
    job = Job(
        run_id=run_id,
        attempt=1,
        task=RUN.name,
        arguments={},
        host="h1",
        description="",
        metadata={},
        submitted_by="ann",
        soft_seconds=None,
        hard_seconds=60.0,
        program=execution,
    )
    children.run(job, on_progress=lambda _step, _percent: None)


def streamed(shell: Shell, run_id: str) -> str:
    """Return the entries of a run's output, a line each."""
    found: Any = shell.client.xrange(names.output(run_id))
    return "\n".join(fields["entry"] for _id, fields in found)


def said(shell: Shell, run_id: str) -> str:
    """Return what is in the stream of a run's output, one piece behind the other."""
    entries = [json.loads(line)["data"] for line in streamed(shell, run_id).splitlines()]
    return "".join(text for data in entries for _name, text in data.get("pieces", ()))


def _children_of(shell: Shell) -> list[psutil.Process]:
    zygote = shell.children._zygote
    return psutil.Process(zygote._process.pid).children(recursive=True)[1:] if zygote else []
