"""Whatever overtakes what, and however often it comes: a run only moves forward, and ends as its host said."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from fleet import approvals, audit, db, names, runs
from fleet.contracts.reports import Kind, Report
from fleet.models import Principal, Run, RunState
from tests import factories
from tests.services import governed
from tests.services.broker import Broker
from workers.control.ingest import Ingest
from workers.control.rescue import Rescue

#: How an attempt may be followed by another one: what the host reports, and by how much each is later than the attempt.
FOLLOWED = {
    "retried": [(Kind.RUN_RETRYING, 1), (Kind.RUN_STARTED, 1)],
    "begun again": [(Kind.RUN_RECOVERING, 0), (Kind.RUN_RECOVERING, 1), (Kind.RUN_STARTED, 1)],
    "given back": [
        (Kind.RUN_RECOVERING, 0),
        (Kind.RUN_HANDED_BACK, 1),
        (Kind.RUN_ACCEPTED, 1),
        (Kind.RUN_STARTED, 1),
    ],
}
ENDED = {
    Kind.RUN_SUCCEEDED: "succeeded",
    Kind.RUN_FAILED: "failed",
    Kind.RUN_CANCELLED: "cancelled",
    Kind.RUN_UNKNOWN: "unknown",
}


@pytest.fixture
def client(any_broker: Broker) -> Iterator["redis.Redis"]:
    with any_broker.connect() as opened:
        yield opened


def rank(run: Run) -> tuple[int, int, int]:
    """Return how far a run is; nothing may make it smaller."""
    if runs.is_final(run.state):
        return (1, 0 if run.state == RunState.UNKNOWN else 1, 0)
    to_come = "attempt" in (run.progress or {})
    order = ["queued", "awaiting_approval", "accepted", "recovering" * to_come, "running", "recovering"]
    return (0, run.attempt, order.index(run.state))


#: How a run comes to begin, and what the host says with it.
TAKEN = {
    "at once": [Kind.RUN_ACCEPTED],
    "once it was approved": [Kind.RUN_AWAITING_APPROVAL, Kind.RUN_APPROVED],
}
SAID = {
    Kind.RUN_AWAITING_APPROVAL: governed.awaiting()[1],
    Kind.RUN_APPROVED: governed.approved()[1],
}


def life(run: str, host: str, taken: str, ways: list[str], end: Kind) -> list[Report]:
    """Return what a host reports of a run that went these ways."""
    steps = [*((kind, 1) for kind in TAKEN[taken]), (Kind.RUN_STARTED, 1)]
    for attempt, way in enumerate(ways, 1):
        steps += [(kind, attempt + later) for kind, later in FOLLOWED[way]]
        steps.append((Kind.RUN_PROGRESSED, attempt + 1))
    steps.append((end, len(ways) + 1))
    return [
        factories.report(
            host, kind, run=run, attempt=attempt, seq=seq, data=SAID.get(kind, {"reply": {}, "begun": True})
        )
        for seq, (kind, attempt) in enumerate(steps, 1)
    ]


#: What happens next, and a number for it.
STEPS = st.lists(
    st.tuples(st.sampled_from(["ingest", "host", "again", "principal", "rescue"]), st.integers(0, 3)), max_size=30
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_interleaving_ends_as_the_host_said(engine: Engine, client: "redis.Redis", data: st.DataObject) -> None:
    # a host of its own for each example: reports are numbered per host
    host = f"edge-{time.time_ns()}"
    with db.session(engine) as session:
        factories.enroll(session, host)
        if session.get(Principal, "alice") is None:
            factories.introduce(session, "alice", "bob")
    lease, voice = factories.HeldLease(client), factories.voice(engine)
    ingest, rescue = (made(engine=engine, client=client, lease=lease, voice=voice) for made in (Ingest, Rescue))
    run = names.new_run_id(host)
    ways = data.draw(st.lists(st.sampled_from(sorted(FOLLOWED)), max_size=3), label="ways")
    end = data.draw(st.sampled_from(sorted(ENDED)), label="end")
    taken = data.draw(st.sampled_from(sorted(TAKEN)), label="taken")
    own = life(run, host, taken, ways, end)
    message = json.dumps({"body": run})
    by_principals = [factories.queued(run, submitted_at=time.time() - 60, message=message)]
    by_principals += [
        Report(sender=f"p:{by}", kind=Kind.RUN_CANCEL_REQUESTED, run=run, at=time.time(), data={"reason": by})
        for by in data.draw(st.lists(st.sampled_from(["alice", "bob"]), max_size=3), label="cancels")
    ]
    seen: list[Run] = []

    def look() -> None:
        with db.session(engine, write=False) as session:
            seen.extend(found for found in runs.listing(session, host=host))

    sent = 0
    for step, number in data.draw(STEPS, label="steps"):
        if step == "host":
            factories.push(client, *own[sent : sent + 1 + number])
            sent = min(len(own), sent + 1 + number)
        elif step == "again" and sent:
            factories.push(client, *own[number % sent : sent])
        elif step == "principal" and by_principals:
            factories.push(client, by_principals.pop(0))
        elif step == "ingest":
            ingest.step()
            ingest.errands.run()
            look()
        elif step == "rescue":
            rescue.run()
            look()
    factories.push(client, *own[sent:], *by_principals)
    while ingest.step():
        ingest.errands.run()
    look()
    for before, after in itertools.pairwise(seen):
        assert rank(before) <= rank(after), f"{before.state} at {before.attempt} → {after.state} at {after.attempt}"
    assert seen[-1].state == ENDED[end]
    assert (seen[-1].message, seen[-1].submitted_by) == (None, "alice")
    with db.session(engine, write=False) as session:
        assert audit.verify(session) is None
        answered = [row.state for row, _ in approvals.listing(session, host=host)]
        assert answered == (["approved"] if taken == "once it was approved" else [])
        told = [event.seq for event in audit.events(session, actor=host, after_id=0)]
        assert told == [report.seq for report in own], "each report is recorded once, in its order"
    queued: Any = client.lrange(names.queue(host), 0, -1)
    assert set(queued) <= {message}
