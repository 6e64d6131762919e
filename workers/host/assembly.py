"""Assembly: the parts of one session, made and wired to one another.

queue ─▶ consumer (Celery) ─ guard ─▶ journal ─▶ pool ─▶ pipeline ─▶ endings ─▶ outbox ─▶ sender ─▶ reports
                 ▲                       │                   │
                 └──── runs that are due ┘                   └─▶ children (supervisors that outlive the worker)

Nothing begins by it: threads are made and not started, and nothing of the fleet's is read. What opens connections, and
to what, is seen here. When all that starts, and in which order, is `workers.host.session`'s.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import redis

from fleet import policy
from fleet.address import Address
from fleet.broker.connection import connect
from fleet.clock import BrokerClock
from fleet.contracts import registry
from fleet.contracts.control import CancelRun
from fleet.contracts.hosts import Facts
from fleet.settings import Settings
from workers.host import confidential, consumer, facts, governance
from workers.host.admission import Admissions
from workers.host.availability import Gate
from workers.host.checks import Checks
from workers.host.children import Children
from workers.host.commands import Commands
from workers.host.containers.engine import Engine
from workers.host.containers.inventory import InventoryWatch
from workers.host.control import ControlList
from workers.host.deadlines import Deadlines
from workers.host.dismissal import Dismissal
from workers.host.endings import Endings
from workers.host.epoch import Taken
from workers.host.guard import Guard
from workers.host.handover import Handover
from workers.host.heartbeat import HeartbeatWriter
from workers.host.journal import Journal
from workers.host.obeying import Obeying
from workers.host.outbox import Outbox
from workers.host.own import Own
from workers.host.pipeline import Pipeline
from workers.host.publish import InventoryKey
from workers.host.pulse import Pulse
from workers.host.recovery import Recovery
from workers.host.refusals import Refusals
from workers.host.running import Running
from workers.host.sender import Sender
from workers.host.settling import Settling
from workers.host.stopping import Stopping
from workers.host.store import Store
from workers.host.streams import Streams
from workers.host.tasks import wiring
from workers.host.tasks.registry import reconcilers
from workers.host.unbegun import Unbegun


class Assembly:
    """All parts, wired."""

    def __init__(
        self,
        settings: Settings,
        *,
        own: Own,
        broker: Address,
        link: "redis.Redis",
        store: Store,
        epoch: Taken,
        clock: BrokerClock,
        started_at: datetime,
        wake: Callable[[], None],
        take_leave: Callable[[], None],
        on_ending: Callable[[], None],
        on_availability: Callable[[], None],
    ) -> None:
        """`wake` has the event loop see at once what has changed, `on_availability` is called when that was set."""
        host = own.host
        self._settings, self._own, self._link, self._clock = settings, own, link, clock
        self._engine = engine = Engine(settings.resolved_docker_url)
        self.running = Running()
        self.deadlines = Deadlines()
        self.outbox = Outbox(store, host=host, epoch=epoch.number, clock=clock)
        self._unbegun = Unbegun(store, self.outbox, clock=clock)
        self._admissions = Admissions(store, self.outbox, unbegun=self._unbegun, clock=clock)
        self.journal = Journal(store, self.outbox, unbegun=self._unbegun, clock=clock)
        self._endings = Endings(store, self.outbox, clock=clock)
        self.gate = Gate(store, self.outbox, self.running, self.deadlines, clock=clock)
        self.children = Children(
            settings.host_dir(host) / "spool",
            docker_url=settings.resolved_docker_url,
            memory_bytes=settings.task_memory,
        )
        self.stopping = Stopping(
            self.running,
            self.gate,
            grace=settings.stop_grace,
            wake=wake,
            take_leave=take_leave,
            on_begun=on_ending,
        )
        self.dismissal = Dismissal(own, store, self.outbox, self.stopping, unlisted=settings.unlisted, wake=wake)
        self.governance = governance.wire(
            settings,
            own=own,
            store=store,
            outbox=self.outbox,
            deadlines=self.deadlines,
            clock=clock,
            secrets=self._secrets,
            wake=wake,
        )
        self.facts = self._look_around()
        self.on_containers = wiring.wire(
            settings, engine, host=host, journal=self.journal, outbox=self.outbox, running=self.running
        )
        self._settling = Settling(
            self._endings,
            reconcilers(self.on_containers.tasks),
            broker_clock=clock,
            stopping=self.stopping.over,
            on_abandoned=self.on_containers.undoing.abandoned,
            kept=self.children.kept,
            mask=self.governance.governor.mask,
            cancelled=self._cancelled,
        )
        self.handover = Handover(link, self.journal, host=host, epoch=epoch.number, on_unusable=consumer.end_worker)
        self._refusals = Refusals(self.outbox, link, host=host, clock=clock)
        self.sender = Sender(self.outbox, link, own)
        self.streams = Streams(
            connect(broker, name=f"{host}-output", timeout=timedelta(seconds=3), login=own.login), own, clock=clock
        )
        self.inventory = self._watch_containers()
        self.pulse = Pulse()
        obeying = Obeying(
            own=own,
            unbegun=self._unbegun,
            outbox=self.outbox,
            running=self.running,
            gate=self.gate,
            inventory=self.inventory,
            secrets=self.on_containers.secrets,
            governance=self.governance,
            dismissal=self.dismissal,
            on_availability=on_availability,
        )
        self.control = ControlList(
            connect(broker, name=f"{host}-control", timeout=timedelta(seconds=3), login=own.login),
            obeying.handlers,
            decide=self.governance.parking.decide,
            own=own,
            epoch=epoch.number,
            clock=clock,
            on_superseded=self.dismissal.give_way,
            on_refused=self._refusals.report,
            pushed_by=self.journal.pushed_by,
            on_heard=self.pulse.hear,
        )
        self.heartbeat = HeartbeatWriter(
            connect(broker, name=f"{host}-heartbeat", timeout=timedelta(seconds=1), login=own.login),
            host=host,
            facts=self.facts,
            started_at=started_at,
            pulse=self.pulse,
            outbox=self.outbox,
            inventory=self.inventory,
            journal=self.journal,
            running=self.running,
            gate=self.gate,
            clock=clock,
            listed=not settings.unlisted,
        )
        self.recovery = Recovery(
            self.journal, self._endings, self._settling, self.children, self.running, unbegun=self._unbegun
        )

    def _cancelled(self, run_id: str) -> CancelRun | None:
        """Return who asked for the end of a run that has begun: of this session, or of one that has heard it before."""
        request = self.running.requested(run_id)
        return (request.cancel if request else None) or self._unbegun.requested(run_id)

    def pipeline(self) -> Pipeline:
        """Return what carries out runs; what a former worker was putting is removed by it."""
        host, governor = self._own.host, self.governance.governor
        return Pipeline(
            host=host,
            journal=self.journal,
            endings=self._endings,
            settling=self._settling,
            handover=self.handover,
            running=self.running,
            deadlines=self.deadlines,
            children=self.children,
            streams=self.streams,
            performers=wiring.performers_of(
                self._settings,
                self._engine,
                host=host,
                containers=self.on_containers,
                journal=self.journal,
                governor=governor,
                detect=self._look_around,
            ),
            engine=self._engine,
            on_unusable=consumer.end_worker,
            governor=governor,
            commands=Commands(
                host=host,
                governor=governor,
                paths_in=policy.paths_in,
                secrets=self._secrets,
                children=self.children,
                endings=self._endings,
                settling=self._settling,
                running=self.running,
            ),
        )

    def guard(self) -> Guard:
        """Return what admits messages, of the tasks that are known by now."""
        return Guard(
            checks=Checks(own=self._own, tasks=registry.known(), governor=self.governance.governor, clock=self._clock),
            admissions=self._admissions,
            unbegun=self._unbegun,
            refusals=self._refusals,
            governor=self.governance.governor,
            parking=self.governance.parking,
            clock=self._clock,
            in_hand=self.handover.has,
        )

    def _watch_containers(self) -> InventoryWatch:
        """Return what looks at the containers; on an unlisted host, too, because the secrets of some depend on it."""
        interval = self._settings.inventory_interval
        key = InventoryKey(self._link, host=self._own.host, interval=interval, clock=self._clock)
        return InventoryWatch(
            self._engine,
            publish=_to_nobody if self._settings.unlisted else key.write,
            report=_to_nobody if self._settings.unlisted else self.outbox.report,
            interval=interval,
            on_found=self.on_containers.restoring.look,
        )

    def _look_around(self) -> Facts:
        return facts.detect(self._settings, self._engine, takes_commands=self.governance.governor.takes_commands)

    def _secrets(self) -> set[bytes]:
        """Return what nothing that leaves this host may show, as it is known at the moment."""
        return confidential.values(self._own, self.on_containers.files, self._settings)


def _to_nobody(*_: object) -> None:
    """Keep what the containers are to this host, which is not listed."""
