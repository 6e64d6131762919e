"""Errors: one tree, sorted by who must act; each keeps its data, and its text names the next step.

FleetError                        exit code
├── UsageError                    2    the caller wrote something wrong
│   ├── InvalidValue                   a value that no host would take; names the field
│   ├── InvalidArguments               arguments that do not fit the contract; names each field
│   ├── UnknownTask                    no contract of that name
│   ├── SettingsInvalid                a setting, or a file of settings, is wrong
│   └── NotFound                       no such run, token or container record
├── Refused                       4    somebody in charge said no
│   ├── TaskRejected                   the host refused a message; it never ran
│   ├── EnrollmentRefused              the control plane refused a token
│   ├── CredentialUnusable             missing, unreadable, open to others, expired, revoked
│   ├── Unauthenticated                no bearer token of the REST API, or none that counts
│   ├── NotPermitted                   the principal may not do that, or not there
│   └── NotTrusted                     a signature or credential that is not whose it should be
│       └── ResultForged               what lies there as a result is nobody's word that counts
├── Unreachable                   5    something is not there at the moment
│   ├── NoHosts                        a push that is meant for no host at all
│   ├── HostNotConnected               no heartbeat: nothing was queued
│   │   ├── HostNotEnrolled            no such host
│   │   └── HostNotAvailable           it is paused or draining
│   ├── QueueFull                      too much waits for the host already
│   ├── TaskExpired                    the run was still waiting when its time was over
│   ├── BrokerUnavailable              nobody answers
│   │   ├── BrokerEmpty                somebody answers, and knows nothing of the fleet (yet)
│   │   └── BrokerRefused              somebody answers, and does not take us
│   │       └── BrokerUntrusted        somebody answers, and cannot show to be the broker
│   ├── DatabaseUnavailable
│   └── EngineUnavailable              the Docker Engine does not answer
├── TaskFailed                    1    the run was carried out and failed
│   ├── TaskCancelled                  somebody asked for its end
│   ├── OutcomeUnknown                 it began, and nobody can say what became of it
│   ├── EngineRefused                  the Docker Engine answered with an error
│   └── NotGranted                     the host's own policy does not let the fleet do that
├── PartlyPushed                  3    a push to several hosts that was cut short
├── SoftTimeLimit                 1    raised inside a task that has used up its soft time limit
├── TimedOut                      124  the caller's own patience ended; the run goes on
└── LocalFault                    1    this machine: disk full, port in use, already running
"""

from collections.abc import Mapping
from difflib import get_close_matches


class FleetError(Exception):
    """Something went wrong in a way that Fleet can name.

    `code` is the stable word for programs (JSON output, REST), `exit_code` what the CLI exits with.
    """

    code = "fleet_error"
    exit_code = 1

    def __init__(self, message: str, /, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


def did_you_mean(value: str, known: "list[str]") -> str:
    """Return `did you mean 'web-01'?` for the nearest of the known words, or an empty string."""
    near = get_close_matches(value, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


class UsageError(FleetError):
    code = "usage"
    exit_code = 2


class InvalidValue(UsageError):
    """One value is wrong. `field`, `value` and `problem` are kept for programs."""

    code = "invalid_value"

    def __init__(self, *, field: str, value: object, problem: str, remedy: str) -> None:
        shown = repr(value)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        super().__init__(f"{field}: {shown} {problem}", remedy=remedy)
        self.field = field
        self.value = value
        self.problem = problem


class InvalidArguments(UsageError):
    """Arguments that do not fit a contract. `fields` maps each wrong field to what is wrong with it."""

    code = "invalid_arguments"

    def __init__(self, task: str, fields: Mapping[str, str], *, expected: str) -> None:
        listed = ", ".join(f"{field}: {problem}" for field, problem in fields.items())
        super().__init__(f"{task}: {listed}", remedy=f"it takes {expected}")
        self.task = task
        self.fields = dict(fields)


class UnknownTask(UsageError):
    code = "unknown_task"

    def __init__(self, task: str, known: "list[str]") -> None:
        hint = did_you_mean(task, known) or f"known tasks: {', '.join(sorted(known))}"
        super().__init__(f"no task named {task!r}", remedy=hint)
        self.task = task


class SettingsInvalid(UsageError):
    code = "settings_invalid"


class NotFound(UsageError):
    code = "not_found"


class Refused(FleetError):
    code = "refused"
    exit_code = 4


#: What to do about a refusal, by its reason.
_REMEDIES = {
    "not_in_allow_list": "`fleet policy show` shows what is listed, where the control plane runs",
    "no_policy": "`fleet policy apply` gives the fleet one, where the control plane runs",
    "switched_off": "whoever owns the host decides that",
}


class TaskRejected(Refused):
    """The host refused the message before anything ran. `reason` is one of the catalogued words."""

    code = "rejected"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(
            f"the host refused the task ({reason})" + (f": {detail}" if detail else ""),
            remedy=_REMEDIES.get(reason, ""),
        )
        self.reason = reason
        self.detail = detail


class EnrollmentRefused(Refused):
    code = "enrollment_refused"


class CredentialUnusable(Refused):
    code = "credential_unusable"


class Unauthenticated(Refused):
    """Nobody that the REST API knows: no bearer token, or none that counts."""

    code = "unauthenticated"


class NotPermitted(Refused):
    """The principal's level or selectors do not allow this push. Nothing was sent."""

    code = "not_permitted"


class NotTrusted(Refused):
    """A signature, or a credential, is not whose it should be."""

    code = "not_trusted"


class ResultForged(NotTrusted):
    """What lies where a run's result belongs is neither its host's word nor the fleet's."""

    code = "result_forged"


class Unreachable(FleetError):
    code = "unreachable"
    exit_code = 5


class NoHosts(Unreachable):
    """No host has the labels that were named, or none is enrolled. Nothing was queued."""

    code = "no_hosts"


class HostNotConnected(Unreachable):
    """The host has no heartbeat. Nothing was queued."""

    code = "host_not_connected"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"host_not_connected: host {host!r} is not connected; nothing was queued",
            remedy="start its worker, or queue for it (`--offline queue`, .on(host, offline='queue'))",
        )
        self.host = host


class HostNotEnrolled(HostNotConnected):
    """No host of that name is enrolled. Nothing was queued."""

    def __init__(self, host: str, known: "list[str]") -> None:
        Unreachable.__init__(
            self,
            f"host_not_connected: no host named {host!r} is enrolled; nothing was queued",
            remedy=did_you_mean(host, known) or "`fleet host list` shows those that are",
        )
        self.host = host


class HostNotAvailable(HostNotConnected):
    """The host is there and takes no new work. Nothing was queued."""

    code = "host_not_available"

    def __init__(self, host: str, availability: str) -> None:
        Unreachable.__init__(
            self,
            f"host_not_available: host {host!r} is {availability}; nothing was queued",
            remedy="`fleet host resume` lets it take work again; "
            "`--offline queue` (.on(host, offline='queue')) queues for it",
        )
        self.host = host
        self.availability = availability


class QueueFull(Unreachable):
    """So much waits for the host that nothing more is queued. Nothing was queued."""

    code = "queue_full"

    def __init__(self, host: str, length: int) -> None:
        super().__init__(
            f"queue_full: {length:,} messages wait for host {host!r}; nothing was queued",
            remedy="is its worker running? `fleet host show` says since when it is silent",
        )
        self.host = host


class TaskExpired(Unreachable):
    code = "expired"


class BrokerUnavailable(Unreachable):
    code = "broker_unavailable"


class BrokerEmpty(BrokerUnavailable):
    """The broker answers and knows of no fleet: it is new, or has lost its data, and no control plane has set it up
    since. Nothing was sent."""

    code = "broker_empty"

    def __init__(self) -> None:
        super().__init__(
            "broker_empty: the broker knows nothing of the fleet: it is new, or has lost its data; nothing was sent",
            remedy="the control plane sets it up as soon as it reaches it: is `fleet control` running?",
        )


class BrokerRefused(BrokerUnavailable):
    """The broker answers, but not to us: wrong or missing password, too old, wrong settings."""

    code = "broker_refused"


class BrokerUntrusted(BrokerRefused):
    """Whoever answers cannot show to be the broker (no TLS, or a wrong certificate). Nothing was sent to it."""

    code = "broker_untrusted"


class DatabaseUnavailable(Unreachable):
    code = "database_unavailable"


class EngineUnavailable(Unreachable):
    code = "engine_unavailable"


class TaskFailed(FleetError):
    """The run was carried out and failed. `kind` is the stable word for the cause."""

    code = "failed"

    def __init__(self, message: str, /, *, kind: str = "failed", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.kind = kind


class TaskCancelled(TaskFailed):
    """Somebody asked for the end of the run, before it began or while it ran."""

    code = "cancelled"

    def __init__(self, message: str, /, *, kind: str = "cancelled", remedy: str = "") -> None:
        super().__init__(message, kind=kind, remedy=remedy)


class OutcomeUnknown(TaskFailed):
    """The run began and nobody can say whether it had its effect; it is not run again by itself."""

    code = "unknown"

    def __init__(self, message: str, /, *, kind: str = "unknown", remedy: str = "") -> None:
        super().__init__(message, kind=kind, remedy=remedy or "look at the host; `fleet task retry` runs it again")


class EngineRefused(TaskFailed):
    """The Docker Engine answered with an error: no such container, a conflict, no space."""

    def __init__(self, message: str, /, *, kind: str = "engine_error", remedy: str = "") -> None:
        super().__init__(message, kind=kind, remedy=remedy)


class NotGranted(TaskFailed):
    """The host's owner has not granted what was asked for. Nothing was changed."""

    def __init__(self, message: str, /, *, kind: str = "not_granted", remedy: str = "") -> None:
        super().__init__(message, kind=kind, remedy=remedy)


class PartlyPushed(FleetError):
    """A push to several hosts was cut short; `run_ids` are those that were pushed, and go on."""

    code = "partly_pushed"
    exit_code = 3

    def __init__(self, run_ids: "tuple[str, ...]", *, wanted: int, cause: FleetError) -> None:
        super().__init__(
            f"pushed to {len(run_ids)} of {wanted} hosts, then: {cause}",
            remedy="`fleet task list` shows those",
        )
        self.run_ids = run_ids


class SoftTimeLimit(FleetError):
    """Raised inside a running task whose soft time limit is over, so that it can put things in order and end."""

    code = "soft_time_limit"


class TimedOut(FleetError):
    code = "timed_out"
    exit_code = 124


class LocalFault(FleetError):
    code = "local_fault"
