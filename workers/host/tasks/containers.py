"""Tasks about containers.

A task that changes something finds its container first and acts on the id, so that a name given to another container
meanwhile does no harm. Which containers may be acted on, the host's policy says.
"""

from datetime import datetime

from fleet import errors
from fleet.contracts import RunContext
from fleet.contracts.containers import (
    CheckContainer,
    Container,
    ContainerCheck,
    ContainerCreated,
    ContainerDetails,
    ContainerExited,
    ContainerRemoved,
    Containers,
    ContainerState,
    CreateContainer,
    KillContainer,
    ListContainers,
    OneContainer,
    RemoveContainer,
    StopContainer,
)
from workers.host.claim import Claim
from workers.host.containers.ending import stop_if_ended
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.listing import describe, everything, running, with_details
from workers.host.containers.making import Maker
from workers.host.containers.removing import Remover
from workers.host.streams import StreamedRun

#: A wait looks so often whether its run is over, and the Engine still there.
_WAIT_SECONDS = 5.0


class ContainerTasks:
    """The container contracts on one Engine."""

    def __init__(self, engine: Engine, grants: Grants, maker: Maker, remover: Remover) -> None:
        self.engine = engine
        self.grants = grants
        self._maker = maker
        self._remover = remover

    def list(self, request: ListContainers, _run: RunContext) -> Containers:
        found = everything(self.engine) if request.all else running(self.engine)
        return Containers(containers=tuple(c for c in found if c.managed) if request.managed else found)

    def inspect(self, request: OneContainer, _run: RunContext) -> ContainerDetails:
        container, details = with_details(self.engine, request.container)
        self.grants.require_managed(container)
        return ContainerDetails(container=container, inspect=details)

    def check(self, request: CheckContainer, run: RunContext) -> ContainerCheck:
        return self._maker.check(request, run)

    def create(self, request: CreateContainer, run: StreamedRun) -> ContainerCreated:
        return self._maker.create(request, run)

    def created(self, request: CreateContainer, *, claim: Claim, since: datetime) -> ContainerCreated | None:
        """Finish a container that was half made; None where nothing is left of it."""
        return self._maker.reconcile(request, claim=claim)

    def remove(self, request: RemoveContainer, run: RunContext) -> ContainerRemoved:
        return self._remover.remove(request, run)

    def removed(self, request: RemoveContainer, *, claim: Claim, since: datetime) -> ContainerRemoved | None:
        """Return what there is to say of a container that has gone; None where it is still there."""
        return self._remover.reconcile(request, since=since)

    def start(self, request: OneContainer, run: RunContext) -> ContainerState:
        before = self._to_act_on(request)
        run.progress("starting", 0)
        self.engine.start(before.docker_id)
        return self._state_after(before)

    def stop(self, request: StopContainer, run: RunContext) -> ContainerState:
        before = self._to_act_on(request)
        run.progress("stopping", 0)
        self.engine.stop(before.docker_id, timeout_seconds=request.timeout_seconds)
        return self._state_after(before)

    def restart(self, request: StopContainer, run: RunContext) -> ContainerState:
        before = self._to_act_on(request)
        run.progress("restarting", 0)
        self.engine.restart(before.docker_id, timeout_seconds=request.timeout_seconds)
        return self._state_after(before)

    def kill(self, request: KillContainer, _run: RunContext) -> ContainerState:
        before = self._to_act_on(request)
        self.engine.ask(
            "POST",
            f"/containers/{before.docker_id}/kill",
            container=before.docker_id,
            kinds={409: "not_running"},
            parameters={"signal": request.signal},
        )
        return self._state_after(before)

    def wait(self, request: OneContainer, run: StreamedRun) -> ContainerExited:
        container = self._to_act_on(request)
        while True:
            stop_if_ended(run)
            ended = self.engine.wait(container.docker_id, seconds=_WAIT_SECONDS)
            after = self._state_after(container).container  # raises where the Engine does not answer
            if ended is not None:
                error = (ended.get("Error") or {}).get("Message", "")
                return ContainerExited(container=after, exit_code=ended["StatusCode"], error=error)

    def restarted(self, request: StopContainer, *, claim: Claim, since: datetime) -> ContainerState | None:
        """Return the container if it was started after `since`; None if it has to be restarted (still, or stopped in
        the middle of it)."""
        container = describe(self.engine, request.container)
        if container.state == "running" and container.started is not None and container.started >= since:
            return ContainerState(container=container)
        return None

    def _to_act_on(self, request: OneContainer) -> Container:
        container = describe(self.engine, request.container)
        self.grants.require_managed(container)
        return container

    def _state_after(self, before: Container) -> ContainerState:
        """Return the container as it is now; one made with `--rm` goes away when it stops, and is then "removing"."""
        try:
            return ContainerState(container=describe(self.engine, before.docker_id))
        except errors.EngineRefused as exc:
            if exc.kind != "no_such_container":
                raise
            return ContainerState(
                container=before.model_copy(update={"state": "removing", "status": "", "health": None, "ports": ()})
            )
