"""A pipeline with the parts around it, on a journal and a broker of its own, for tests of how runs are carried out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import redis

from fleet import errors, names
from fleet.contracts import AnyContract, registry
from fleet.contracts.containers import ContainerState
from tests import factories
from tests.factories import container
from tests.services.sessions import HOST, Session
from workers.host.children import Children
from workers.host.deadlines import Deadlines
from workers.host.handover import Handover
from workers.host.pipeline import Pipeline
from workers.host.running import Running
from workers.host.settling import Settling
from workers.host.streams import Streams

RESTART = registry.get("fleet.containers.restart")
INBOX = names.inbox(HOST, 1)


class Part:
    """A pipeline of session 1 with the parts around it, whose only task counts how often it is performed."""

    def __init__(
        self, session: Session, client: Any, directory: Path, *, contract: AnyContract = RESTART, perform: Any = None
    ) -> None:
        self.session, self.client, self.contract = session, client, contract
        self.performed: list[str] = []
        self.effect: Callable[[], None] = lambda: None
        self.unusable: list[Exception] = []
        #: why nothing may begin any more
        self.objection: errors.FleetError | None = None
        self.running, self.deadlines = Running(), Deadlines()
        self.handover = Handover(client, session.journal, host=HOST, epoch=1, on_unusable=self.unusable.append)
        self.children = Children(directory / "spool", docker_url="", memory_bytes=2**30)
        self.settling = Settling(
            session.endings,
            {},
            broker_clock=session.time,
            stopping=Event(),
            on_abandoned=lambda _run: None,
            kept=self.children.kept,
            mask=self.mask,
        )
        # of their own, as in a session: they let go of it when nothing is said
        used: Any = client.connection_pool
        self._said = redis.Redis(
            connection_pool=redis.ConnectionPool(connection_class=used.connection_class, **used.connection_kwargs)
        )
        self.streams = Streams(self._said, factories.own(directory / "own.json", HOST), clock=session.time)
        self.pipeline = Pipeline(
            host=HOST,
            journal=session.journal,
            endings=session.endings,
            settling=self.settling,
            handover=self.handover,
            running=self.running,
            deadlines=self.deadlines,
            children=self.children,
            streams=self.streams,
            performers={contract.name: perform or self._perform},
            engine=self,
            governor=self,
            on_unusable=self.unusable.append,
        )

    docker: Any = None

    def mask(self, text: str) -> str:
        return text.replace("hunter2", "***")

    def grant(self, *_: Any) -> Any:
        raise NotImplementedError("nothing here waits for approval")

    def let_begin(self, *_: Any) -> None:
        if self.objection is not None:
            raise self.objection

    def recorded(self, **_: Any) -> Any:
        raise NotImplementedError("nothing here is a command")

    def _perform(self, _request: Any, run: Any) -> ContainerState:
        self.performed.append(run.run_id)
        self.effect()
        return ContainerState(container=container("web"))

    @contextmanager
    def at_work(self) -> Iterator["Part"]:
        self.client.set(names.epoch(HOST), 1)
        threads = (self.handover, self.deadlines, self.streams)
        for thread in threads:
            thread.start()
        yield self
        for thread in threads:
            thread.stop()
        self._said.connection_pool.disconnect()

    def deliver(self, **wishes: Any) -> str:
        """Take a message: it is accepted, held in the inbox, and in hand."""
        run_id = self.session.accept(task=self.contract.name, **{"arguments": {"container": "web"}, **wishes})
        item = self.session.rows("item", "run_id = ?", (run_id,))[0][0]
        self.client.lpush(INBOX, item)
        self.handover.hold(run_id, item)
        self.running.enter(run_id)
        return run_id
