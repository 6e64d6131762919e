"""Restoring: what of secrets there is follows what containers there are, and comes back after a reboot.

The tmpfs is empty after a reboot, so the Engine could not start the containers whose secrets lay there, and does not
try again. Once their files are back, those are started that it would have started.
"""

from collections.abc import Iterable
from typing import Any

from fleet import errors, logs, names
from fleet.contracts.containers import Container, Label
from workers.host.containers.engine import Engine
from workers.host.containers.keeping import SecretFiles
from workers.host.containers.listing import ids_of_run

log = logs.get(__name__)

_RUNS_ALONE = frozenset({"always", "unless-stopped", "on-failure"})
_STANDS_STILL = frozenset({"created", "exited"})


class Restoring:
    """Looks at the containers of one host whenever they are listed."""

    def __init__(self, files: SecretFiles, engine: Engine, *, host: str) -> None:
        self._files = files
        self._engine = engine
        self._host = host

    def look(self, found: Iterable[Container]) -> None:
        """Remove what belongs to none of these containers, and restore what one of them lacks."""
        labels = {each.labels.get(Label.RUN, "") for each in found}
        for kept in self._files.reconcile({label for label in labels if self._is_ours(label)}, is_there=self._is_there):
            try:
                if self._was_kept_from_starting(self._engine.inspect(kept.docker_id)):
                    self._engine.start(kept.docker_id)
                    log.info("container.restored", run=kept.run, container=kept.docker_id[:12])
            except errors.FleetError as exc:
                log.warning("container.unrestored", run=kept.run, error=str(exc), next="start it by yourself")

    def _is_ours(self, label: str) -> bool:
        """Say whether a label names a run of this host; anybody may write anything there."""
        try:
            return names.host_of_run(label) == self._host
        except errors.InvalidValue:
            return False

    def _is_there(self, name: str) -> bool:
        return bool(ids_of_run(self._engine, f"{self._host}:{name}"))

    def _was_kept_from_starting(self, details: dict[str, Any]) -> bool:
        state, policy = details["State"], details["HostConfig"].get("RestartPolicy") or {}
        return (
            state["Status"] in _STANDS_STILL
            and policy.get("Name") in _RUNS_ALONE
            and str(self._files.directory) in (state.get("Error") or "")
        )
