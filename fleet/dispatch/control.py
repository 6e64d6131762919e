"""Control: what Celery's `app.control` is here.

Celery's remote control is a broadcast to all workers, which hosts do not hear: anybody could send it. What of it makes
sense for a host is said on that host's control list; all else is an error instead of silence.
"""

from typing import TYPE_CHECKING, Any, NoReturn

from celery.app.control import Control

from fleet import errors

if TYPE_CHECKING:
    from fleet.dispatch.dispatcher import Dispatcher


class HostControl(Control):
    """Celery's control without broadcasts; `AsyncResult.revoke` and `GroupResult.revoke` end up here, too."""

    def __init__(self, dispatcher: "Dispatcher") -> None:
        super().__init__(dispatcher.app)
        self._dispatcher = dispatcher

    def cancel(self, run_id: str, *, reason: str = "") -> None:
        self._dispatcher.cancel(run_id, reason=reason)

    def broadcast(self, command: str, *_: Any, **__: Any) -> NoReturn:
        """Refuse: no host would hear it."""
        if command.startswith(("revoke", "terminate")):
            remedy = "end a task with .cancel(), Fleet.cancel(id) or `fleet task cancel`, whether it runs or waits"
        else:
            remedy = "`fleet host` shows and steers hosts"
        raise errors.UsageError(f"hosts do not listen to Celery's {command}", remedy=remedy)
