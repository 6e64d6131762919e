"""Ruling: the newest policy that a host has heard of counts, also in the next session."""

import json
from pathlib import Path

import pytest

from fleet import errors, policy
from fleet.security.keys import Purpose, encode
from tests import factories
from workers.host.own import Own
from workers.host.ruling import Ruling

FLEET = factories.key("fleet")
OLD, NEW = '[approvals]\nrun_within = "1m"\n', '[approvals]\nrun_within = "2m"\n'


def stated(text: str, version: int) -> str:
    """Return what the fleet says, also where this version of Fleet does not understand it."""
    said = json.dumps({"version": version, "policy": encode(text.encode())})
    return json.dumps({"text": said, "signatures": {FLEET.public: FLEET.sign(Purpose.POLICY, said.encode())}})


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return factories.own(tmp_path / "credential.json", "h1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.json"


def test_an_older_policy_never_replaces_a_newer_one_also_not_in_the_next_session(own: Own, path: Path) -> None:
    ruling = Ruling(path, own)
    assert ruling.policy is None
    assert ruling.learn(policy.state(NEW, 2, [FLEET]))
    for session in (ruling, Ruling(path, own)):
        assert not session.learn(policy.state(OLD, 1, [FLEET]))
        assert session.version == 2
        assert session.policy == policy.parse(NEW)


def test_a_policy_that_is_not_understood_replaces_none_and_stops_no_worker(own: Own, path: Path) -> None:
    ruling = Ruling(path, own)
    ruling.learn(policy.state(OLD, 1, [FLEET]))
    with pytest.raises(errors.SettingsInvalid):
        ruling.learn(stated("[of_a_newer_fleet]\n", 2))
    assert ruling.version == 1
    path.write_text(stated("[of_a_newer_fleet]\n", 2))  # as a newer worker has left it
    path.chmod(0o600)
    assert Ruling(path, own).policy is None
