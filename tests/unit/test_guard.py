"""The guard: what is wrong with a message ends with that message, what is wrong with the journal ends the worker."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet import names
from fleet.contracts import registry
from fleet.contracts.envelope import HEADER, Envelope
from fleet.policy import HostPolicy
from fleet.security import signing
from tests import factories
from tests.services.sessions import HOST, Session, session, time
from workers.host.checks import Checks
from workers.host.governing import Governor
from workers.host.guard import Guard, JournalUnusable
from workers.host.refusals import Refusals
from workers.host.ruling import Ruling

__all__ = ["session", "time"]

Admit = Callable[[], object]


class Buried(list[Any]):
    """The broker's list of what was refused."""

    def lpush(self, _key: str, item: object) -> int:
        self.append(item)
        return len(self)


@pytest.fixture
def buried() -> Buried:
    return Buried()


@pytest.fixture
def admit(session: Session, buried: Any, tmp_path: Path) -> Admit:
    """Have a ping that somebody has signed admitted."""
    own = factories.own(tmp_path / "credential.json", HOST)
    governor = Governor(
        own=own,
        ruling=Ruling(tmp_path / "policy.json", own),
        host_policy=HostPolicy(),
        clock=session.time,
        takes_commands=True,
        mask=str,
    )
    parking: Any = None  # nothing waits for approval here
    guard = Guard(
        checks=Checks(own=own, tasks=registry.known(), governor=governor, clock=session.time),
        admissions=session.admissions,
        unbegun=session.unbegun,
        refusals=Refusals(session.outbox, buried, host=HOST, clock=session.time),
        governor=governor,
        parking=parking,
        clock=session.time,
        in_hand=lambda _item: False,
    )

    def ping() -> object:
        run = names.new_run_id(HOST)
        envelope = Envelope(
            host=HOST, host_key=own.identity.key, submitted_by="ann", submitted_at=session.time.at
        ).model_dump(mode="json")
        message: dict[str, Any] = {
            "headers": {"id": run, "task": "fleet.host.ping", HEADER: envelope},
            "body": json.dumps([[], {"echo": "x"}, {}]),
            "content-type": "application/json",
            "content-encoding": "utf-8",
        }
        signing.sign_message(message, factories.key("p:ann"), factories.ring().issue(factories.principal("ann")))
        return guard.admit(json.dumps(message).encode(), message["headers"], message["body"])

    return ping


def refuse_rows(session: Session, how: str) -> None:
    with session.store.transaction() as transaction:
        transaction.execute(how)


def test_a_message_that_is_signed_and_whole_is_admitted(admit: Admit, buried: Buried) -> None:
    assert admit() is not None
    assert buried == []


def test_a_message_that_sqlite_does_not_take_is_refused_and_the_next_one_admitted(
    admit: Admit, session: Session, buried: Buried
) -> None:
    refuse_rows(session, "CREATE TRIGGER odd BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'NOT NULL'); END")
    assert admit() is None
    assert len(buried) == 1
    refuse_rows(session, "DROP TRIGGER odd")
    assert admit() is not None


def test_a_journal_that_takes_nothing_ends_the_worker_and_refuses_no_message(
    admit: Admit, session: Session, buried: Buried
) -> None:
    refuse_rows(session, "ALTER TABLE journal RENAME TO elsewhere")
    with pytest.raises(JournalUnusable) as caught:
        admit()
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert buried == []
