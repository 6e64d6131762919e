"""Tasks about containers that exist."""

from fleet.contracts import RunContext
from fleet.contracts.containers import (
    ContainerDetails,
    Containers,
    ContainerState,
    ListContainers,
    OneContainer,
    StopContainer,
)
from workers.host.containers import describe, from_summary
from workers.host.engine import Engine


class ContainerTasks:
    """The container contracts on one Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self, request: ListContainers, _run: RunContext) -> Containers:
        summaries = self._engine.list_containers(everything=request.all)
        return Containers(containers=tuple(from_summary(summary) for summary in summaries))

    def inspect(self, request: OneContainer, _run: RunContext) -> ContainerDetails:
        return ContainerDetails(
            container=describe(self._engine, request.container), inspect=self._engine.inspect(request.container)
        )

    def start(self, request: OneContainer, run: RunContext) -> ContainerState:
        run.progress("starting", 0)
        self._engine.start(request.container)
        return ContainerState(container=describe(self._engine, request.container))

    def stop(self, request: StopContainer, run: RunContext) -> ContainerState:
        run.progress("stopping", 0)
        self._engine.stop(request.container, timeout_seconds=request.timeout_seconds)
        return ContainerState(container=describe(self._engine, request.container))

    def restart(self, request: StopContainer, run: RunContext) -> ContainerState:
        run.progress("restarting", 0)
        self._engine.restart(request.container, timeout_seconds=request.timeout_seconds)
        return ContainerState(container=describe(self._engine, request.container))
