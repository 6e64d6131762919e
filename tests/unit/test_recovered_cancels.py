"""Cancelled while no worker was there: what recovery makes of runs whose end somebody asked for meanwhile."""

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
import redis

from fleet.contracts import Reply, Restart, shell
from fleet.contracts.control import CancelRun
from fleet.contracts.reports import Kind
from fleet.contracts.verdicts import SessionEnded
from tests.services.sessions import TASK, Session, session, time
from tests.services.waiting import until
from workers.host.children import Found
from workers.host.endings import Interruption
from workers.host.recovery import Recovery
from workers.host.running import EndRequest, Running, Why
from workers.host.settling import Settling
from workers.host.spool import Ending, EndingKind

__all__ = ["session", "time"]


class Left:
    """What a former session left below supervisors (`workers.host.children`)."""

    def __init__(self, *found: Found, ends: Ending | None = None) -> None:
        self._found, self._ends = found, ends
        self._ended = Event()
        self.forgotten: list[tuple[str, int]] = []
        self.told: list[str] = []

    def found(self) -> list[Found]:
        return list(self._found)

    def wait(self, _run_id: str, _attempt: int, **_: Any) -> Ending | None:
        assert self._ended.wait(30)
        return self._ends

    def end(self, _run_id: str, *, why: str) -> bool:
        self.told.append(why)
        self._ended.set()
        return True

    def forget(self, run_id: str, attempt: int) -> None:
        self.forgotten.append((run_id, attempt))


class Host:
    """Sessions on one journal. The second hears of the cancel, and is killed; the third finds what the first left."""

    def __init__(self, first: Session, **wishes: Any) -> None:
        self.run_id = first.begun(**wishes).run_id
        second = first.next()
        assert second.unbegun.cancel(CancelRun(run=self.run_id, by="bea"))  # it began
        self.session = second.next()
        self.running = Running()
        self.abandoned: list[str] = []

    def recover(self, left: Left | None = None, reply: Reply | None = None) -> list[Kind]:
        """Have the third session take up what is there; return what is reported of the run."""
        settling = Settling(
            self.session.endings,
            {TASK: lambda *_args, **_kwargs: reply},
            broker_clock=self.session.time,
            stopping=Event(),
            on_abandoned=self.abandoned.append,
            kept=lambda _run, _attempt: b"",
            mask=str,
            cancelled=self.session.unbegun.requested,
        )
        children: Any = left or Left()
        journal, endings = self.session.journal, self.session.endings
        recovery = Recovery(journal, endings, settling, children, self.running, unbegun=self.session.unbegun)
        recovery.run(redis.Redis(), inboxes=(), superseded=False, rebooted=True)
        until(lambda: not len(self.running), "it is settled")
        assert journal.unfinished(10) == []
        assert journal.due(10) == []
        return self.session.kinds(self.run_id)

    def last(self) -> dict[str, Any]:
        return self.session.reports(self.run_id)[-1].data


@pytest.fixture
def by_contract(monkeypatch: pytest.MonkeyPatch) -> Callable[[Restart], None]:
    """Have the contract of all runs say this about a restart."""
    return lambda said: monkeypatch.setattr(Settling, "restart", staticmethod(lambda _claim: said))


@pytest.mark.parametrize("said", [Restart.RERUN, Restart.HAND_BACK, Restart.FAIL])
def test_what_would_begin_again_is_cancelled(
    session: Session, by_contract: Callable[[Restart], None], said: Restart
) -> None:
    by_contract(said)
    host = Host(session, max_retries=3)
    assert host.recover()[-1] is Kind.RUN_CANCELLED
    assert host.last() == {"by": "bea", "reason": "", "begun": True}
    assert host.session.result(host.run_id) is not None


def test_what_may_have_had_its_effect_is_unknown_all_the_same(session: Session) -> None:
    host = Host(session, task=shell.RUN.name, arguments={"argv": ["/bin/true"]})
    *_, ended, last = host.recover()
    assert (ended, last) == (Kind.SESSION_ENDED, Kind.RUN_UNKNOWN)
    record = SessionEnded.model_validate(host.session.reports(host.run_id)[-2].data)
    assert record.outcome == "unknown"


def test_what_the_engine_shows_counts_and_what_it_does_not_show_is_undone(
    session: Session, by_contract: Callable[[Restart], None]
) -> None:
    by_contract(Restart.RECONCILE)
    host = Host(session)
    assert host.recover()[-1] is Kind.RUN_CANCELLED
    assert host.abandoned == [host.run_id]
    there = Host(host.session)
    assert there.recover(reply=Reply())[-1] is Kind.RUN_SUCCEEDED
    assert there.abandoned == []


def test_what_never_had_a_supervisor_is_cancelled_before_it_begins(session: Session) -> None:
    host = Host(session)
    left = Left(Found(host.run_id, 1, began=False, running=False, ending=None))
    assert host.recover(left)[-1] is Kind.RUN_CANCELLED
    assert host.last()["begun"] is False
    assert left.forgotten == [(host.run_id, 1)]


@pytest.mark.parametrize("task", [TASK, shell.RUN.name])
def test_a_supervisor_that_outlived_the_worker_is_told(session: Session, task: str) -> None:
    host = Host(session, task=task)
    left = Left(Found(host.run_id, 1, began=True, running=True, ending=None), ends=Ending("cancelled", 5.0))
    assert host.recover(left)[-1] is Kind.RUN_CANCELLED
    assert left.told == ["cancelled"]
    assert left.forgotten == [(host.run_id, 1)]


@pytest.mark.parametrize("task", [TASK, shell.RUN.name])
@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("stopped", Kind.RUN_CANCELLED),
        ("cancelled", Kind.RUN_CANCELLED),  # by the session that was killed then
        ("died", Kind.RUN_FAILED),
        ("time_limit", Kind.RUN_FAILED),
        ("failed", Kind.RUN_FAILED),
    ],
)
def test_what_had_ended_meanwhile_ends_so_and_is_not_tried_again(
    session: Session, kind: EndingKind, ends: Kind, task: str
) -> None:
    host = Host(session, max_retries=3, task=task)
    left = Left(Found(host.run_id, 1, began=True, running=False, ending=Ending(kind, 5.0, exit_status=1)))
    assert host.recover(left)[-1] is ends
    assert left.forgotten == [(host.run_id, 1)]


def test_what_this_session_stopped_and_somebody_cancelled_waits_for_no_other_session(session: Session) -> None:
    host = Host(session)
    left = Left(Found(host.run_id, 1, began=True, running=True, ending=None), ends=Ending("stopped", 5.0))
    host.running.enter(host.run_id)
    host.running.end(host.run_id, EndRequest(Why.STOPPED))
    assert host.recover(left)[-1] is Kind.RUN_CANCELLED


def test_a_run_that_is_handed_over_again_is_cancelled_when_its_message_comes(session: Session) -> None:
    """A session that was told had handed the run back before it heard of that."""
    claim = session.begun()
    session.unbegun.cancel(CancelRun(run=claim.run_id, by="bea"))
    session.endings.hand_back(claim, Interruption.STOPPED)
    assert session.offer(claim.run_id).admission.value == "cancelled"
    assert session.kinds(claim.run_id)[-1] is Kind.RUN_CANCELLED
