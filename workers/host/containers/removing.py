"""Removing a container, with what was made for it alone."""

from datetime import datetime
from typing import Any

from fleet.contracts import RunContext
from fleet.contracts.containers import ContainerRemoved, Label, RemoveContainer
from workers.host.containers import calls, volumes
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.listing import describe, ids_of_run
from workers.host.containers.replacing import SLOW_SECONDS, look
from workers.host.containers.undoing import Discards

_RUNS = frozenset({"running", "restarting", "paused"})


class Remover:
    """Removes containers of one Engine."""

    def __init__(self, engine: Engine, grants: Grants, *, secrets: Discards | None = None) -> None:
        self._engine = engine
        self._grants = grants
        self._secrets = secrets

    def remove(self, request: RemoveContainer, run: RunContext) -> ContainerRemoved:
        before = describe(self._engine, request.container)
        self._grants.require_managed(before)
        run.progress("removing", 0)
        self._engine.ask(
            "DELETE",
            f"/containers/{calls.part(before.docker_id)}",
            container=before.docker_id,
            kinds={409: "container_running" if before.state in _RUNS else "conflict"},
            parameters={"force": str(int(request.force)), "v": str(int(request.volumes))},
            seconds=SLOW_SECONDS,
        )
        return ContainerRemoved(container=before, volumes=self._with_it(before.labels.get(Label.RUN), request))

    def reconcile(self, request: RemoveContainer, *, since: datetime) -> ContainerRemoved | None:
        """Return the reply where the container has gone, None where it has to be removed still."""
        details = look(self._engine, request.container)
        if details is not None and datetime.fromisoformat(details["Created"]) < since:  # else another has its name
            return None
        return ContainerRemoved(container=None, volumes=self._with_it(self._made_by(request.container, since), request))

    def _with_it(self, made_by: str | None, request: RemoveContainer) -> tuple[str, ...]:
        """Remove what was made with a container that has gone; return the volumes among it."""
        if made_by is None or ids_of_run(self._engine, made_by):  # labels can be copied, by an image for one
            return ()
        if self._secrets is not None:
            self._secrets.discard(made_by)
        if not request.volumes:
            return ()
        return volumes.remove_unused(self._engine, volumes.of_run(self._engine, made_by))

    def _made_by(self, container: str, since: datetime) -> str | None:
        """Return the run that had made a container, which the Engine remembers while it runs; None where it has not."""
        for event in self._engine.past_events("destroy", since=since.timestamp()):
            actor: dict[str, Any] = event["Actor"]
            if actor["ID"].startswith(container) or actor["Attributes"].get("name") == container:
                run: str | None = actor["Attributes"].get(Label.RUN)
                return run
        return None
