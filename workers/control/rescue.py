"""The rescue: finds runs that should be further than they are, and sends them again or ends them.

It looks at what is overdue, never at every host's whole queue, a page at a time and within a budget; what is left is
looked at next turn. Whatever it does may be repeated, and is done only while the lease is held: in the worst case two
control workers send one message twice, which its host's journal recognises.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import redis
from sqlalchemy import ColumnElement, Engine, or_
from sqlmodel import col, select

from fleet import clock, db, logs
from fleet.models import Host, Membership, Run, RunState
from workers.control import judging, withdrawing
from workers.control.asking import Asking
from workers.control.attending import standings
from workers.control.cancelling import Cancelling
from workers.control.judging import WAIT, Decision, Standing, Step
from workers.control.sending import Sending
from workers.control.settling import Settling
from workers.control.silence import Silence
from workers.control.voice import Voice
from workers.control.whereabouts import Place, locate

log = logs.get(__name__)

#: A run that has been queued for longer than that should be in a queue, an inbox or a journal.
OVERDUE = timedelta(seconds=10)
#: One message is sent again at most that often.
SEND_AGAIN = timedelta(seconds=30)
#: Seconds for one kind of work in one turn; what is left is looked at next turn.
_BUDGET = 1.0
#: After a look at everything, this many times as long is left in peace: at most a twentieth of the time is spent so.
_REST = 20
_PAGE = 200
_HELD = (RunState.AWAITING_APPROVAL, RunState.ACCEPTED, RunState.RUNNING, RunState.RECOVERING)
_OPEN = (RunState.QUEUED, *_HELD)

#: Decides about one run.
_Judge = Callable[[Run, Place, Standing], Decision]


class Lease(Protocol):
    """The right to write the ledger."""

    def held(self) -> bool: ...


@dataclass
class _Round:
    """A look at all runs of a kind, over as many turns as it takes."""

    #: where the next page begins
    after: str = ""
    spent: float = 0.0
    #: moment (of `clock.elapsed`) until which this kind is left in peace
    rest_until: float = float("-inf")


class Rescue:
    """Looks once at each `run`; remembers between them how long hosts have been silent, and how far it has come."""

    def __init__(
        self,
        *,
        engine: Engine,
        client: "redis.Redis",
        lease: Lease,
        voice: Voice,
        silence: Silence | None = None,
        overdue: timedelta = OVERDUE,
        budget_seconds: float = _BUDGET,
        rest: float = _REST,
    ) -> None:
        self._engine = engine
        self._client = client
        self._lease = lease
        self._silence = silence or Silence()
        self._overdue = overdue
        self._budget = budget_seconds
        self._rest = rest
        self._voice = voice
        self._asking = Asking(engine=engine, client=client, voice=voice, elapsed=self._silence.elapsed)
        self._settling = Settling(engine=engine, client=client, voice=voice)
        self._sending = Sending(engine=engine, client=client, voice=voice)
        self._cancelling = Cancelling(engine=engine, client=client, settling=self._settling, voice=voice)
        #: whether what a former holder of the lease may have left undone is done
        self._resumed = False
        self._rounds = {"cancelled": _Round(), "queued": _Round(), "gone": _Round(), "held": _Round()}

    def run(self) -> None:
        """Look once, while the lease is held; raises redis-py's errors and Fleet's, and may be called again."""
        if not self._lease.held():
            self._begin_anew()
            return
        try:
            self._turn()
        except BaseException:
            self._begin_anew()
            raise

    def _begin_anew(self) -> None:
        self._silence.forget()
        self._asking.forget()
        self._resumed = False

    def _turn(self) -> None:
        now = clock.of_broker(self._client)
        if not self._resumed:
            self._settling.resume(now=now)
            self._resumed = True
        with db.session(self._engine, write=False) as session:
            members = session.exec(select(Host.id).where(Host.membership == Membership.ACCEPTED)).all()
        self._silence.look(self._client, members, answering=self._asking.look())
        moment = clock.from_unix(now)
        asked = (col(Run.state).in_(_OPEN), col(Run.cancel_requested_at).is_not(None))
        for page in self._pages("cancelled", *asked):
            self._cancelling.attend(page, self._standings(page), now=now)
        for page in self._pages("queued", *self._overdue_at(moment)):
            self._act(page, lambda run, place, host: judging.of_queued(run, place, host, now=moment), now=now)
        gone = select(Host.id).where(Host.membership != Membership.ACCEPTED)
        for page in self._pages("gone", col(Run.state).in_(_HELD), col(Run.host_id).in_(gone)):
            self._act(page, lambda run, place, host: judging.of_begun(run, place, host, now=moment), now=now)
        if self._silence.any():
            for page in self._pages("held", col(Run.state).in_(_HELD)):
                silent = [run for run in page if self._silence.is_silent(run.host_id)]
                self._act(silent, lambda run, place, host: judging.of_begun(run, place, host, now=moment), now=now)

    def _overdue_at(self, now: datetime) -> tuple[ColumnElement[bool], ...]:
        sent = col(Run.sent_again_at)
        return (
            col(Run.state) == RunState.QUEUED,
            col(Run.message).is_not(None),
            # what came back from a host has waited once already
            or_(col(Run.submitted_at) < now - self._overdue, col(Run.attempt) > 1),
            or_(sent.is_(None), sent < now - SEND_AGAIN),
        )

    def _pages(self, name: str, *conditions: ColumnElement[bool]) -> Iterator[Sequence[Run]]:
        """Give pages of runs, from where the last turn came to, until all were seen or the budget is spent."""
        round_, began = self._rounds[name], time.monotonic()
        if clock.elapsed() < round_.rest_until:
            return
        while self._lease.held():
            with db.session(self._engine, write=False) as session:
                query = select(Run).where(*conditions, col(Run.id) > round_.after).order_by(col(Run.id)).limit(_PAGE)
                page = session.exec(query).all()
            if page:
                yield page
                round_.after = page[-1].id
            spent = time.monotonic() - began
            if len(page) < _PAGE:
                self._rounds[name] = _Round(rest_until=clock.elapsed() + self._rest * (round_.spent + spent))
                return
            if spent > self._budget:
                round_.spent += spent
                return

    def _standings(self, page: Sequence[Run]) -> dict[str, Standing]:
        hosts = {run.host_id for run in page}
        silent = {host for host in hosts if self._silence.is_silent(host)}
        with db.session(self._engine, write=False) as session:
            return standings(session, self._client, hosts, connected=self._silence.connected, silent=silent)

    def _told_apart(self, lost: Sequence[Run]) -> tuple[list[Run], list[Run]]:
        """Return the runs whose message a host would take, and those whose it would refuse each time."""
        found = self._voice.believed([run.message or "" for run in lost])
        told = list(zip(lost, found, strict=True))
        return [run for run, believed in told if believed], [run for run, believed in told if not believed]

    def _judged(self, judge: _Judge, run: Run, place: Place, standing: Standing) -> Decision:
        """Return what is decided about a run; one of which nothing can be said holds no other up."""
        try:
            return judge(run, place, standing)
        except Exception as exc:  # noqa: BLE001 - whatever is recorded of one run
            log.warning("run.unjudged", run=run.id, error=f"{type(exc).__name__}: {exc}", next="it is looked at again")
            return WAIT

    def _act(self, page: Sequence[Run], judge: _Judge, *, now: float) -> None:
        if not page:
            return
        places, known = locate(self._client, page), self._standings(page)
        to_send, ended, withdrawn = [], [], []
        for run in page:
            decision = self._judged(judge, run, places[run.id], known[run.host_id])
            if decision.step is Step.SEND:
                to_send.append(run)
            elif decision.step is Step.END and decision.verdict:
                ended.append(decision.verdict)
            elif decision.verdict and withdrawing.withdraw(self._client, run, decision.verdict):
                withdrawn.append(decision.verdict)
        to_send, disbelieved = self._told_apart(to_send)
        ended += [judging.disbelieved(run) for run in disbelieved if not known[run.host_id].has_reports]
        if sent := self._sending.send(to_send, now=now):
            log.warning("runs.sent_again", count=len(sent), first=sent[0].id, reason="no list of the broker held them")
        self._settling.settle_withdrawn(withdrawn, now=now)
        self._settling.settle(ended, now=now)
