"""Trust: whoever trusts one key of the fleet believes what it says, and so follows it to the next one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors
from fleet.keyring import Keyring
from fleet.security import trust
from fleet.security.keys import Purpose, fingerprint
from fleet.security.trust import Trust
from tests import factories

FIRST, SECOND, THIRD = (factories.key(name) for name in ("fleet", "second", "third"))
SAID = factories.statement("fleet", "second", version=3, alice=2)


def believer() -> Trust:
    return Trust.in_keys([FIRST.public])


def test_who_knows_one_key_follows_the_fleet_to_the_next_and_the_next() -> None:
    known = believer()
    assert known.learn(factories.statement("fleet", "second", version=2))
    assert known.keys == (FIRST.public, SECOND.public)
    assert known.learn(factories.statement("second", version=3))
    assert known.keys == (SECOND.public,)
    with pytest.raises(errors.NotTrusted):
        known.learn(factories.statement("fleet", version=9))
    assert known.keys == (SECOND.public,), "a key that was dropped has nothing to say any more"


def test_who_was_away_while_its_key_was_dropped_believes_nobody() -> None:
    known = believer()
    with pytest.raises(errors.NotTrusted, match="no key of the fleet has signed"):
        known.learn(factories.statement("second", version=3))
    assert known.version == 0


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_was_said_earlier_changes_nothing(version: int) -> None:
    known = believer()
    known.learn(SAID)
    assert not known.learn(factories.statement("fleet", version=version))
    assert known.keys == (FIRST.public, SECOND.public)
    assert known.statement().principals == {"alice": 2}


@given(st.data())
def test_no_character_of_a_statement_can_be_another(data: st.DataObject) -> None:
    text = json.loads(SAID)["text"]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[place]))
    forged = json.dumps({**json.loads(SAID), "text": text[:place] + other + text[place + 1 :]})
    with pytest.raises(errors.NotTrusted):
        believer().learn(forged)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_foreign_text_is_no_statement_and_no_other_error(said: str) -> None:
    with pytest.raises(errors.NotTrusted):
        believer().learn(said)
    with pytest.raises(errors.NotTrusted):
        trust.recognise(said, fingerprint(FIRST.public))


@pytest.mark.parametrize(
    "told",
    [
        {"version": 0, "keys": [FIRST.public]},
        {"version": 1, "keys": []},
        {"version": 1, "keys": [FIRST.public] * 9},
        {"version": 1},
        [],
    ],
)
def test_a_statement_that_says_nothing_is_refused_though_the_fleet_signed_it(told: object) -> None:
    text = json.dumps(told)
    signatures = {FIRST.public: FIRST.sign(Purpose.TRUST, text.encode())}
    with pytest.raises(errors.NotTrusted, match="cannot be read"):
        believer().learn(json.dumps({"text": text, "signatures": signatures}))


def test_a_signature_for_another_purpose_or_under_anothers_name_does_not_count() -> None:
    text = json.loads(SAID)["text"]
    for signatures in (
        {FIRST.public: FIRST.sign(Purpose.CONTROL, text.encode())},
        {FIRST.public: THIRD.sign(Purpose.TRUST, text.encode())},
        {THIRD.public: THIRD.sign(Purpose.TRUST, text.encode())},
        {},
    ):
        with pytest.raises(errors.NotTrusted):
            believer().learn(json.dumps({"text": text, "signatures": signatures}))


@pytest.mark.parametrize(
    ("serial", "now", "objection"),
    [(2, 100.0, ""), (3, 100.0, ""), (1, 100.0, "revoked"), (2, 100.5, "expired"), (1, 100.5, "revoked")],
)
def test_a_credential_counts_by_its_serial_and_its_time(serial: int, now: float, objection: str) -> None:
    known = believer()
    known.learn(SAID)
    alice = factories.principal("alice", serial=serial, expires_at=100.0)
    assert known.objection(alice, now=now) == objection
    assert known.objection(factories.principal("bob"), now=now) == ""


def test_credentials_count_by_every_key_of_the_fleet_and_by_no_other() -> None:
    alice, edge = factories.principal("alice"), factories.identity("edge-7")
    known = believer()
    by_second = Keyring([SECOND])
    with pytest.raises(errors.NotTrusted, match="no key of the fleet has signed"):
        known.principal(by_second.issue(alice))
    known.learn(SAID)
    assert known.principal(by_second.issue(alice)) == known.principal(factories.ring().issue(alice)) == alice
    assert known.host(by_second.issue(edge)) == edge
    known.learn(factories.statement("second", version=9))
    with pytest.raises(errors.NotTrusted):
        known.principal(factories.ring().issue(alice))


def test_a_host_is_no_principal_and_the_other_way_round() -> None:
    known = believer()
    with pytest.raises(errors.NotTrusted, match="a host's credential where a principal's belongs"):
        known.principal(factories.ring().issue(factories.identity("edge-7")))
    with pytest.raises(errors.NotTrusted, match="a principal's credential where a host's belongs"):
        known.host(factories.ring().issue(factories.principal("alice")))


def test_a_token_recognises_its_control_plane_and_what_to_seal_to() -> None:
    public, seal_to = trust.recognise(SAID, fingerprint(SECOND.public))
    assert public == SECOND.public
    assert seal_to == Keyring([SECOND]).opener(SECOND.public).public


def test_another_control_plane_is_not_recognised_also_where_it_shows_the_right_key() -> None:
    with pytest.raises(errors.NotTrusted, match="not the control plane that made the token"):
        trust.recognise(factories.statement("impostor"), fingerprint(FIRST.public))
    shown = json.loads(SAID)
    mine = Keyring([THIRD]).opener(THIRD.public).public
    shown["openers"][FIRST.public] = {"key": mine, "signature": THIRD.sign(Purpose.ENROLLMENT, mine.encode())}
    with pytest.raises(errors.NotTrusted):
        trust.recognise(json.dumps(shown), fingerprint(FIRST.public))
    shown["openers"] = {}
    with pytest.raises(errors.NotTrusted):
        trust.recognise(json.dumps(shown), fingerprint(FIRST.public))
