"""Start times: when each container was last started, which the Engine's list does not say.

Each is asked for once a start (one inspect), and remembered only while somebody follows the Engine's events, because
nothing else tells when it is over. Without a follower every question goes to the Engine.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any


def started_at(details: Mapping[str, Any]) -> datetime | None:
    """Return when a container was last started, from the Engine's answer to inspect; None if never."""
    moment = datetime.fromisoformat(details["State"]["StartedAt"])
    return moment if moment.year > 1 else None  # the Engine writes year 1 for "never"


class StartTimes:
    """Remembers start times by full container id. Thread-safe; the Engine is asked outside the lock."""

    def __init__(self, inspect: Callable[[str], Mapping[str, Any]]) -> None:
        self._inspect = inspect
        self._lock = threading.Lock()
        self._following = False
        self._known: dict[str, datetime | None] = {}
        #: the latest question on its way for each container; an event that comes meanwhile makes its answer old
        self._asked: dict[str, object] = {}

    def of(self, docker_id: str) -> datetime | None:
        """Return when the container was last started, None if never; raises what the Engine's inspect raises."""
        question = object()
        with self._lock:
            if docker_id in self._known:
                return self._known[docker_id]
            self._asked[docker_id] = question
        try:
            moment = started_at(self._inspect(docker_id))
        except BaseException:
            self.forget(docker_id)
            raise
        with self._lock:
            if self._asked.get(docker_id) is question:
                del self._asked[docker_id]
                if self._following:
                    self._known[docker_id] = moment
        return moment

    def forget(self, docker_id: str) -> None:
        """Ask anew: the container was started again, or is gone."""
        with self._lock:
            self._known.pop(docker_id, None)
            self._asked.pop(docker_id, None)

    def keep(self, docker_ids: Collection[str]) -> None:
        """Drop all containers but these."""
        with self._lock:
            self._known = {docker_id: at for docker_id, at in self._known.items() if docker_id in docker_ids}

    def follow(self, *, following: bool) -> None:
        """Begin or end to rely on events; what happened in between is not known, so all is forgotten."""
        with self._lock:
            self._following = following
            self._known.clear()
            self._asked.clear()
