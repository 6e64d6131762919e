"""Principals: made, changed and put out on both databases, and what their credentials say after each step."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import audit, clock, db, errors, keyring, principals
from fleet.broker import login
from fleet.contracts import Risk
from fleet.contracts.credentials import PrincipalCredential
from fleet.dispatch.signer import Signer
from fleet.keyring import Keyring
from fleet.models import Principal
from fleet.security.identity import Level, PrincipalIdentity
from fleet.security.keys import KeyPair
from fleet.security.trust import Trust
from tests import factories

RING = factories.ring()
NOW = 1_750_000_000.0


class Plane:
    """The control plane's side: principals of one fleet."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def create(self, name: str = "bob", level: Level = Level.SUPERVISED, **wishes: Any) -> PrincipalCredential:
        wishes = {"broker_url": "rediss://control:s3cret@broker:6379/0", **wishes}
        return principals.create(self.session, ring=RING, name=name, level=level, by="alice", **wishes)

    def set_level(self, level: Level) -> Principal:
        return principals.set_level(self.session, "bob", level, ring=RING, by="alice")

    def rotate(self, **wishes: Any) -> PrincipalCredential:
        return principals.rotate(self.session, "bob", ring=RING, by="alice", broker_url="rediss://broker/0", **wishes)

    def revoke(self) -> Principal:
        return principals.revoke(self.session, "bob", by="alice")

    def trust(self) -> Trust:
        """Return what everybody believes now."""
        known = Trust.in_keys([RING.newest.public])
        known.learn(keyring.statement(self.session, RING))
        return known

    def counts(self, credential: str) -> bool:
        trust = self.trust()
        return not trust.objection(trust.principal(credential), now=clock.now().timestamp())

    def row(self) -> Principal:
        return self.session.get_one(Principal, "bob")

    def identity(self, credential: str | None = None) -> PrincipalIdentity:
        return self.trust().principal(credential or self.row().credential)

    def recorded(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event.event, event.data) for event in audit.events(self.session, after_id=0)]


@pytest.fixture
def plane(engine: Engine) -> Iterator[Plane]:
    with db.session(engine) as session:
        factories.found(session)
        yield Plane(session)


def test_a_principal_gets_a_file_by_which_it_pushes(plane: Plane, tmp_path: Path) -> None:
    made = plane.create(selectors={"env": "test"}, broker_ca="PEM")
    who = plane.identity(made.credential)
    assert (who.name, who.level, who.selectors, who.serial) == ("bob", Level.SUPERVISED, {"env": "test"}, 1)
    assert KeyPair.read(made.private_key.get_secret_value()).public == who.key == plane.row().keys[-1]
    url = made.broker_url.get_secret_value()
    assert url.startswith("rediss://p-bob:")
    assert url.endswith("@broker:6379/0")
    assert "s3cret" not in url
    password = url.partition("p-bob:")[2].partition("@")[0]
    assert plane.row().broker_hashes == [login.hashed(password)]
    assert made.broker_ca == "PEM"
    assert Signer(made, tmp_path / "bob.json").identity == who
    [(event, data)] = plane.recorded()
    assert (event, data["principal"], data["level"]) == ("principal.created", "bob", "supervised")
    secrets = (password, made.private_key.get_secret_value())
    kept = repr(plane.row().model_dump()) + repr(plane.recorded())
    assert not any(secret in kept for secret in secrets), "neither the key nor the password is kept here"


def test_there_is_one_principal_of_a_name(plane: Plane) -> None:
    first = plane.create()
    with pytest.raises(errors.Refused, match="there is a principal 'bob' already; `fleet principal rotate bob`"):
        plane.create(level=Level.AUTONOMOUS)
    assert plane.counts(first.credential)
    assert plane.identity().level is Level.SUPERVISED


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"name": "../root"}, "principal"),
        ({"name": ""}, "principal"),
        ({"ttl": timedelta(seconds=59)}, "ttl"),
        ({"ttl": timedelta(days=3651)}, "ttl"),
        ({"selectors": {"a b": "c"}}, "label"),
    ],
)
def test_what_no_principal_can_be_made_of_is_refused_by_name(plane: Plane, wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        plane.create(**wishes)
    assert caught.value.field == field
    assert plane.recorded() == []


def test_a_level_changes_for_good_and_the_former_credential_counts_no_more(plane: Plane) -> None:
    made = plane.create()
    row = plane.set_level(Level.STUDENT)
    assert (plane.identity().level, plane.identity().key) == (Level.STUDENT, plane.identity(made.credential).key)
    assert plane.counts(row.credential)
    assert not plane.counts(made.credential), "else it would go on pushing by the level that it had"
    serial = row.serial
    plane.set_level(Level.STUDENT)
    assert plane.row().serial == serial, "the same level again changes nothing"
    assert [event for event, _ in plane.recorded()] == ["principal.created", "principal.level_set"]


def test_a_new_file_counts_beside_the_former_for_a_while(plane: Plane) -> None:
    first = plane.create()
    second = plane.rotate(overlap=timedelta(minutes=10))
    assert plane.counts(first.credential)
    assert plane.counts(second.credential)
    assert len(plane.row().keys) == len(plane.row().broker_hashes) == 2
    assert plane.identity(second.credential).key == plane.row().keys[-1]
    now = clock.now()
    assert not principals.renew(plane.session, RING, now=now + timedelta(minutes=9))
    assert principals.renew(plane.session, RING, now=now + timedelta(minutes=11))
    assert not plane.counts(first.credential)
    assert plane.counts(second.credential)
    assert len(plane.row().keys) == len(plane.row().broker_hashes) == 1
    assert not principals.renew(plane.session, RING, now=now + timedelta(minutes=12))


def test_of_three_files_the_oldest_ends_at_once(plane: Plane) -> None:
    first, second, third = plane.create(), plane.rotate(), plane.rotate()
    assert [plane.counts(made.credential) for made in (first, second, third)] == [False, True, True]
    assert len(plane.row().keys) == len(plane.row().broker_hashes) == 2


def test_a_level_that_is_lowered_during_an_overlap_is_lowered_for_both_files(plane: Plane) -> None:
    first, second = plane.create(), plane.rotate()
    plane.set_level(Level.STUDENT)
    assert not plane.counts(first.credential)
    assert not plane.counts(second.credential)
    assert plane.identity().key == plane.identity(second.credential).key


def test_what_is_revoked_counts_nowhere_and_is_not_there_any_more(plane: Plane) -> None:
    first, second = plane.create(), plane.rotate()
    plane.revoke()
    assert not plane.counts(first.credential)
    assert not plane.counts(second.credential)
    assert plane.row().broker_hashes == []
    assert principals.keys(plane.session, ["bob"]) == {}
    for attempt in (plane.revoke, plane.rotate, lambda: plane.set_level(Level.STUDENT)):
        with pytest.raises(errors.NotFound, match="no principal named 'bob'"):
            attempt()
    assert [row.id for row in principals.everybody(plane.session)] == ["bob"]


def test_a_name_that_is_given_anew_inherits_nothing_but_its_count(plane: Plane) -> None:
    first = plane.create(selectors={"env": "prod"}, level=Level.AUTONOMOUS)
    plane.rotate()
    plane.revoke()
    version = plane.trust().version
    again = plane.create(level=Level.STUDENT)
    who = plane.identity(again.credential)
    assert (who.level, who.selectors) == (Level.STUDENT, {})
    assert plane.counts(again.credential)
    assert not plane.counts(first.credential)
    assert who.key != plane.identity(first.credential).key
    assert plane.row().keys == [who.key]
    assert plane.trust().version >= version
    assert plane.row().revoked_at is None


def test_a_name_that_is_given_anew_has_no_overlap_with_the_former(plane: Plane) -> None:
    plane.create()
    plane.rotate()
    plane.revoke()
    again = plane.create()
    principals.renew(plane.session, RING, now=clock.now() + timedelta(days=1))
    assert plane.counts(again.credential)
    assert plane.row().keys == [plane.identity(again.credential).key]


def test_one_that_is_not_there_comes_with_a_suggestion(plane: Plane) -> None:
    plane.create()
    with pytest.raises(errors.NotFound, match="no principal named 'bpb'; did you mean 'bob'"):
        principals.get(plane.session, "bpb")
    with pytest.raises(errors.InvalidValue):
        principals.get(plane.session, "../x")


def test_under_a_new_key_of_the_fleet_credentials_are_issued_anew_and_say_the_same(plane: Plane) -> None:
    made = plane.create()
    both = Keyring([factories.key("fleet"), factories.key("the next")])
    assert principals.renew(plane.session, both, now=clock.now())
    assert not principals.renew(plane.session, both, now=clock.now())
    known = Trust.in_keys([factories.key("the next").public])
    renewed = known.principal(plane.row().credential)
    assert renewed.model_dump(exclude={"issued_at"}) == plane.identity(made.credential).model_dump(
        exclude={"issued_at"}
    )
    assert plane.counts(made.credential), "the serial is the same"


def test_what_it_may_approve_stands_in_its_credential_and_outlives_a_new_file(plane: Plane) -> None:
    made = plane.create(approves=(Risk.EXECUTES, Risk.READS))
    assert plane.identity(made.credential).approves == {Risk.READS, Risk.EXECUTES}
    assert plane.row().approves == ["reads", "executes"]
    assert plane.identity(plane.rotate().credential).approves == {Risk.READS, Risk.EXECUTES}
    both = Keyring([factories.key("fleet"), factories.key("the next")])
    principals.renew(plane.session, both, now=clock.now())
    renewed = Trust.in_keys([factories.key("the next").public]).principal(plane.row().credential)
    assert renewed.approves == {Risk.READS, Risk.EXECUTES}


def test_nothing_may_be_approved_by_whoever_was_not_told_so(plane: Plane) -> None:
    made = plane.create(level=Level.AUTONOMOUS)
    assert plane.identity(made.credential).approves == frozenset()


def test_another_level_keeps_what_it_may_approve_and_the_former_credential_counts_no_more(plane: Plane) -> None:
    made = plane.create(approves=tuple(Risk))
    plane.set_level(Level.STUDENT)
    assert (plane.identity().level, plane.identity().approves) == (Level.STUDENT, frozenset(Risk))
    assert not plane.counts(made.credential)


def test_what_it_may_approve_is_changed_with_its_level_or_alone(plane: Plane) -> None:
    plane.create(approves=tuple(Risk))
    row = principals.set_approves(plane.session, "bob", (Risk.READS,), ring=RING, by="alice")
    former = row.credential
    assert (plane.identity().level, plane.identity().approves) == (Level.SUPERVISED, {Risk.READS})
    principals.set_approves(plane.session, "bob", (Risk.READS,), ring=RING, by="alice")
    assert plane.row().credential == former, "the same again changes nothing"
    principals.set_level(plane.session, "bob", Level.SUPERVISED, ring=RING, by="alice", approves=())
    assert plane.identity().approves == frozenset()
    assert not plane.counts(former), "else it would go on approving by it"
    told = [(event, data["approves"]) for event, data in plane.recorded()]
    every = [risk.value for risk in Risk]
    assert told == [
        ("principal.created", every),
        ("principal.approves_set", ["reads"]),
        ("principal.approves_set", []),
    ]


def test_a_name_that_is_given_anew_may_approve_nothing_that_the_former_could(plane: Plane) -> None:
    plane.create(approves=tuple(Risk))
    plane.revoke()
    assert plane.identity(plane.create().credential).approves == frozenset()
