"""Files of a host on a fleet as it runs: the policy grants a directory, the host judges, and all of it is on record."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from fleet import errors
from tests.services.office import answer, ask_for, fleet_of, office, rule, session_of, standing
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]


@pytest.fixture
def root(office: System, tmp_path: Path) -> Path:
    granted = tmp_path / "granted"
    granted.mkdir()
    rule(
        office,
        f'[[files]]\nname = "granted"\nroot = "{granted}"\nmay = ["list", "get", "put"]\nmost_bytes = 1000\n'
        f'[[files]]\nname = "looked at"\nroot = "{tmp_path / "looked-at"}"\nmay = ["list"]\n'
        f'[[files]]\nname = "state"\nroot = "{office.directory}"\nmay = ["get"]\n',
    )
    return granted


def asks(office: System, task: str, *, by: str = "alice", **arguments: Any) -> Any:
    with fleet_of(office, by) as fleet:
        [outcome] = fleet.push(task, on="h1", arguments=arguments).wait(timeout=30)
    return outcome


def test_a_file_is_put_listed_and_got_and_each_is_on_record(office: System, root: Path) -> None:
    content = b"a = 1\n"
    put = asks(
        office,
        "fleet.files.put",
        path=str(root / "app.conf"),
        content=base64.b64encode(content).decode(),
        mode="0640",
    )
    assert put.error is None, put.error
    assert (root / "app.conf").read_bytes() == content
    assert (root / "app.conf").stat().st_mode & 0o7777 == 0o640
    listed = asks(office, "fleet.files.list", path=str(root))
    assert [entry["name"] for entry in listed.reply["entries"]] == ["app.conf"]
    got = asks(office, "fleet.files.get", path=str(root / "app.conf"))
    assert base64.b64decode(got.reply["content"]) == content

    until(lambda: session_of(office, got.run_id).outcome == "done", "the session has ended")
    recorded = session_of(office, got.run_id)
    assert (recorded.principal, recorded.decision, recorded.risk) == ("alice", "allow", "reads")
    assert recorded.argv == ["get", str(root / "app.conf")]
    assert recorded.stdout_bytes == len(content)
    assert recorded.stdout_sha256 == hashlib.sha256(content).hexdigest()
    assert recorded.stdout == ""
    assert session_of(office, put.run_id).risk == "changes"


def test_what_is_not_granted_is_denied_and_on_record(office: System, root: Path) -> None:
    for task, path in (
        ("fleet.files.get", "/etc/passwd"),
        ("fleet.files.get", str(root.parent / "looked-at" / "file")),
        ("fleet.files.list", str(root.parent)),
    ):
        outcome = asks(office, task, path=path)
        assert isinstance(outcome.error, errors.TaskRejected)
        assert outcome.error.reason == "not_in_allow_list"
        assert session_of(office, outcome.run_id).outcome == "rejected"


def test_what_is_granted_by_mistake_is_not_had_all_the_same(office: System, root: Path) -> None:
    outcome = asks(office, "fleet.files.get", path=str(office.settings.credential_path("h1")))
    assert getattr(outcome.error, "kind", "") == "never_granted"
    until(lambda: session_of(office, outcome.run_id).outcome == "failed", "the session has ended")


def test_more_than_is_granted_is_neither_read_nor_written(office: System, root: Path) -> None:
    (root / "large").write_bytes(b"x" * 1001)
    assert getattr(asks(office, "fleet.files.get", path=str(root / "large")).error, "kind", "") == "too_large"
    content = base64.b64encode(b"y" * 1001).decode()
    put = asks(office, "fleet.files.put", path=str(root / "new"), content=content)
    assert "not more than 1,000 bytes" in str(put.error)
    assert not (root / "new").exists()


def test_a_student_asks_for_a_file_and_gets_it_when_somebody_else_says_so(office: System, root: Path) -> None:
    (root / "app.conf").write_text("b = 2\n")
    run, digest = ask_for(office, "fleet.files.get", {"path": str(root / "app.conf")}, by="stu")
    answer(office, "boss", run, digest)
    ended = office.record(run, state="succeeded")
    assert ended.reply is not None
    assert base64.b64decode(ended.reply["content"]) == b"b = 2\n"
    assert session_of(office, run).approved_by == "boss"


def test_an_approval_to_put_is_for_that_content_alone(office: System, root: Path) -> None:
    wish = {"path": str(root / "app.conf"), "content": base64.b64encode(b"good\n").decode()}
    run, digest = ask_for(office, "fleet.files.put", wish, by="stu")
    other, digest_of_other = ask_for(
        office, "fleet.files.put", {**wish, "content": base64.b64encode(b"evil\n").decode()}, by="stu"
    )
    assert digest != digest_of_other
    answer(office, "boss", other, digest)
    answer(office, "boss", run, digest)
    office.record(run, state="succeeded")
    assert (root / "app.conf").read_text() == "good\n"
    assert office.command("task", "cancel", other, "--wait").returncode == 0


@pytest.fixture
def release(office: System, root: Path) -> Path:
    """A release below what is granted, with a link to it, notes, and keys that have to be approved as such."""
    kept = root / "releases" / "7"
    (kept / "keys").mkdir(parents=True)
    (kept / "keys" / "tls.key").write_text("secret")
    (kept / "keys" / "sealed").mkdir()
    (kept / "keys" / "sealed" / "ca.key").write_text("secret")
    (kept / "notes").write_text("harmless")
    (root / "current").symlink_to("releases/7")
    entry = '[[files]]\nname = "{}"\nroot = "{}"\nmay = ["get"]\n'
    command = '[[commands]]\nname = "cat {}"\nrisk = "reads"\nargv = ["/bin/cat", {{ path = "{}" }}]\n'
    rule(
        office,
        "".join(
            entry.format(name, path) + decision + command.format(name, path) + decision
            for name, path, decision in (
                ("app", root, ""),
                ("keys", kept / "keys", 'decision = "ask"\n'),
                ("sealed", kept / "keys" / "sealed", 'decision = "deny"\n'),
            )
        ),
    )
    return kept


def asked_for(path: Path) -> dict[str, dict[str, Any]]:
    """Return the two ways to ask for what is in a file."""
    return {"fleet.files.get": {"path": str(path)}, "fleet.shell.run": {"argv": ["cat", str(path)]}}


def test_a_link_does_not_lead_past_what_has_to_be_approved_or_is_denied(
    office: System, root: Path, release: Path
) -> None:
    for path, reason in (("keys/tls.key", "needs_approval"), ("keys/sealed/ca.key", "denied")):
        for task, arguments in asked_for(root / "current" / path).items():
            outcome = asks(office, task, **arguments)
            assert getattr(outcome.error, "kind", "") == reason
            assert f"leads to {release / path}" in str(outcome.error)
            until(lambda run=outcome.run_id: session_of(office, run).outcome == "failed", "the session has ended")
            assert f"leads to {release / path}" in session_of(office, outcome.run_id).detail
            assert "secret" not in session_of(office, outcome.run_id).stdout


def test_an_approval_is_for_the_path_that_was_to_be_seen(office: System, root: Path, release: Path) -> None:
    """A student asks for whatever is listed: what somebody approves must not turn out to be the keys."""

    def approved(task: str, arguments: dict[str, Any], *, ends: str) -> Any:
        run, digest = ask_for(office, task, arguments, by="stu")
        answer(office, "boss", run, digest)
        return office.record(run, state=ends)

    for path, kind in (("keys/tls.key", "needs_approval"), ("keys/sealed/ca.key", "denied")):
        for task, arguments in asked_for(root / "current" / path).items():
            ended = approved(task, arguments, ends="failed")
            assert (ended.error or {}).get("kind") == kind
            assert str(release / path) in str(ended.error)
    for path in (root / "current" / "notes", release / "keys" / "tls.key"):  # harmless, and by the real name
        for task, arguments in asked_for(path).items():
            approved(task, arguments, ends="succeeded")
