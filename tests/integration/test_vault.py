"""The vault: what is kept of a secret, and who gets it for which message."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import audit, clock, db, errors, inventory, names, principals, runs, vault
from fleet.contracts import Risk, approvals
from fleet.contracts.control import ApproveRun, SecretsIssued
from fleet.contracts.envelope import HEADER, Envelope
from fleet.contracts.secrets import LARGEST, SecretsWanted
from fleet.keyring import Keyring
from fleet.models import Principal, Run
from fleet.security import signing
from fleet.security.identity import Level
from fleet.security.sealing import Opener
from tests import factories

RING = factories.ring()
HOST = "edge-1"
OPENER = Opener.generate()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with db.session(engine) as opened:
        factories.found(opened)
        factories.enroll(opened, HOST, labels={"env": "prod"})
        introduce(opened, "alice")
        vault.keep(opened, "password", b"hunter2", ring=RING, by="admin")
        yield opened


def introduce(session: Session, name: str, **identity: Any) -> None:
    who = factories.principal(name, **identity)
    session.add(
        Principal(
            id=name,
            level=who.level.value,
            selectors=who.selectors,
            keys=[who.key],
            serial=who.serial,
            credential=RING.issue(who),
            expires_at=datetime.now(UTC) + timedelta(days=1),
            created_at=clock.now(),
            created_by="admin",
        )
    )
    session.flush()


def message(
    run: str, *asked: str, by: str = "alice", host: str = HOST, task: str = "fleet.containers.create", **identity: Any
) -> dict[str, Any]:
    """Return a message that asks for a container with these secrets, as it lies in a host's queue."""
    envelope = Envelope(
        host=host, host_key=factories.key(host).public, submitted_by=by, submitted_at=time.time()
    ).model_dump(mode="json")
    arguments = {"spec": {"image": "busybox", "secrets": [{"name": name} for name in asked]}}
    made = {
        "headers": {"id": run, "task": task, HEADER: envelope},
        "body": json.dumps([[], arguments, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    credential = RING.issue(factories.principal(by, **identity))
    signing.sign_message(made, factories.key(names.principal_sender(by)), credential)
    return made


def wanted(made: dict[str, Any] | str, approval: str = "") -> SecretsWanted:
    item = made if isinstance(made, str) else json.dumps(made)
    return SecretsWanted(message=item, seal_to=OPENER.public, approval=approval)


def answer(
    session: Session, made: dict[str, Any] | str, run: str, *, host: str = HOST, approval: str = ""
) -> SecretsIssued:
    if session.get(Run, run) is None:
        runs.apply_many(session, [factories.queued(run)])
    found = vault.issue(session, host, run, wanted(made, approval), ring=RING)
    assert found is not None
    return found


def opened(issued: SecretsIssued) -> dict[str, bytes]:
    values = json.loads(OPENER.open(issued.sealed))
    return {name: base64.b64decode(value) for name, value in values.items()}


def test_a_host_gets_what_the_message_names_sealed_to_its_key(session: Session) -> None:
    run = names.new_run_id(HOST)
    issued = answer(session, message(run, "password"), run)
    assert (issued.run, issued.refused) == (run, "")
    assert opened(issued) == {"password": b"hunter2"}
    assert "hunter2" not in issued.model_dump_json()
    (event,) = [event for event in audit.events(session, limit=5) if event.event == "secrets.issued"]
    assert (event.run_id, event.data) == (run, {"secrets": {"password": 1}})


def test_nothing_of_a_value_is_kept_in_the_clear(session: Session) -> None:
    (row,) = vault.everything(session)
    text = row.model_dump_json()
    assert "hunter2" not in text
    assert base64.b64encode(b"hunter2").decode() not in text
    assert row.size == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m | {"body": m["body"].replace("password", "passwort")}, "over these bytes"),
        (lambda m: m | {"headers": {**m["headers"], "id": names.new_run_id(HOST)}}, "over these bytes"),
        (lambda m: m | {"headers": {k: v for k, v in m["headers"].items() if k != signing.HEADER}}, "no signature"),
        (lambda _: "no message", "is no message"),
        (lambda _: {"headers": [], "body": None}, "is no message"),
        (lambda _: [1], "is no message"),
    ],
    ids=["another secret", "another run", "unsigned", "no JSON", "nothing in it", "a list"],
)
def test_what_its_principal_has_not_signed_gets_nothing(session: Session, change: Any, says: str) -> None:
    run = names.new_run_id(HOST)
    made = change(message(run, "password"))
    issued = answer(session, made if isinstance(made, str) else json.dumps(made), run)
    assert (issued.refused, issued.sealed) == ("not_trusted", "")
    assert says in issued.detail
    assert [event.event for event in audit.events(session, limit=1)] == ["secrets.refused"]


@pytest.mark.parametrize("task", ["fleet.containers.check", "some.package"])
def test_a_message_that_makes_no_container_gets_nothing(session: Session, task: str) -> None:
    run = names.new_run_id(HOST)
    issued = answer(session, message(run, "password", task=task), run)
    assert (issued.refused, issued.sealed) == ("not_trusted", "")


def test_a_run_that_is_over_gets_nothing_any_more(session: Session) -> None:
    run = names.new_run_id(HOST)
    made = message(run, "password")
    assert answer(session, made, run).sealed
    runs.apply_many(session, factories.life(run))
    vault.keep(session, "password", b"another", ring=RING, by="admin", replace=True)
    issued = answer(session, made, run)
    assert (issued.refused, issued.detail) == ("not_permitted", "the run is over")


def test_a_run_of_which_its_principal_has_said_nothing_yet_is_waited_for(session: Session) -> None:
    run = names.new_run_id(HOST)
    assert vault.issue(session, HOST, run, wanted(message(run, "password")), ring=RING) is None


def test_a_new_value_stays_for_whom_the_secret_was_unless_it_is_said_anew(session: Session) -> None:
    introduce(session, "bob")
    limits: dict[str, Any] = {"selectors": {"env": "prod"}, "principals": ["bob"]}
    vault.keep(session, "narrow", b"1", ring=RING, by="admin", **limits)
    row = vault.keep(session, "narrow", b"2", ring=RING, by="admin", replace=True)
    assert (row.selectors, row.principals) == (limits["selectors"], limits["principals"])
    row = vault.keep(session, "narrow", b"3", ring=RING, by="admin", replace=True, selectors={}, principals=[])
    assert (row.selectors, row.principals) == ({}, [])


def test_a_host_gets_nothing_by_another_hosts_message_or_another_run(session: Session) -> None:
    factories.enroll(session, "edge-2")
    run, other = names.new_run_id(HOST), names.new_run_id(HOST)
    for host, asked_for in (("edge-2", run), (HOST, other)):
        issued = answer(session, message(run, "password"), asked_for, host=host)
        assert (issued.refused, issued.sealed) == ("not_trusted", "")


def test_a_message_for_a_machine_that_had_the_name_before_gets_nothing(session: Session) -> None:
    run = names.new_run_id(HOST)
    made = message(run, "password")
    inventory.revoke_host(session, inventory.host(session, HOST))
    assert answer(session, made, run).refused == "not_permitted"
    inventory.enroll_host(session, HOST, key=factories.key("another machine").public, labels={"env": "prod"})
    assert answer(session, made, run).refused == "not_trusted"


@pytest.mark.parametrize(
    ("identity", "says"),
    [
        ({"level": Level.SUPERVISED}, "may not make containers"),
        ({"selectors": {"env": "test"}}, "may not make containers"),
        ({"expires_at": 1_700_000_000.0}, "is expired"),
    ],
    ids=["level", "hosts", "expired"],
)
def test_a_principal_who_may_not_make_containers_there_has_none_put_there(
    session: Session, identity: dict[str, Any], says: str
) -> None:
    run = names.new_run_id(HOST)
    issued = answer(session, message(run, "password", **identity), run)
    assert (issued.refused, says in issued.detail) == ("not_permitted", True)


def test_a_principal_that_was_revoked_has_none_put_anywhere(session: Session) -> None:
    run = names.new_run_id(HOST)
    made = message(run, "password")
    principals.revoke(session, "alice", by="admin")
    assert "is revoked" in answer(session, made, run).detail


def approval(made: dict[str, Any], run: str, *, by: str = "boss", name: str = "", **identity: Any) -> str:
    """Return the word of somebody that this very message may be carried out; `name` is what it says whose it is."""
    who = factories.principal(by, **{"approves": frozenset(Risk), **identity})
    word = ApproveRun(run=run, digest=approvals.digest(json.dumps(made)), by=name or by, run_before=4e9)
    key = factories.key(names.principal_sender(by))
    return signing.sign_control(factories.key(HOST).public, word.model_dump_json(), key, RING.issue(who))


def test_a_container_that_somebody_else_approved_gets_its_secrets(session: Session) -> None:
    run = names.new_run_id(HOST)
    made = message(run, "password", level=Level.SUPERVISED)
    assert opened(answer(session, made, run, approval=approval(made, run))) == {"password": b"hunter2"}


@pytest.mark.parametrize(
    "said",
    [{"by": "alice"}, {"name": "alice"}, {"approves": frozenset({Risk.READS})}, {"selectors": {"env": "test"}}],
    ids=["own", "another's name", "risk", "hosts"],
)
def test_an_approval_that_its_host_could_not_have_taken_gets_nothing(session: Session, said: dict[str, Any]) -> None:
    run = names.new_run_id(HOST)
    made = message(run, "password", level=Level.SUPERVISED)
    assert answer(session, made, run, approval=approval(made, run, **said)).refused == "not_permitted"


def test_an_approval_of_somebody_who_was_revoked_gets_nothing(session: Session) -> None:
    introduce(session, "boss")
    run = names.new_run_id(HOST)
    made = message(run, "password", level=Level.SUPERVISED)
    principals.revoke(session, "boss", by="admin")
    assert answer(session, made, run, approval=approval(made, run)).refused == "not_permitted"


def test_an_approval_of_another_run_or_host_gets_nothing(session: Session) -> None:
    run, other = names.new_run_id(HOST), names.new_run_id(HOST)
    made = message(run, "password", level=Level.SUPERVISED)
    for wrong in (approval(made, other), approval(message(run, "other", level=Level.SUPERVISED), run), "{}"):
        assert answer(session, made, run, approval=wrong).refused == "not_permitted"


def test_limits_of_a_secret_are_kept(session: Session) -> None:
    introduce(session, "bob")
    vault.keep(session, "tests", b"x", ring=RING, by="admin", selectors={"env": "test"})
    vault.keep(session, "bobs", b"x", ring=RING, by="admin", principals=["bob"])
    for asked, says in (("tests", "not for this host"), ("bobs", "not for principal alice"), ("none", "no secret")):
        run = names.new_run_id(HOST)
        assert says in answer(session, message(run, "password", asked), run).detail
    run = names.new_run_id(HOST)
    assert opened(answer(session, message(run, "bobs", by="bob"), run)) == {"bobs": b"x"}


def test_a_key_that_everybody_knows_is_not_sealed_to(session: Session) -> None:
    run = names.new_run_id(HOST)
    runs.apply_many(session, [factories.queued(run)])
    asked = SecretsWanted(message=json.dumps(message(run, "password")), seal_to="A" * 43)
    issued = vault.issue(session, HOST, run, asked, ring=RING)
    assert issued
    assert issued.refused == "not_trusted"


def test_what_is_kept_is_sealed_anew_when_the_fleet_has_a_new_key(session: Session) -> None:
    both = Keyring([factories.key("fleet"), factories.key("the next")])
    assert vault.seal_anew(session, both) == 1
    assert vault.seal_anew(session, both) == 0
    (row,) = vault.everything(session)
    assert Keyring([factories.key("the next")]).vault(row.key).open(row.sealed) == b"hunter2"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 64, "é", "a b", ".hidden"])
def test_a_name_that_could_lead_elsewhere_is_refused(session: Session, name: str) -> None:
    with pytest.raises(errors.InvalidValue, match="name"):
        vault.keep(session, name, b"x", ring=RING, by="admin")


@pytest.mark.parametrize("value", [b"", b"x" * (LARGEST + 1)], ids=["empty", "too large"])
def test_a_value_that_cannot_be_kept_is_refused_without_saying_it(session: Session, value: bytes) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        vault.keep(session, "new", value, ring=RING, by="admin")
    assert "xxx" not in str(caught.value)


def test_one_that_is_there_is_replaced_only_when_told_so_and_gone_when_removed(session: Session) -> None:
    with pytest.raises(errors.Refused, match="there is a secret 'password' already"):
        vault.keep(session, "password", b"x", ring=RING, by="admin")
    assert vault.keep(session, "password", b"x", ring=RING, by="admin", replace=True).version == 2
    with pytest.raises(errors.NotFound, match="did you mean 'password'"):
        vault.remove(session, "pasword", by="admin")
    vault.remove(session, "password", by="admin")
    assert vault.everything(session) == []
