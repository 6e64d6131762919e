"""The control list: every message is acted upon once where its sender may say it, and none ends the reading."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import names
from fleet.contracts.control import (
    ApproveRun,
    CancelRun,
    ControlMessage,
    DenyRun,
    InventoryRequested,
    MembershipRevoked,
)
from fleet.security import signing
from fleet.security.identity import Level
from tests import factories
from tests.services.broker import Broker
from tests.services.sessions import BrokerTime
from tests.services.waiting import until
from workers.host.control import ControlList

CANCEL = CancelRun(run="h1:x", by="alice")
OUT = MembershipRevoked(by="mallory")


class Heard:
    """A control list of session 3 of host h1, which is in production, and what it was told."""

    def __init__(self, client: Any, directory: Path) -> None:
        self.messages: list[Any] = []
        self.newer: list[int] = []
        self.refused: list[str] = []
        #: run → whose it is, as far as this host knows
        self.pushers: dict[str, str | None] = {}
        #: answers about runs that wait for approval, with whose they are
        self.decided: list[tuple[Any, str]] = []
        self.own = factories.own(directory / "credential.json", "h1", labels={"env": "prod"})
        self.time = BrokerTime()
        self.list = ControlList(
            client,
            {"run.cancel": self.messages.append, "membership.revoked": self.messages.append},
            decide=lambda word, principal, _item: self.decided.append((word, principal.name)),
            own=self.own,
            epoch=3,
            clock=self.time,
            on_superseded=self.newer.append,
            on_refused=self.refuse,
            pushed_by=self.pushers.get,
        )

    def refuse(self, _item: bytes, reason: str, _detail: str) -> None:
        self.refused.append(reason)


@pytest.fixture
def client(broker: Broker) -> Iterator[Any]:
    with broker.connect() as connected:
        yield connected


@pytest.fixture
def heard(client: Any, tmp_path: Path) -> Heard:
    return Heard(client, tmp_path)


def by_fleet(message: ControlMessage, *, host: str = "h1") -> str:
    return factories.ring().word(factories.key(host).public, message)


def by_principal(message: ControlMessage, *, name: str = "alice", **more: Any) -> str:
    """Return what a principal says; `more` are fields of its identity."""
    text, credential = message.model_dump_json(), factories.ring().issue(factories.principal(name, **more))
    return signing.sign_control(factories.key("h1").public, text, factories.key(f"p:{name}"), credential)


def test_what_cannot_be_read_is_dropped_and_the_next_message_is_acted_upon(client: Any, heard: Heard) -> None:
    key = factories.key("fleet")
    unknown = [
        signing.sign_control(factories.key("h1").public, text, key) for text in ("[]", '{"kind": "unknown"}', "")
    ]
    for item in (*unknown, by_fleet(InventoryRequested()), by_fleet(CANCEL)):
        client.lpush(names.control("h1"), item)
    heard.list.start()
    until(lambda: heard.messages, "the last message is acted upon")
    heard.list.stop()
    assert heard.list.stopped.is_set()
    assert heard.messages == [CANCEL]
    assert heard.refused == []


@pytest.mark.parametrize(
    "item",
    [
        b"\xff\xfe",
        b"[]",
        CANCEL.model_dump_json(),
        "[" * 100_000,
        by_fleet(OUT, host="h2"),
        by_fleet(OUT).replace("mallory", "malory"),
        signing.sign_control(factories.key("h1").public, OUT.model_dump_json(), factories.key("mallory")),
        signing.sign_control(factories.key("h1").public, OUT.model_dump_json(), factories.key("h1")),
        signing.sign_control(factories.key("h1").public, OUT.model_dump_json(), factories.key("p:alice"), "a.b.c"),
    ],
    ids=[
        "no text",
        "no object",
        "unsigned",
        "nested",
        "for another host",
        "changed",
        "by nobody",
        "by itself",
        "forged",
    ],
)
def test_what_nobody_has_signed_who_may_is_refused_and_the_next_message_is_acted_upon(
    client: Any, heard: Heard, item: str | bytes
) -> None:
    client.lpush(names.control("h1"), item)
    client.lpush(names.control("h1"), by_fleet(CANCEL))
    heard.list.start()
    until(lambda: heard.messages, "the last message is acted upon")
    heard.list.stop()
    assert heard.messages == [CANCEL]
    assert heard.refused == ["not_trusted"]
    assert client.llen(names.control("h1")) == 0


def test_a_principal_ends_runs_of_hosts_that_it_may_push_to(heard: Heard) -> None:
    heard.list.handle(by_principal(CANCEL).encode())
    heard.list.handle(by_principal(CANCEL, selectors={"env": "prod"}, level=Level.SUPERVISED).encode())
    assert heard.messages == [CANCEL, CANCEL]
    assert heard.refused == []


def test_who_may_only_look_ends_runs_of_their_own(heard: Heard) -> None:
    heard.pushers[CANCEL.run] = "alice"
    heard.list.handle(by_principal(CANCEL, level=Level.STUDENT).encode())
    assert heard.messages == [CANCEL]
    for pusher in ("bob", None):
        heard.pushers[CANCEL.run] = pusher
        heard.list.handle(by_principal(CANCEL, level=Level.INTERN).encode())
    assert heard.messages == [CANCEL]
    assert heard.refused == ["not_permitted"] * 2


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (by_principal(OUT, serial=2), "not_permitted"),
        (by_principal(CANCEL, name="bob"), "not_permitted"),
        (by_principal(CANCEL, serial=2, selectors={"env": "test"}), "not_permitted"),
        (by_principal(CANCEL, serial=1), "not_trusted"),
        (by_principal(CANCEL, serial=2, expires_at=1_749_999_999.0), "not_trusted"),
    ],
    ids=["the fleet's to say", "in another's name", "elsewhere", "revoked", "expired"],
)
def test_what_a_principal_may_not_say_is_refused(heard: Heard, item: str, reason: str) -> None:
    heard.own.learn_trust(factories.statement(version=2, alice=2))
    heard.list.handle(item.encode())
    assert heard.messages == []
    assert heard.refused == [reason]


def test_a_refusal_that_cannot_be_written_down_does_not_end_the_reading(
    client: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(heard.list, "_on_refused", full)
    client.lpush(names.control("h1"), "forged")
    client.lpush(names.control("h1"), by_fleet(CANCEL))
    heard.list.start()
    until(lambda: heard.messages, "the last message is acted upon")
    heard.list.stop()


def test_what_was_said_while_no_worker_was_there_is_acted_upon_in_its_order_before_the_work(
    client: Any, heard: Heard
) -> None:
    said = [CancelRun(run=f"h1:{number}", by="alice") for number in range(450)]
    for message in said:
        client.lpush(names.control("h1"), by_fleet(message))
    heard.list.catch_up()
    assert heard.messages == said
    assert client.llen(names.control("h1")) == 0


def test_a_newer_session_is_noticed_once_and_ends_the_reading(client: Any, heard: Heard) -> None:
    client.set(names.epoch("h1"), 3)
    heard.list.start()
    client.set(names.epoch("h1"), 4)
    assert heard.list.stopped.wait(30)
    assert heard.newer == [4]


APPROVED = ApproveRun(run="h1:x", digest="d", by="alice", run_before=4e9)


def test_an_answer_about_a_run_is_its_principals_own(heard: Heard) -> None:
    for word in (APPROVED, DenyRun(run="h1:x", digest="d", by="alice")):
        heard.list.handle(by_principal(word).encode())
        assert heard.decided.pop() == (word, "alice")
    assert not heard.refused


def test_an_answer_in_anothers_name_is_refused(heard: Heard) -> None:
    heard.list.handle(by_principal(APPROVED.model_copy(update={"by": "bob"})).encode())
    assert heard.refused == ["not_permitted"]
    assert not heard.decided


def test_the_control_plane_answers_for_nobody(heard: Heard) -> None:
    heard.list.handle(by_fleet(APPROVED).encode())
    assert heard.refused == ["not_trusted"]
    assert not heard.decided


def test_an_answer_from_a_principal_of_other_hosts_is_refused(heard: Heard) -> None:
    heard.list.handle(by_principal(APPROVED, selectors={"env": "lab"}).encode())
    assert heard.refused == ["not_permitted"]
    assert not heard.decided


def test_no_principal_says_more_than_reports_and_the_vault_take(heard: Heard) -> None:
    """What an approver signed goes into a report and to the vault; too large for them, it would stop the one and
    be none to the other."""
    longest = ApproveRun(run="h1:x", digest="d" * 64, by="alice", reason="\U0001f600" * 1024, run_before=4e9)
    heard.list.handle(by_principal(longest).encode())
    assert heard.decided == [(longest, "alice")]
    padded = longest.model_dump(mode="json") | {"more": "\\" * 40_000}
    credential = factories.ring().issue(factories.principal("alice"))
    item = signing.sign_control(factories.key("h1").public, json.dumps(padded), factories.key("p:alice"), credential)
    heard.list.handle(item.encode())
    assert len(heard.decided) == 1
    assert heard.refused == ["too_large"]
