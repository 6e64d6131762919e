"""Attending: what ingestion leaves to be done in the broker, done at once for the runs that it names.

Cancelled runs are taken out of their queues, those that a host gave back or has forgotten are sent again, and callers
of runs that were ended get their results. Cut off, it is the rescue that does the same, some seconds later.
"""

from collections.abc import Collection

import redis
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet import clock, db, names, presence, runs
from fleet.models import Host, Run, RunState
from workers.control import judging
from workers.control.cancelling import Cancelling
from workers.control.judging import Standing, Step
from workers.control.sending import Sending
from workers.control.settling import Settling
from workers.control.voice import Voice
from workers.control.whereabouts import locate


def standings(
    session: Session,
    client: "redis.Redis",
    hosts: Collection[str],
    *,
    connected: Collection[str],
    silent: Collection[str] = (),
) -> dict[str, Standing]:
    """Return what is known of these hosts. Reports are asked for last: what a host said before is then in sight."""
    records = {host.id: host for host in session.exec(select(Host).where(col(Host.id).in_(hosts)))}
    ordered = sorted(hosts)
    with client.pipeline(transaction=False) as pipe:
        for host in ordered:
            pipe.llen(names.reports(names.host_sender(host)))
        lengths = pipe.execute() if ordered else []
    return {
        host: Standing(
            host=records.get(host), connected=host in connected, silent=host in silent, has_reports=bool(length)
        )
        for host, length in zip(ordered, lengths, strict=True)
    }


class Attending:
    """Attends to runs by their ids; each call is complete in itself and may be repeated."""

    def __init__(self, *, engine: Engine, client: "redis.Redis", voice: Voice) -> None:
        self._engine = engine
        self._client = client
        self._settling = Settling(engine=engine, client=client, voice=voice)
        self._sending = Sending(engine=engine, client=client, voice=voice)
        self._cancelling = Cancelling(engine=engine, client=client, settling=self._settling, voice=voice)

    def attend(self, run_ids: Collection[str]) -> None:
        """Do what is to be done for these runs; raises redis-py's errors and Fleet's."""
        if not run_ids:
            return
        now = clock.of_broker(self._client)
        with db.session(self._engine, write=False) as session:
            found = session.exec(select(Run).where(col(Run.id).in_(run_ids)).order_by(col(Run.id))).all()
            hosts = {run.host_id for run in found}
            known = standings(session, self._client, hosts, connected=presence.connected(self._client, hosts))
        self._settling.deliver([run for run in found if runs.is_final(run.state) and run.message])
        self._cancelling.attend(
            [run for run in found if not runs.is_final(run.state) and run.cancel_requested_at], known, now=now
        )
        queued = [run for run in found if run.state == RunState.QUEUED and run.message and not run.cancel_requested_at]
        places, moment = locate(self._client, queued), clock.from_unix(now)
        self._sending.send(
            [
                run
                for run in queued
                if judging.of_queued(run, places[run.id], known[run.host_id], now=moment).step is Step.SEND
            ],
            now=now,
        )
