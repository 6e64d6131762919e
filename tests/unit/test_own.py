"""A host's own keys and credential: what it takes from the fleet, keeps on disk, and goes by in the next session."""

import stat
from pathlib import Path

import pytest

from fleet import credentials, errors
from fleet.broker import login
from fleet.contracts.control import InventoryRequested
from fleet.contracts.credentials import HostCredential
from fleet.keyring import Keyring
from fleet.security import signing
from fleet.security.keys import KeyPair
from tests import factories
from workers.host.own import Own

RING = factories.ring()
#: Later than what the host begins with.
LATER = 1_700_000_100.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credential.json"


@pytest.fixture
def own(path: Path) -> Own:
    return factories.own(path, "h1", labels={"env": "prod"})


def next_session(path: Path) -> Own:
    return Own(path, credentials.load(path, host="h1"))


def held(path: Path) -> HostCredential:
    return credentials.load(path, host="h1")


def issued(*, at: float = LATER, by: Keyring = RING, host: str = "h1", **more: object) -> str:
    return by.issue(factories.identity(host, issued_at=at, **more))


def heard(own: Own, key: str) -> bool:
    """Say whether the host hears what the fleet says to that public key."""
    try:
        own.read_word(RING.word(key, InventoryRequested()))
    except errors.NotTrusted:
        return False
    return True


def test_it_signs_what_others_check_by_its_credential(own: Own) -> None:
    assert signing.check_reports(own.sign_reports(("a",)).encode(), "h1", [own.identity.key]) == ("a",)
    assert own.identity.labels == {"env": "prod"}
    assert own.login.get_credentials() == ("h-h1", "secret")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"private_key": factories.key("h2").secret()}, "its key is not the one of its credential"),
        ({"credential": issued(host="h2")}, "its key is not the one of its credential"),
        ({"credential": issued(key=factories.key("h2").public)}, "its key is not the one of its credential"),
        ({"credential": issued(by=Keyring([factories.key("mallory")]))}, "a credential that no key of the fleet"),
        ({"credential": RING.issue(factories.principal("alice"))}, "a principal's credential where a host's belongs"),
        ({"credential": ""}, "a credential that no key of the fleet has signed"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_with_the_way_out(
    path: Path, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(errors.CredentialUnusable, match=said) as caught:
        Own(path, factories.credential("h1").model_copy(update=changed))
    assert "enroll again with --force" in str(caught.value)


def test_a_newer_word_of_the_fleet_counts_at_once_and_in_the_next_session(own: Own, path: Path) -> None:
    own.learn_trust(factories.statement("fleet", "the next", version=2, alice=3))
    for session in (own, next_session(path)):
        assert session.trust.keys == (factories.key("fleet").public, factories.key("the next").public)
        assert session.trust.objection(factories.principal("alice", serial=2), now=0.0) == "revoked"
    own.learn_trust(factories.statement("the next", version=3, alice=3))
    assert own.trust.keys == (factories.key("the next").public,)


def test_an_earlier_word_and_one_of_somebody_else_change_nothing(own: Own, path: Path) -> None:
    own.learn_trust(factories.statement("fleet", version=5))
    before = path.read_bytes()
    own.learn_trust(factories.statement("fleet", version=4, alice=9))
    for forged in (factories.statement("mallory", version=9), "", "{}"):
        with pytest.raises(errors.NotTrusted):
            own.learn_trust(forged)
    assert path.read_bytes() == before
    assert own.trust.version == 5


def test_a_word_that_cannot_be_kept_is_not_learned_either(own: Own, path: Path) -> None:
    """It would be forgotten with this session, and not be told again."""
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.LocalFault):
        own.learn_trust(factories.statement("fleet", "the next", version=2))
    assert own.trust.version == 1
    path.rmdir()
    own.learn_trust(factories.statement("fleet", "the next", version=2))
    assert next_session(path).trust.version == 2


def test_new_labels_come_with_a_new_credential(own: Own, path: Path) -> None:
    assert own.learn_credential(issued(labels={"env": "test"}))
    assert own.identity.labels == next_session(path).identity.labels == {"env": "test"}
    assert held(path).labels == {"env": "test"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_credential_again_is_taken_again(own: Own, path: Path) -> None:
    """The worker may have ended before it could say that it took it."""
    credential = issued(labels={"env": "test"})
    assert own.learn_credential(credential)
    before = path.read_bytes()
    assert own.learn_credential(credential)
    assert path.read_bytes() == before


def test_an_earlier_credential_changes_nothing(own: Own, path: Path) -> None:
    before = path.read_bytes()
    assert not own.learn_credential(issued(at=1_600_000_000.0, labels={"env": "test"}))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "credential",
    [
        issued(host="h2"),
        issued(enrolled_at=1_600_000_000.0),
        issued(key=factories.key("another").public),
        issued(by=Keyring([factories.key("mallory")])),
        RING.issue(factories.principal("alice")),
        "",
        "a.b.c",
    ],
    ids=["another host's", "of an earlier enrollment", "for another key", "forged", "a principal's", "none", "garbage"],
)
def test_what_is_no_credential_of_this_very_host_is_refused(own: Own, path: Path, credential: str) -> None:
    before = path.read_bytes()
    with pytest.raises(errors.NotTrusted):
        own.learn_credential(credential)
    assert path.read_bytes() == before
    assert own.identity.labels == {"env": "prod"}


def test_an_offer_is_the_same_however_often_it_is_asked_for(own: Own, path: Path) -> None:
    key, password_hash = own.offer()
    assert own.offer() == next_session(path).offer() == (key, password_hash)
    assert key != own.identity.key
    kept = held(path)
    assert kept.offered_key
    assert kept.offered_password
    assert KeyPair.read(kept.offered_key.get_secret_value()).public == key
    assert login.hashed(kept.offered_password.get_secret_value()) == password_hash
    assert own.login.get_credentials() == ("h-h1", "secret"), "until the fleet has taken it"
    assert own.identity.key == factories.key("h1").public


def test_the_offered_key_is_the_hosts_once_the_fleet_says_so(own: Own, path: Path) -> None:
    former = own.identity.key
    key, password_hash = own.offer()
    assert own.learn_credential(issued(key=key, labels={"env": "prod"}))
    for session in (own, next_session(path)):
        assert session.identity.key == key
        assert session.keys == (key, former)
        signing.check_reports(session.sign_reports(("a",)).encode(), "h1", [key])
        user, password = session.login.get_credentials()
        assert (user, login.hashed(password)) == ("h-h1", password_hash)
    assert (held(path).offered_key, held(path).offered_password) == (None, None)
    assert own.offer()[0] not in {key, former}, "the next offer is another"


def test_what_was_said_to_a_former_key_or_to_the_coming_one_is_heard(own: Own, path: Path) -> None:
    former = own.identity.key
    coming, _hash = own.offer()
    assert heard(own, former)
    assert heard(own, coming)
    own.learn_credential(issued(key=coming))
    assert heard(own, former)
    assert heard(next_session(path), former)
    assert not heard(own, factories.key("h2").public)


def test_only_so_many_former_keys_are_kept(own: Own, path: Path) -> None:
    seen = [own.identity.key]
    for number in range(12):
        seen.insert(0, own.offer()[0])
        own.learn_credential(issued(at=LATER + number, key=seen[0]))
    assert list(own.keys) == seen[:9]
    assert list(next_session(path).keys) == seen[:9]


def test_a_key_that_could_not_be_kept_is_not_changed_to(own: Own, path: Path) -> None:
    former = own.identity.key
    coming, _hash = own.offer()
    path.rename(path.with_name("kept"))
    path.mkdir()
    with pytest.raises(errors.LocalFault):
        own.learn_credential(issued(key=coming))
    assert own.identity.key == former
    signing.check_reports(own.sign_reports(("a",)).encode(), "h1", [former])
    assert own.login.get_credentials() == ("h-h1", "secret")
    path.rmdir()
    assert own.learn_credential(issued(key=coming))
    assert own.identity.key == coming


def test_it_knows_what_nobody_else_may_know_also_of_what_is_to_come(own: Own, path: Path) -> None:
    before = own.secrets()
    assert held(path).private_key.get_secret_value().encode() in before
    own.offer()
    offered = held(path)
    assert offered.offered_key is not None
    assert offered.offered_password is not None
    assert set(own.secrets()) - set(before) == {
        offered.offered_key.get_secret_value().encode(),
        offered.offered_password.get_secret_value().encode(),
    }
