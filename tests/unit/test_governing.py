"""Governing: what a host's judgment says on record, with no secret that the host knows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import errors, policy
from fleet.contracts import Risk, files, registry, shell
from fleet.contracts.envelope import Envelope
from fleet.contracts.verdicts import Decision
from fleet.masking import Masker
from fleet.policy import HostPolicy, Verdict
from fleet.security.identity import Level, PrincipalIdentity
from fleet.security.signing import HEADER
from tests import factories
from tests.services.sessions import Session, session, time
from workers.host.claim import Claim
from workers.host.governing import Governor
from workers.host.own import Own
from workers.host.ruling import Ruling

__all__ = ["session", "time"]

SECRET = "hunter2-" + "x" * 100
TEXT = f"""
[[commands]]
name = "uptime"
risk = "reads"
argv = ["/usr/bin/uptime"]
[[commands]]
name = "told"
risk = "reads"
argv = ["/bin/echo", "{SECRET}"]
"""
BOB = PrincipalIdentity(key="b" * 43, issued_at=1.0, name="bob", level=Level.AUTONOMOUS, serial=1, expires_at=4e9)
ENVELOPE = Envelope(host="h1", host_key="k", submitted_by="bob", submitted_at=1.0)


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return factories.own(tmp_path / "credential.json", "h1")


@pytest.fixture
def ruling(own: Own, tmp_path: Path) -> Ruling:
    found = Ruling(tmp_path / "policy.json", own)
    found.learn(policy.state(TEXT, 1, [factories.key("fleet")]))
    return found


@pytest.fixture
def governor(session: Session, own: Own, ruling: Ruling) -> Governor:
    return Governor(
        own=own,
        ruling=ruling,
        host_policy=HostPolicy(),
        clock=session.time,
        takes_commands=True,
        mask=Masker([SECRET]).text,
    )


def asked(governor: Governor, **request: object) -> Verdict:
    return governor.judge(BOB, shell.RUN, shell.RunCommand.model_validate(request), ENVELOPE)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"argv": [f"MYSQL_PWD={SECRET}", "mysql"]}, "no entry lists the program 'MYSQL_PWD=***'"),
        ({"argv": ["uptime"], "cwd": f"/srv/{SECRET}"}, "/srv/***"),
        ({"argv": ["uptime", SECRET]}, "but not with these arguments"),
    ],
)
def test_the_rule_quotes_no_known_secret_and_no_part_of_one(
    governor: Governor, request_: dict[str, object], words: str
) -> None:
    verdict = asked(governor, **request_)
    assert verdict.decision is Decision.DENY
    assert words in verdict.rule
    assert "hunter2-" not in verdict.rule


def test_what_is_granted_is_granted_with_the_secret_in_it(governor: Governor) -> None:
    verdict = asked(governor, argv=["/bin/echo", SECRET])
    assert (verdict.decision, verdict.reason) == (Decision.ALLOW, "allowed")
    assert verdict.command is not None
    assert verdict.command.name == "told"


def test_arguments_directory_and_path_go_on_record_without_secrets(governor: Governor) -> None:
    verdict = Verdict(decision=Decision.ALLOW, reason="allowed", rule="it", risk=Risk.READS)
    command = shell.RunCommand(argv=("cat", f"a={SECRET}"), cwd=f"/srv/{SECRET}")
    told = governor.told(verdict, BOB, shell.RUN, command)
    assert (told.argv, told.cwd) == (("cat", "a=***"), "/srv/***")
    told = governor.told(verdict, BOB, files.GET, files.GetFile(path=f"/srv/{SECRET}"))
    assert told.argv == ("get", "/srv/***")


def pushed_by_bob(session: Session, *, level: Level, serial: int = 1, expires_at: float = 4e9) -> Claim:
    """Return the claim of a restart that bob pushed, and that waits in the journal."""
    held = factories.ring().issue(factories.principal("bob", level=level, serial=serial, expires_at=expires_at))
    claim = session.begun(task=RESTART.name, arguments={"container": "web"})
    item = json.loads(claim.item)
    item["headers"][HEADER] = {"credential": held, "signature": ""}
    return replace(claim, item=json.dumps(item))


RESTART = registry.get("fleet.containers.restart")
REQUEST = RESTART.parse({"container": "web"})


def test_what_waits_in_the_journal_begins_while_nothing_has_changed(governor: Governor, session: Session) -> None:
    governor.let_begin(pushed_by_bob(session, level=Level.SUPERVISED), RESTART, REQUEST)
    ran_out = pushed_by_bob(session, level=Level.SUPERVISED, expires_at=session.time.at - 1)
    governor.let_begin(ran_out, RESTART, REQUEST)  # it was let in in time


def test_what_a_principal_left_waiting_does_not_begin_once_it_is_revoked(
    governor: Governor, own: Own, session: Session
) -> None:
    claim = pushed_by_bob(session, level=Level.AUTONOMOUS)
    governor.let_begin(claim, RESTART, REQUEST)
    own.trust.learn(factories.statement(version=2, bob=2))
    with pytest.raises(errors.NotGranted) as caught:
        governor.let_begin(claim, RESTART, REQUEST)
    assert caught.value.kind == "credential_revoked"


@pytest.mark.parametrize("decision", ["deny", "ask"])
def test_what_the_policy_says_by_now_counts_for_what_waits(
    governor: Governor, ruling: Ruling, session: Session, decision: str
) -> None:
    claim = pushed_by_bob(session, level=Level.AUTONOMOUS)
    rule = f'[[rules]]\nname = "freeze"\ntasks = ["fleet.containers.restart"]\ndecision = "{decision}"\n'
    ruling.learn(policy.state(rule, 2, [factories.key("fleet")]))
    with pytest.raises(errors.NotGranted, match="freeze"):
        governor.let_begin(claim, RESTART, REQUEST)
