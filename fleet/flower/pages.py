"""Pages that differ from stock Flower's: what would change something is refused, and metrics want the password, too."""

from typing import Any

from flower.api import BaseApiHandler
from flower.views.monitor import Metrics
from tornado import web

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


#: Stand before Flower's own of the same paths. `/healthcheck` stays open: it says "OK" and nothing else.
HANDLERS: list[tuple[str, type[web.RequestHandler]]] = [
    (r"/api/worker/.*", Refused),
    (r"/api/task/(?:apply|async-apply|send-task|abort|timeout|rate-limit|revoke)/.*", Refused),
    (r"/metrics", LockedMetrics),
]
