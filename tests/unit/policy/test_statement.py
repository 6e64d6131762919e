"""The policy as the fleet states it: believed by whoever trusts one of the keys that signed it, and by nobody else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors, policy
from fleet.policy import statement
from fleet.security.keys import Purpose, encode
from tests import factories

TEXT = '# a policy\n[[commands]]\nname = "it"\nrisk = "reads"\nargv = ["/bin/df", "-h"]\n'
FLEET, NEXT, MALLORY = (factories.key(name) for name in ("fleet", "the next", "mallory"))


def test_a_policy_arrives_as_the_admin_wrote_it() -> None:
    read = policy.read(policy.state(TEXT, 3, [FLEET]), [FLEET.public])
    assert (read.version, read.text) == (3, TEXT)
    assert read.policy == policy.parse(TEXT)


def test_every_key_that_signed_is_enough() -> None:
    signed = policy.state(TEXT, 1, [FLEET, NEXT])
    for keys in ([FLEET.public], [NEXT.public], [MALLORY.public, NEXT.public]):
        assert policy.read(signed, keys).version == 1


def test_nobody_elses_signature_counts() -> None:
    for keys in ([MALLORY.public], []):
        with pytest.raises(errors.NotTrusted, match="no key of the fleet has signed"):
            policy.read(policy.state(TEXT, 1, [FLEET, NEXT]), keys)
    forged = json.loads(policy.state(TEXT, 1, [MALLORY]))
    forged["signatures"] = {FLEET.public: forged["signatures"][MALLORY.public]}
    with pytest.raises(errors.NotTrusted):
        policy.read(json.dumps(forged), [FLEET.public])


def test_a_signature_for_something_else_does_not_count() -> None:
    said = json.loads(policy.state(TEXT, 1, [FLEET]))
    for purpose in set(Purpose) - {Purpose.POLICY}:
        said["signatures"] = {FLEET.public: FLEET.sign(purpose, said["text"].encode())}
        with pytest.raises(errors.NotTrusted):
            policy.read(json.dumps(said), [FLEET.public])


@given(st.integers(min_value=0), st.characters())
def test_a_changed_character_of_what_is_signed_voids_it(place: int, character: str) -> None:
    said = json.loads(policy.state(TEXT, 1, [FLEET]))
    text = said["text"]
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    if changed != text:
        with pytest.raises(errors.NotTrusted):
            policy.read(json.dumps({**said, "text": changed}), [FLEET.public])


@given(st.text(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_text_is_worse_than_not_trusted(text: str) -> None:
    with pytest.raises(errors.NotTrusted):
        policy.read(text, [FLEET.public])


@pytest.mark.parametrize(
    "said",
    [
        {"version": 0, "policy": encode(b"")},
        {"version": 1},
        {"version": 1, "policy": "not base64url!"},
        {"version": 1, "policy": encode(b"\xff")},
        {"version": 1, "policy": encode(b"[of_a_newer_fleet]")},
        [],
    ],
    ids=str,
)
def test_what_the_fleet_has_signed_and_this_version_does_not_understand_is_said_to_be_that(said: object) -> None:
    text = json.dumps(said)
    signed = json.dumps({"text": text, "signatures": {FLEET.public: FLEET.sign(Purpose.POLICY, text.encode())}})
    with pytest.raises(errors.SettingsInvalid):
        policy.read(signed, [FLEET.public])


def test_the_largest_policy_fits_and_what_is_larger_than_any_is_not_read() -> None:
    full = '"' * 100 + "\n"
    text = "".join(f"#{full}" for _ in range(256 * 1024 // (len(full) + 1)))
    signed = policy.state(text, 1, [factories.key(str(number)) for number in range(8)])
    assert len(signed) < statement.LARGEST_BYTES
    assert policy.read(signed, [factories.key("7").public]).text == text
    with pytest.raises(errors.NotTrusted, match="too large"):
        policy.read(signed + " " * statement.LARGEST_BYTES, [factories.key("7").public])
