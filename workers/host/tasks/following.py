"""Tasks that tell what containers say and use, in the run's output."""

from collections.abc import Sequence

from fleet.contracts.container_output import (
    MOST_IN_ENTRY,
    Logs,
    LogsEnd,
    Stats,
    StatsEnd,
    Usage,
    UsageEntry,
)
from workers.host.containers import following, usage
from workers.host.containers.ending import stop_if_ended
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.listing import describe, from_summary, with_details
from workers.host.streams import StreamedRun

#: Between two looks, in seconds: of a single one to reckon with, and of a follower's.
_FIRST_LOOK_SECONDS = 1.0
_LOOK_SECONDS = 2.0


class FollowingTasks:
    """The contracts about what containers say and use, on one Engine."""

    def __init__(self, engine: Engine, grants: Grants) -> None:
        self._engine = engine
        self._grants = grants

    def logs(self, request: Logs, run: StreamedRun) -> LogsEnd:
        container, details = with_details(self._engine, request.container)
        self._grants.require_managed(container)
        teller = following.Teller(run, timestamps=request.timestamps, patiently=not request.follow)
        terminal = following.has_terminal(details)
        for part in following.read(self._engine, container.docker_id, terminal=terminal, wish=request, run=run):
            teller.tell(part)
        stop_if_ended(run)
        if not request.follow:
            return LogsEnd(lines=teller.lines, ended="read")
        return LogsEnd(lines=teller.lines, ended="unfollowed" if run.unfollowed() else "stopped")

    def stats(self, request: Stats, run: StreamedRun) -> StatsEnd:
        chosen = [describe(self._engine, container) for container in request.containers]
        for container in chosen:
            self._grants.require_managed(container)
        ids = [container.docker_id for container in chosen] if chosen else None
        before, look = self._samples(ids), 0
        run.pause(_FIRST_LOOK_SECONDS)
        while True:
            after = self._samples(ids)
            found = [usage.between(before.get(docker_id, {}), sample) for docker_id, sample in after.items()]
            before, look = after, look + 1
            stop_if_ended(run)
            _tell(run, look, found)
            if not request.follow:
                return StatsEnd(usage=tuple(found))
            if ids and not found:
                return StatsEnd(usage=(), ended="stopped")
            if run.unfollowed():
                return StatsEnd(usage=tuple(found), ended="unfollowed")
            run.pause(_LOOK_SECONDS)

    def _samples(self, ids: Sequence[str] | None) -> dict[str, usage.Sample]:
        if ids is None:
            found = map(from_summary, self._engine.list_containers(everything=False))
            ids = [container.docker_id for container in found if self._grants.manages(container)]
        return usage.samples(self._engine, ids)


def _tell(run: StreamedRun, look: int, found: Sequence[Usage]) -> None:
    starts = range(0, len(found), MOST_IN_ENTRY) if found else (0,)
    for start in starts:
        part = tuple(found[start : start + MOST_IN_ENTRY])
        entry = UsageEntry(look=look, last=start + MOST_IN_ENTRY >= len(found), usage=part)
        run.write("usage", entry.model_dump(mode="json"))
