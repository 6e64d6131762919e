"""Tasks about the host itself."""

import time
from collections.abc import Callable

from fleet.contracts import RunContext
from fleet.contracts.hosts import Facts, FactsRequest, Ping, Pong


def ping(request: Ping, run: RunContext) -> Pong:
    return Pong(host=run.host, echo=request.echo, time=time.time())


def facts(detect: Callable[[], Facts]) -> Callable[[FactsRequest, RunContext], Facts]:
    """Return the task that looks around anew with `detect`."""

    def perform(_request: FactsRequest, _run: RunContext) -> Facts:
        return detect()

    return perform
