"""Signing: what was signed is believed as it was signed, of whom it says, and nothing that was changed is."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors, names
from fleet.broker import results
from fleet.keyring import Keyring
from fleet.security import signing
from fleet.security.keys import Purpose
from fleet.security.trust import Trust
from tests import factories

FLEET = Trust.in_keys([factories.key("fleet").public])
RING = factories.ring()
ALICE, EDGE = factories.principal("alice"), factories.identity("edge-7")
ALICE_KEY, EDGE_KEY = factories.key("p:alice"), factories.key("edge-7")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(max_size=8).filter(lambda name: name != signing.HEADER), JSON, max_size=6)


def message(headers: dict[str, Any] | None = None, body: str = "[[], {}, {}]") -> dict[str, Any]:
    """Return a kombu message, signed by alice."""
    found = {
        "headers": dict(headers or {"id": "edge-7:x", "task": "fleet.host.ping", "fleet": {"host": "edge-7"}}),
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    signing.sign_message(found, ALICE_KEY, RING.issue(ALICE))
    return found


def check(found: dict[str, Any], trust: Trust = FLEET) -> Any:
    """Check a message as a host does, after its way through the broker."""
    arrived = json.loads(json.dumps(found))
    form = (arrived["content-type"], arrived["content-encoding"])
    return signing.check_message(arrived["headers"], arrived["body"], form=form, trust=trust)


def refuses(found: dict[str, Any], match: str | None = None) -> None:
    with pytest.raises(errors.NotTrusted, match=match):
        check(found)


class TestMessages:
    @given(HEADERS, st.text())
    def test_what_was_signed_is_believed_after_its_way(self, headers: dict[str, Any], body: str) -> None:
        assert check(message(headers, body)) == ALICE

    @given(st.data())
    def test_no_character_of_a_message_can_be_another(self, data: st.DataObject) -> None:
        item = json.dumps(message())
        place = data.draw(st.integers(0, len(item) - 1))
        other = data.draw(st.characters().filter(lambda character: character != item[place]))
        try:
            forged = json.loads(item[:place] + other + item[place + 1 :])
        except ValueError:
            return
        try:
            who = check(forged)
        except (errors.NotTrusted, KeyError):
            return
        genuine = json.loads(item)
        for found in (genuine, forged):
            del found["headers"][signing.HEADER]
        assert (who, forged) == (ALICE, genuine), "base64 has bits to spare at its end, which mean nothing"

    @given(HEADERS, st.text(max_size=8).filter(lambda name: name != signing.HEADER), JSON)
    def test_no_header_can_be_added_taken_or_changed(self, headers: dict[str, Any], name: str, value: Any) -> None:
        added = message({**headers, "id": 1})
        if name not in added["headers"] or json.dumps(added["headers"][name]) != json.dumps(value):
            added["headers"][name] = value
            refuses(added, "is not alice's over these bytes")
        taken = message({**headers, name: value})
        del taken["headers"][name]
        refuses(taken, "is not alice's over these bytes")

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.update(body="[[], {}, {} ]"),
            lambda m: m.update(body=None),
            lambda m: m.update(body=[[], {}, {}]),
            lambda m: m.update({"content-type": "application/x-python-serialize"}),
            lambda m: m.update({"content-encoding": "base64"}),
            lambda m: m["headers"].update(nan=float("nan")),
            lambda m: m["headers"].update(deep=json.loads("[" * 600 + "]" * 600)),
            lambda m: m["headers"].pop(signing.HEADER),
            lambda m: m["headers"].update({signing.HEADER: None}),
            lambda m: m["headers"].update({signing.HEADER: "x"}),
            lambda m: m["headers"][signing.HEADER].update(signature=""),
            lambda m: m["headers"][signing.HEADER].update(signature="x" * 129),
            lambda m: m["headers"][signing.HEADER].update(signature=m["headers"][signing.HEADER]["signature"] + "=="),
            lambda m: m["headers"][signing.HEADER].update(credential=""),
            lambda m: m["headers"][signing.HEADER].update(credential="x" * 8193),
            lambda m: m["headers"][signing.HEADER].update(extra=1),
            lambda m: m["headers"][signing.HEADER].update(credential=RING.issue(factories.principal("bob"))),
            lambda m: m["headers"][signing.HEADER].update(credential=RING.issue(EDGE)),
            lambda m: m["headers"][signing.HEADER].update(
                credential=Keyring([factories.key("another fleet")]).issue(ALICE)
            ),
        ],
    )
    def test_what_was_tampered_with_is_not_trusted(self, change: Any) -> None:
        tampered = message()
        change(tampered)
        refuses(tampered)

    def test_a_signature_by_another_key_than_the_credentials_or_for_another_purpose_does_not_count(self) -> None:
        stolen = message()
        signing.sign_message(stolen, factories.key("p:bob"), RING.issue(ALICE))
        refuses(stolen, "is not alice's over these bytes")
        signing.sign_message(stolen, EDGE_KEY, RING.issue(EDGE))
        refuses(stolen, "a host's credential where a principal's belongs")
        resultlike = message()
        unsigned = {name: value for name, value in resultlike["headers"].items() if name != signing.HEADER}
        covered = signing._covered_message(unsigned, resultlike["body"], "application/json", "utf-8")
        resultlike["headers"][signing.HEADER]["signature"] = ALICE_KEY.sign(Purpose.RESULT, covered)
        refuses(resultlike, "is not alice's over these bytes")

    def test_signing_again_replaces_the_signature(self) -> None:
        found = message()
        found["body"] = '[[], {"echo": "x"}, {}]'
        signing.sign_message(found, ALICE_KEY, RING.issue(ALICE))
        assert check(found) == ALICE


RUN = names.new_run_id("edge-7")
META = results.success_meta(RUN, {"echo": "x"}, date_done="2026-01-02T03:04:05+00:00")


def result(meta: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(signing.sign_result(meta or META, EDGE_KEY, RING.issue(EDGE)))
    return found


class TestResults:
    @given(st.dictionaries(st.text(), JSON, max_size=5))
    def test_a_hosts_and_the_fleets_word_counts(self, reply: dict[str, Any]) -> None:
        meta = results.success_meta(RUN, reply, date_done="now")
        signing.check_result(result(meta), RUN, trust=FLEET)
        signing.check_result(json.loads(RING.result(meta)), RUN, trust=FLEET)

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.update(task_id=names.new_run_id("edge-7")),
            lambda m: m.update(status="FAILURE"),
            lambda m: m.update(result={"echo": "y"}),
            lambda m: m.update(result=None),
            lambda m: m.update(result=float("nan")),
            lambda m: m.update(result=json.loads("[" * 600 + "]" * 600)),
            lambda m: m.update(date_done="2027-01-02T03:04:05+00:00"),
            lambda m: m.pop("date_done"),
            lambda m: m.pop("fleet"),
            lambda m: m.update(fleet={}),
            lambda m: m.update(fleet="x"),
            lambda m: m["fleet"].update(signature="x"),
            lambda m: m["fleet"].update(credential=""),
            lambda m: m["fleet"].update(credential="a.b.c"),
            lambda m: m["fleet"].update(credential=RING.issue(ALICE)),
            lambda m: m["fleet"].update(credential=RING.issue(factories.identity("edge-8"))),
            lambda m: m.update(json.loads(signing.sign_result(META, ALICE_KEY, RING.issue(ALICE)))),
            lambda m: m.update(
                json.loads(signing.sign_result(META, factories.key("edge-8"), RING.issue(factories.identity("edge-8"))))
            ),
            lambda m: m.update(json.loads(signing.sign_result(META, EDGE_KEY, ""))),
        ],
    )
    def test_what_was_changed_or_is_anothers_is_not_trusted(self, change: Any) -> None:
        forged = result()
        change(forged)
        with pytest.raises(errors.NotTrusted):
            signing.check_result(forged, RUN, trust=FLEET)

    def test_a_genuine_result_of_another_run_is_not_this_ones(self) -> None:
        other = names.new_run_id("edge-7")
        theirs = result(results.success_meta(other, {}, date_done="now"))
        signing.check_result(theirs, other, trust=FLEET)
        with pytest.raises(errors.NotTrusted, match="the result of another run"):
            signing.check_result(theirs, RUN, trust=FLEET)

    @given(JSON)
    def test_foreign_json_is_no_result_and_no_other_error(self, found: Any) -> None:
        meta = found if isinstance(found, dict) else {"task_id": RUN, "result": found, "fleet": found}
        with pytest.raises(errors.NotTrusted):
            signing.check_result(meta, RUN, trust=FLEET)


class TestReports:
    KEYS = (EDGE_KEY.public,)

    @given(st.lists(st.text(), min_size=1, max_size=20))
    def test_reports_come_back_as_they_were_signed(self, reports: list[str]) -> None:
        item = signing.sign_reports("edge-7", reports, EDGE_KEY).encode()
        assert signing.check_reports(item, "edge-7", self.KEYS) == tuple(reports)
        assert signing.check_reports(item, "edge-7", (ALICE_KEY.public, *self.KEYS)) == tuple(reports)
        for sender, keys in (("edge-8", self.KEYS), ("edge-7", ()), ("edge-7", (ALICE_KEY.public,))):
            with pytest.raises(errors.NotTrusted):
                signing.check_reports(item, sender, keys)

    @given(st.lists(st.text(), min_size=1, max_size=3), st.lists(st.text(), min_size=1, max_size=3))
    def test_what_is_signed_together_stays_together(self, signed: list[str], others: list[str]) -> None:
        if signed == others:
            return
        found = json.loads(signing.sign_reports("edge-7", signed, EDGE_KEY))
        with pytest.raises(errors.NotTrusted):
            signing.check_reports(json.dumps({**found, "reports": others}).encode(), "edge-7", self.KEYS)

    @given(st.binary() | st.text().map(str.encode) | JSON.map(lambda found: json.dumps(found).encode()))
    def test_foreign_bytes_are_no_reports_and_no_other_error(self, item: bytes) -> None:
        with pytest.raises(errors.NotTrusted):
            signing.check_reports(item, "edge-7", self.KEYS)

    def test_who_is_no_sender_name_away_from_another_cannot_borrow_its_signature(self) -> None:
        """The sender is a part of what is covered, not a prefix of it."""
        item = signing.sign_reports("edge-7", ["a"], EDGE_KEY)
        found = json.loads(item)
        with pytest.raises(errors.NotTrusted):
            signing.check_reports(json.dumps({**found, "reports": ["edge-7", "a"]}).encode(), "", self.KEYS)


class TestControl:
    OWN = (EDGE_KEY.public, factories.key("the former").public)

    @given(st.text())
    def test_the_fleet_and_principals_are_heard(self, said: str) -> None:
        credential = RING.issue(ALICE)
        for key in self.OWN:
            by_fleet = signing.sign_control(key, said, factories.key("fleet"))
            assert signing.check_control(by_fleet, self.OWN, trust=FLEET) == (said, None)
            by_alice = signing.sign_control(key, said, ALICE_KEY, credential)
            assert signing.check_control(by_alice, self.OWN, trust=FLEET) == (said, ALICE)

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.update(message="y"),
            lambda m: m.update(credential=""),
            lambda m: m.update(credential=RING.issue(factories.principal("bob"))),
            lambda m: m.update(credential=RING.issue(EDGE)),
            lambda m: m.update(signature="x"),
            lambda m: m.pop("signature"),
            lambda m: m.update(json.loads(signing.sign_control("another host's", "x", ALICE_KEY, RING.issue(ALICE)))),
            lambda m: m.update(json.loads(signing.sign_control(EDGE_KEY.public, "x", ALICE_KEY))),
            lambda m: m.update(json.loads(signing.sign_control(EDGE_KEY.public, "x", EDGE_KEY))),
        ],
    )
    def test_what_was_changed_or_is_for_another_host_is_not_trusted(self, change: Any) -> None:
        forged = json.loads(signing.sign_control(EDGE_KEY.public, "x", ALICE_KEY, RING.issue(ALICE)))
        genuine = copy.deepcopy(forged)
        change(forged)
        with pytest.raises(errors.NotTrusted):
            signing.check_control(json.dumps(forged), self.OWN, trust=FLEET)
        assert signing.check_control(json.dumps(genuine), self.OWN, trust=FLEET) == ("x", ALICE)

    @given(st.binary() | st.text() | JSON.map(json.dumps))
    def test_foreign_items_are_no_control_messages_and_no_other_error(self, item: str | bytes) -> None:
        with pytest.raises(errors.NotTrusted):
            signing.check_control(item, self.OWN, trust=FLEET)

    def test_a_host_without_a_key_hears_nothing(self) -> None:
        with pytest.raises(errors.NotTrusted):
            signing.check_control(signing.sign_control("", "x", factories.key("fleet")), (), trust=FLEET)
