"""An office: a fleet of one host by a policy of the test's, with whoever asks and whoever answers."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fleet import db, members, names, policies, policy
from fleet.client import Fleet
from fleet.contracts import Risk, approvals
from fleet.models import Approval, AuditEvent, ShellSession
from fleet.security.identity import Level
from tests.services.system import System, standing
from tests.services.waiting import until

__all__ = ["office", "standing"]

RowT = TypeVar("RowT", Approval, ShellSession)

TOUCH = "/usr/bin/touch"


def policy_text(canary: Path, *, approve_within: str = "1h") -> str:
    return f"""
[approvals]
approve_within = "{approve_within}"
[[commands]]
name = "uptime"
risk = "reads"
argv = ["/usr/bin/uptime"]
[[commands]]
name = "canary"
risk = "changes"
argv = ["{TOUCH}", {{ path = "{canary}" }}]
"""


@pytest.fixture(scope="module")
def office(standing: System) -> System:
    everything = tuple(Risk)
    standing.introduce("stu", Level.STUDENT)
    standing.introduce("eve", Level.STUDENT, approves=everything)
    standing.introduce("boss", Level.SUPERVISED, approves=everything)
    standing.introduce("reader", Level.SUPERVISED, approves=(Risk.READS,))
    standing.introduce("elsewhere", Level.AUTONOMOUS, approves=everything, selectors={"env": "prod"})
    return standing


def rule(office: System, text: str, *, host: str = "h1") -> None:
    """Have the fleet go by a policy, and wait until the host does."""
    with office.control_plane() as (session, client, ring):
        version = policies.set_policy(session, text, by="alice").number
        members.announce_policy(session, client, ring)
    taken = office.directory / "hosts" / host / "policy.json"

    def is_taken() -> bool:
        with office.control_plane() as (_session, _client, ring):
            keys = [key.public for key in ring.keys]
            return taken.is_file() and policy.read(taken.read_text(), keys).version == version

    until(is_taken, "the host has the policy")
    # It is kept before it counts, and the word is removed when it does.
    until(lambda: not office.redis.llen(names.control(host)), "the host goes by the policy")


def list_programs(office: System, *commands: Sequence[str], host: str = "h1") -> None:
    """Have the fleet's policy list these argument lists, as they are."""
    entries = (
        f'[[commands]]\nname = "{number}"\nrisk = "reads"\nargv = {json.dumps(list(argv))}\n'
        for number, argv in enumerate(commands)
    )
    rule(office, "".join(entries), host=host)


def start(office: System, *words: str, **environment: str) -> "subprocess.Popen[str]":
    """Start `fleet …` as somebody at this office, and go on."""
    return subprocess.Popen(
        [sys.executable, "-m", "fleet", *words],
        env=office.environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def fleet_of(office: System, principal: str) -> Iterator[Fleet]:
    with Fleet(office.settings.model_copy(update={"principal": principal})) as fleet:
        yield fleet


def ask(office: System, *argv: str, by: str = "stu", **wishes: Any) -> tuple[str, str]:
    """Push a command that has to wait; return its id and its digest."""
    return ask_for(office, "fleet.shell.run", {"argv": list(argv)}, by=by, **wishes)


def ask_for(office: System, task: str, arguments: Mapping[str, Any], *, by: str, **wishes: Any) -> tuple[str, str]:
    """Push something that has to wait; return its id and its digest."""
    with fleet_of(office, by) as fleet:
        batch = fleet.push(task, on="h1", arguments=arguments, **wishes)
    run = office.record(batch.run_ids[0], state="awaiting_approval")
    assert run.message
    return run.id, approvals.digest(run.message)


def answer(office: System, by: str, run: str, digest: str, **wishes: Any) -> None:
    with fleet_of(office, by) as fleet:
        fleet.approve(run, digest=digest, **{"run_within": 60.0, **wishes})


def refused(office: System, run: str, reason: str) -> AuditEvent:
    """Return the record of an answer that did not count."""

    def look() -> AuditEvent | None:
        found = [event for event in office.life(run) if event.event == "approval.refused"]
        return next((event for event in found if event.data["reason"] == reason), None)

    return until(look, f"an answer refused as {reason}")


def approval_of(office: System, run: str) -> Approval:
    return _row(office, Approval, run)


def session_of(office: System, run: str) -> ShellSession:
    return _row(office, ShellSession, run)


def _row(office: System, model: type[RowT], run: str) -> RowT:
    """Return the row about a run, once it is on record."""

    def look() -> RowT | None:
        with db.session(office.engine, write=False) as session:
            found = session.get(model, run)
            session.expunge_all()
            return found

    return until(look, f"{model.__name__} of {run}")


@pytest.fixture
def canary(office: System, tmp_path: Path) -> Path:
    """What a command makes that was carried out."""
    rule(office, policy_text(tmp_path))
    return tmp_path / "canary"
