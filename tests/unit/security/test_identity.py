"""Identities: a credential says what the fleet signed, by Ed25519, and nothing else counts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import OctKey, OKPKey

from fleet import errors, names
from fleet.contracts import Risk
from fleet.security import identity
from fleet.security.identity import Claims, HostIdentity, Level, PrincipalIdentity
from fleet.security.keys import decode, encode
from tests import factories

FLEET = factories.key("fleet")
ALICE, EDGE = factories.principal("alice"), factories.identity("edge-7", labels={"env": "prod"})
NAMES = st.from_regex(names.HOST_ID, fullmatch=True).filter(lambda name: name not in {"control", "dirty"})
TEXTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)
TIMES = st.floats(0, 1e11)


def refuses(credential: str) -> None:
    with pytest.raises(errors.NotTrusted, match="a credential that the fleet has not signed"):
        identity.read(credential, FLEET.public)


def text(value: object) -> str:
    return encode(value if isinstance(value, bytes) else json.dumps(value).encode())


def signed(payload: object, **header: Any) -> str:
    """Return whatever payload there is, signed by the fleet's key."""
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": FLEET.public, "d": encode(FLEET.seed())})
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return jws.serialize_compact({"alg": "Ed25519", **header}, data, key, algorithms=["Ed25519"])


def claims(who: HostIdentity | PrincipalIdentity = ALICE, **changed: Any) -> dict[str, Any]:
    found = {**Claims.of(who).model_dump(exclude_none=True), **changed}
    return {name: value for name, value in found.items() if value is not None}


@given(NAMES, TEXTS, TIMES, TIMES)
def test_a_hosts_credential_says_who_it_is(host: str, labels: dict[str, str], issued: float, enrolled: float) -> None:
    who = factories.identity(host, labels=labels, issued_at=issued, enrolled_at=enrolled)
    assert identity.read(identity.issue(who, FLEET), FLEET.public) == who


@given(NAMES, st.sampled_from(Level), TEXTS, st.integers(1, 2**40), TIMES)
def test_a_principals_credential_says_who_it_is(
    name: str, level: Level, selectors: dict[str, str], serial: int, expires: float
) -> None:
    who = factories.principal(name, level=level, selectors=selectors, serial=serial, expires_at=expires)
    assert identity.read(identity.issue(who, FLEET), FLEET.public) == who


def test_it_is_a_standard_token_that_others_can_read() -> None:
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": FLEET.public})
    token = jwt.decode(identity.issue(ALICE, FLEET), key, algorithms=["Ed25519"])
    assert token.header == {"alg": "Ed25519", "typ": "JWT", "kid": FLEET.public}
    assert token.claims["sub"] == "p:alice"
    assert token.claims["cnf"] == {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": ALICE.key}}


def test_another_fleets_credential_is_refused() -> None:
    refuses(identity.issue(ALICE, factories.key("another fleet")))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS256"},
        {"alg": "EdDSA"},
        {"alg": "Ed448"},
        {"alg": "RS256"},
        {"alg": ["Ed25519"]},
        {"alg": {}},
        {"alg": 1},
        {"alg": "Ed25519", "crit": ["b64"], "b64": False},
        {"alg": "Ed25519", "crit": 1},
        {"alg": "Ed25519", "b64": False},
        {"alg": "Ed25519", "kid": []},
        {"alg": "Ed25519", "zip": "DEF"},
        {"alg": "Ed25519", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": factories.key("mallory").public}},
        {},
        [],
        1,
        None,
        b"[" * 3000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"alg":' + b"1" * 5000 + b"}",
        b"",
    ],
    ids=repr,
)
def test_by_another_header_it_is_refused(header: object) -> None:
    _header, payload, signature = identity.issue(ALICE, FLEET).split(".")
    refuses(f"{text(header)}.{payload}.{signature}")
    refuses(f"{text(header)}.{payload}.")


def test_the_public_key_taken_for_a_shared_secret_signs_nothing() -> None:
    for secret in (FLEET.public.encode(), decode(FLEET.public)):
        key = OctKey.import_key(secret)
        refuses(jws.serialize_compact({"alg": "HS256"}, json.dumps(claims()).encode(), key, algorithms=["HS256"]))


@given(st.data())
def test_no_character_of_a_credential_can_be_another(data: st.DataObject) -> None:
    credential = identity.issue(ALICE, FLEET)
    place = data.draw(st.integers(0, len(credential) - 1))
    other = data.draw(st.characters().filter(lambda character: character != credential[place]))
    try:
        found = identity.read(credential[:place] + other + credential[place + 1 :], FLEET.public)
    except errors.NotTrusted:
        return
    assert found == ALICE, "base64 has bits to spare at its end, which mean nothing"


@given(st.text() | st.lists(st.text(alphabet="eyJ0.-_="), min_size=3, max_size=3).map(".".join))
def test_foreign_text_is_no_credential_and_no_other_error(credential: str) -> None:
    refuses(credential)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"1",
        b"\xff",
        b"[" * 3000 + b"]" * 3000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"iat": NaN}',
        claims(admin=True),
        claims(v=2),
        claims(sub="x:alice"),
        claims(sub="alice"),
        claims(sub="p:../x"),
        claims(sub="h:alice"),
        claims(sub=7),
        claims(level="root"),
        claims(level=None),
        claims(serial=None),
        claims(serial=0),
        claims(serial="1"),
        claims(serial=True),
        claims(exp=None),
        claims(iat="now"),
        claims(cnf={}),
        claims(cnf={"jwk": {"kty": "OKP"}}),
        claims(cnf={"jwk": {"x": "short"}}),
        claims(selectors={"env": 1}),
        claims(EDGE, enrolled_at=None),
        claims(EDGE, sub="h:control"),
        json.dumps(claims()).replace("}", ', "exp": Infinity}').encode(),
    ],
    ids=repr,
)
def test_claims_that_fit_neither_host_nor_principal_are_refused_though_the_fleet_signed_them(payload: object) -> None:
    refuses(signed(payload))


@pytest.mark.parametrize(
    ("level", "allowed"),
    [
        (Level.STUDENT, {Risk.READS}),
        (Level.INTERN, {Risk.READS}),
        (Level.SUPERVISED, {Risk.READS, Risk.CHANGES}),
        (Level.AUTONOMOUS, set(Risk)),
    ],
)
def test_a_level_may_do_this_without_anybody_elses_word(level: Level, allowed: set[Risk]) -> None:
    assert {risk for risk in Risk if level.may(risk)} == allowed


@pytest.mark.parametrize(
    ("selectors", "may"),
    [({}, True), ({"env": "prod"}, True), ({"env": "test"}, False), ({"env": "prod", "tier": "edge"}, False)],
)
def test_a_principal_addresses_hosts_with_all_its_labels(selectors: dict[str, str], *, may: bool) -> None:
    assert factories.principal("alice", selectors=selectors).may_address(EDGE) is may
