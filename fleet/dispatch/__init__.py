"""Dispatch: turning one push into one message for one host, or into an error before anything is sent.

Everything that can be known to be wrong is checked here, where the caller can see it: the task, its arguments, the
host, Celery options that cannot mean anything to a host. What ends a run before its time begins here as well.
"""

from fleet.dispatch.checking import Duration, Moment
from fleet.dispatch.dispatcher import Dispatcher
from fleet.dispatch.membership import MOST_WAITING, Member
from fleet.dispatch.options import DEFAULT_QUEUE_EXPIRY, Offline, Options
from fleet.dispatch.pushing import ContractTask, RunSignature
from fleet.dispatch.result import RunResult

__all__ = [
    "DEFAULT_QUEUE_EXPIRY",
    "MOST_WAITING",
    "ContractTask",
    "Dispatcher",
    "Duration",
    "Member",
    "Moment",
    "Offline",
    "Options",
    "RunResult",
    "RunSignature",
]
