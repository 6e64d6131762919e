"""Governing: what a host's judgment says on record, with no secret that the host knows."""

from pathlib import Path

import pytest

from fleet import policy
from fleet.contracts import Risk, files, shell
from fleet.contracts.envelope import Envelope
from fleet.contracts.verdicts import Decision
from fleet.masking import Masker
from fleet.policy import HostPolicy, Verdict
from fleet.security.identity import Level, PrincipalIdentity
from tests import factories
from tests.services.sessions import Session, session, time
from workers.host.governing import Governor
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
def governor(session: Session, tmp_path: Path) -> Governor:
    own = factories.own(tmp_path / "credential.json", "h1")
    ruling = Ruling(tmp_path / "policy.json", own)
    ruling.learn(policy.state(TEXT, 1, [factories.key("fleet")]))
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
