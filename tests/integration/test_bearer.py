"""Bearer tokens: made of a principal's file, opened by their secret alone, and ended in every way."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import audit, bearer, clock, db, errors, principals
from fleet.bearer import Bearer, Ended, Scope
from fleet.contracts import Risk
from fleet.contracts.credentials import PrincipalCredential
from fleet.dispatch.signer import Signer
from fleet.models import BearerToken, Principal
from fleet.security.identity import Level
from tests import factories

RING = factories.ring()
BROKER = "rediss://control:s3cret@broker:6379/0"


class Plane:
    """The control plane's side: bob, and tokens of his."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.file = self.make("bob")

    def make(self, name: str, level: Level = Level.AUTONOMOUS, **wishes: Any) -> PrincipalCredential:
        return principals.create(
            self.session, ring=RING, name=name, level=level, by="alice", broker_url=BROKER, **wishes
        )

    def token(self, **wishes: Any) -> str:
        return bearer.create(self.session, **{"held": self.file, "by": "alice", **wishes})

    def read(self, text: str) -> Bearer:
        self.session.flush()
        return bearer.read(self.session, RING, text, broker_url="rediss://control:pw@elsewhere:6380/1")

    def row(self, text: str) -> BearerToken:
        return self.session.get_one(BearerToken, bearer.id_of(text))


@pytest.fixture
def plane(engine: Engine) -> Iterator[Plane]:
    with db.session(engine) as session:
        factories.found(session)
        yield Plane(session)


def test_a_token_says_who_it_is_of_and_lets_sign_as_them(plane: Plane) -> None:
    principals.set_approves(plane.session, "bob", (Risk.READS,), ring=RING, by="alice")
    found = plane.read(plane.token(scope=Scope.AUDIT))
    assert (found.principal, found.level, found.scope, found.approves) == (
        "bob",
        Level.AUTONOMOUS,
        Scope.AUDIT,
        ("reads",),
    )
    signer = Signer(found.credential)
    assert signer.identity.approves == {Risk.READS}, "by the credential of now, and not by that of the file"
    where = found.credential.broker_url.get_secret_value()
    assert where.startswith("rediss://p-bob:")
    assert where.endswith("@elsewhere:6380/1"), "the broker is where the API finds it"
    assert "s3cret" not in where


def test_what_the_database_has_of_a_token_lets_nobody_sign(plane: Plane) -> None:
    text = plane.token()
    row = plane.row(text)
    kept = repr(row.model_dump())
    assert text.split(".")[2] not in kept
    assert plane.file.private_key.get_secret_value() not in kept
    assert row.sealed.startswith("ey"), "a JWE, which only the secret opens"
    other = plane.token()
    row.sealed = plane.row(other).sealed  # somebody who can write there swaps them
    with pytest.raises(ValueError, match="not sealed to this reader"):
        plane.read(text)


@pytest.mark.parametrize(
    "wrong",
    ["", "fleetapi", "fleetapi.0123456789abcdef.", "fleetapi.0123456789abcdef." + "x" * 43, "x" * 5000, "fleetapi..\0"],
    ids=range(6),
)
def test_what_is_no_token_is_nobodys(plane: Plane, wrong: str) -> None:
    with pytest.raises(errors.Unauthenticated, match="none of this fleet's"):
        plane.read(wrong)


def test_a_wrong_secret_is_answered_like_an_unknown_token_also_where_it_was_revoked(plane: Plane) -> None:
    text = plane.token()
    bearer.revoke(plane.session, str(bearer.id_of(text)), by="alice")
    guessed = text[:-1] + ("A" if text[-1] != "A" else "B")
    with pytest.raises(errors.Unauthenticated, match="none of this fleet's"):
        plane.read(guessed)
    with pytest.raises(Ended, match="was revoked"):
        plane.read(text)
    made = [event.data["token"] for event in audit.events(plane.session, event="bearer_token.revoked")]
    assert made == [bearer.id_of(text)]


def test_a_token_ends_with_its_time_with_its_principal_and_with_the_key(plane: Plane) -> None:
    text = plane.token(ttl=timedelta(minutes=5))
    plane.row(text).expires_at = clock.now()
    with pytest.raises(Ended, match="has expired"):
        plane.read(text)
    kept = plane.token()
    principals.rotate(plane.session, "bob", ring=RING, by="alice", broker_url=BROKER)
    assert Signer(plane.read(kept).credential).name == "bob", "while the former key counts"
    principals.renew(plane.session, RING, now=clock.now() + timedelta(days=1))
    with pytest.raises(Ended, match="another key"):
        plane.read(kept)
    with pytest.raises(errors.Refused, match="was replaced"):
        plane.token()
    carol = plane.make("carol")
    of_carol = plane.token(held=carol)
    principals.revoke(plane.session, "carol", by="alice")
    with pytest.raises(Ended, match="revoked"):
        plane.read(of_carol)
    with pytest.raises(errors.NotFound):
        plane.token(held=carol)


def test_no_token_outlives_its_principal(plane: Plane) -> None:
    brief = plane.make("brief", ttl=timedelta(hours=1))
    row = plane.row(plane.token(held=brief, ttl=timedelta(days=300)))
    assert row.expires_at == plane.session.get_one(Principal, "brief").expires_at


def test_higher_scopes_are_for_autonomous_principals_of_all_hosts(plane: Plane) -> None:
    for number, (level, selectors) in enumerate(((Level.SUPERVISED, {}), (Level.AUTONOMOUS, {"env": "prod"}))):
        held = plane.make(f"p{number}", level, selectors=selectors)
        assert plane.read(plane.token(held=held)).scope is Scope.USE
        for scope in (Scope.AUDIT, Scope.ADMIN):
            with pytest.raises(errors.Refused, match="autonomous principals of all hosts"):
                plane.token(held=held, scope=scope)


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"ttl": timedelta(seconds=1)}, "ttl"),
        ({"ttl": timedelta(days=9999)}, "ttl"),
        ({"description": "x" * 300}, "description"),
    ],
)
def test_a_wrong_wish_is_named(plane: Plane, wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidValue, match=field):
        plane.token(**wishes)


def test_tokens_are_listed_by_principal_and_an_unknown_one_is_not_found(plane: Plane) -> None:
    mine = plane.token(description="CI")
    theirs = plane.token(held=plane.make("carol"))
    plane.session.flush()
    assert {row.id for row in bearer.listing(plane.session)} == {bearer.id_of(mine), bearer.id_of(theirs)}
    [row] = bearer.listing(plane.session, principal="bob")
    assert (row.description, bearer.state(row)) == ("CI", "valid")
    with pytest.raises(errors.NotFound):
        bearer.revoke(plane.session, "0" * 16, by="alice")
