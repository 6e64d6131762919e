"""Results of pushes: Celery's `AsyncResult`, whose errors are Fleet's, and which can cancel its run."""

import sys
from contextlib import suppress
from typing import Any

import redis
from celery.result import AsyncResult

from fleet import names
from fleet.broker.results import awaiting


class RunResult(AsyncResult):  # type: ignore[type-arg]  # generic in the stubs only
    """Celery's result of one run; what it raises are Fleet's errors, and Celery's `TimeoutError`."""

    #: the report of the push as it lies in the broker until the control plane has recorded it; empty where this
    #: process did not push
    report: str = ""

    @property
    def host(self) -> str:
        return names.host_of_run(self.id)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the reply's fields, as Celery's `get` does; raises `errors.BrokerUnavailable` besides."""
        with awaiting():
            return super().get(*args, **kwargs)

    def cancel(self, reason: str = "") -> None:
        """Ask for the end of the run, see `fleet.Fleet.cancel`; what came of it, `get` tells."""
        control: Any = self.app.control
        control.cancel(self.id, reason=reason)

    def __del__(self) -> None:
        """Unsubscribe, as Celery does here, unless the process ends or the broker has gone: then nobody listens."""
        if not sys.is_finalizing():
            with suppress(redis.RedisError, OSError):
                super().__del__()
