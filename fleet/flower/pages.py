"""Pages that differ from stock Flower's: what would change something is refused, metrics want the password, too, and
the broker is asked over a connection of Fleet's."""

from typing import Any

from flower.api import BaseApiHandler
from flower.views.broker import BrokerView
from flower.views.monitor import Metrics
from tornado import web

from fleet.flower.queues import Queues

_WATCHES_ONLY = "This Flower only watches. Push tasks with `fleet push-task` or fleet.tasks."


class Refused(BaseApiHandler):  # type: ignore[misc]
    """Every request that would send a task or command a worker. `read_only` refuses most; this, all of them."""

    @web.authenticated
    def post(self, *_: Any) -> None:
        raise web.HTTPError(403, _WATCHES_ONLY)


class LockedMetrics(Metrics):  # type: ignore[misc]
    """Prometheus metrics name every host and task, so they want the password like everything else."""

    @web.authenticated
    async def get(self) -> None:
        await super().get()


class Broker(BrokerView):  # type: ignore[misc]
    """The queues' lengths. Flower's own page connects in a way of its own, which is not held to Fleet's TLS."""

    def get_broker(self) -> Queues:
        queues: Queues = self.application.queues
        return queues


#: Stand before Flower's own of the same paths. `/healthcheck` stays open: it says "OK" and nothing else.
HANDLERS: list[tuple[str, type[web.RequestHandler]]] = [
    (r"/api/worker/.*", Refused),
    (r"/api/task/(?:apply|async-apply|send-task|abort|timeout|rate-limit|revoke)/.*", Refused),
    (r"/metrics", LockedMetrics),
    (r"/broker", Broker),
]
