"""Tasks about containers that exist.

A task that changes something finds its container first and acts on the id, so that a name given to another container
meanwhile does no harm.
"""

from datetime import datetime

from fleet import errors
from fleet.contracts import RunContext
from fleet.contracts.containers import (
    Container,
    ContainerDetails,
    Containers,
    ContainerState,
    ListContainers,
    OneContainer,
    StopContainer,
)
from workers.host.containers.engine import Engine
from workers.host.containers.listing import describe, everything, running, with_details


class ContainerTasks:
    """The container contracts on one Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self, request: ListContainers, _run: RunContext) -> Containers:
        return Containers(containers=everything(self._engine) if request.all else running(self._engine))

    def inspect(self, request: OneContainer, _run: RunContext) -> ContainerDetails:
        container, details = with_details(self._engine, request.container)
        return ContainerDetails(container=container, inspect=details)

    def start(self, request: OneContainer, run: RunContext) -> ContainerState:
        before = describe(self._engine, request.container)
        run.progress("starting", 0)
        self._engine.start(before.docker_id)
        return self._state_after(before)

    def stop(self, request: StopContainer, run: RunContext) -> ContainerState:
        before = describe(self._engine, request.container)
        run.progress("stopping", 0)
        self._engine.stop(before.docker_id, timeout_seconds=request.timeout_seconds)
        return self._state_after(before)

    def restart(self, request: StopContainer, run: RunContext) -> ContainerState:
        before = describe(self._engine, request.container)
        run.progress("restarting", 0)
        self._engine.restart(before.docker_id, timeout_seconds=request.timeout_seconds)
        return self._state_after(before)

    def restarted(self, request: StopContainer, *, since: datetime) -> ContainerState | None:
        """Return the container if it was started after `since`; None if it has to be restarted (still, or stopped in
        the middle of it)."""
        container = describe(self._engine, request.container)
        if container.state == "running" and container.started is not None and container.started >= since:
            return ContainerState(container=container)
        return None

    def _state_after(self, before: Container) -> ContainerState:
        """Return the container as it is now; one made with `--rm` goes away when it stops, and is then "removing"."""
        try:
            return ContainerState(container=describe(self._engine, before.docker_id))
        except errors.EngineRefused as exc:
            if exc.kind != "no_such_container":
                raise
            return ContainerState(
                container=before.model_copy(update={"state": "removing", "status": "", "health": None, "ports": ()})
            )
