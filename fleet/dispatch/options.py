"""Options of a push: when its run may begin, how long it may take, how often it is tried, what it is for.

They become fields of the envelope. Celery's own ways of saying the same (headers for eta, expiry and time limits) stay
empty: by them Celery would delay and drop messages on its own, beside the journal, and by the host's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from fleet import errors, names
from fleet.contracts import AnyContract
from fleet.contracts.envelope import LONGEST_WAY_SECONDS, Envelope, Limits, Retry
from fleet.dispatch import checking
from fleet.dispatch.checking import Duration, Moment
from fleet.security.identity import HostIdentity

Offline = Literal["fail", "queue"]

#: How long a message waits for an offline host when the caller sets no expiry.
DEFAULT_QUEUE_EXPIRY = timedelta(days=1)
#: As in `fleet.contracts.envelope.Envelope`.
LONGEST_DESCRIPTION = 4096


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a caller may say about a push beside task, arguments and host. None leaves it to the contract."""

    #: a duration from now, or a moment, after which the run must not begin
    expires: Duration | datetime | None = None
    #: how long from now the run waits before it may begin
    countdown: Duration | None = None
    #: the moment before which it does not begin
    eta: Moment | None = None
    #: after it an attempt is ended
    time_limit: Duration | None = None
    #: after it an attempt is asked to stop
    soft_time_limit: Duration | None = None
    #: attempts that may follow a failed one
    max_retries: int | None = None
    #: the wait before the first retry; it doubles each time
    retry_backoff: Duration | None = None
    #: the longest wait between two attempts
    retry_backoff_max: Duration | None = None
    #: the run that this one repeats
    retry_of: str | None = None
    description: str = ""
    metadata: Mapping[str, Any] | None = None
    #: id that the runs of one push share
    batch: str | None = None
    offline: Offline = "fail"

    def envelope(self, *, host: HostIdentity, principal: str, contract: AnyContract, now: float) -> Envelope:
        """Return the envelope; `now` is the broker's time in unix seconds.

        Raises `errors.InvalidValue` that names the option, `errors.UsageError` for two that exclude each other.
        """
        not_before = _not_before(self.countdown, self.eta, now=now)
        expires = self.expires
        if self.offline == "queue" and expires is None:
            expires = DEFAULT_QUEUE_EXPIRY + timedelta(seconds=max(0.0, (not_before or now) - now))
        not_after = _not_after(expires, now=now)
        if not_before is not None and not_after is not None and not_after <= not_before:
            raise errors.InvalidValue(
                field="expires", value=expires, problem="is over before the task may begin", remedy="give it more time"
            )
        if self.retry_of is not None:
            names.host_of_run(self.retry_of)
        values = {
            "host": host.host,
            "host_key": host.key,
            "submitted_by": principal,
            "submitted_at": now,
            "not_after": not_after,
            "not_before": not_before,
            "limits": _limits(self.time_limit, self.soft_time_limit, contract=contract),
            "retry": _retry(self.max_retries, self.retry_backoff, self.retry_backoff_max),
            "retry_of": self.retry_of,
            "description": checking.text("description", self.description, most=LONGEST_DESCRIPTION),
            "metadata": checking.metadata(self.metadata),
            "batch": self.batch,
        }
        return _built(Envelope, values)


#: Names of the options above.
NAMES = frozenset(option.name for option in fields(Options))

_Model = TypeVar("_Model", bound=BaseModel)
#: Fields of the envelope's parts, by the options that fill them.
_OPTION_OF = {
    "soft_seconds": "soft_time_limit",
    "hard_seconds": "time_limit",
    "backoff_seconds": "retry_backoff",
    "backoff_max_seconds": "retry_backoff_max",
}


def _not_before(countdown: Duration | None, eta: Moment | None, *, now: float) -> float | None:
    """Return the moment in unix seconds; None for at once, also where the moment is over."""
    if countdown is not None and eta is not None:
        raise errors.UsageError("countdown and eta: use one of the two")
    if countdown is not None:
        found = now + checking.seconds("countdown", countdown)
    elif eta is not None:
        found = checking.moment("eta", eta)
    else:
        return None
    if found - now > LONGEST_WAY_SECONDS:
        raise errors.InvalidValue(
            field="eta" if countdown is None else "countdown",
            value=eta if countdown is None else countdown,
            problem="is too far away",
            remedy=f"{LONGEST_WAY_SECONDS / 86_400:.0f} days are the most",
        )
    return found if found > now else None


def _not_after(expires: Duration | datetime | None, *, now: float) -> float | None:
    """Return the moment in unix seconds; raises `errors.InvalidValue` for one that is over."""
    if expires is None:
        return None
    if isinstance(expires, datetime):
        found = checking.moment("expires", expires)
    else:
        found = now + checking.seconds("expires", expires)
    if found <= now:
        raise errors.InvalidValue(field="expires", value=expires, problem="is over already", remedy="give it some time")
    return found


def _limits(hard: Duration | None, soft: Duration | None, *, contract: AnyContract) -> Limits | None:
    """Return the limits; None for the contract's own. With a soft limit alone the contract's is the hard one."""
    if hard is None and soft is None:
        return None
    hard_seconds = contract.limit.total_seconds() if hard is None else checking.seconds("time_limit", hard)
    soft_seconds = None if soft is None else checking.seconds("soft_time_limit", soft)
    found = _built(Limits, {"soft_seconds": soft_seconds, "hard_seconds": hard_seconds})
    if soft_seconds is not None and soft_seconds >= hard_seconds:
        whose = "the task's own limit" if hard is None else "time_limit"
        raise errors.InvalidValue(
            field="soft_time_limit",
            value=soft,
            problem=f"is not shorter than {whose} of {hard_seconds:g} s",
            remedy="give a longer time_limit, or a shorter soft_time_limit",
        )
    return found


def _retry(most: int | None, backoff: Duration | None, longest: Duration | None) -> Retry:
    given = {"retry_backoff": backoff, "retry_backoff_max": longest}
    for name, value in given.items():
        if value is not None and not most:
            raise errors.InvalidValue(
                field=name, value=value, problem="has no retry to wait for", remedy="give max_retries as well"
            )
    values: dict[str, Any] = {} if most is None else {"max_retries": most}
    if backoff is not None:
        values["backoff_seconds"] = checking.seconds("retry_backoff", backoff)
        # a wait that was asked for is not cut down by a maximum that was not
        values["backoff_max_seconds"] = max(values["backoff_seconds"], Retry().backoff_max_seconds)
    if longest is not None:
        values["backoff_max_seconds"] = checking.seconds("retry_backoff_max", longest)
    found = _built(Retry, values)
    if found.backoff_max_seconds < found.backoff_seconds:
        raise errors.InvalidValue(
            field="retry_backoff_max",
            value=longest,
            problem=f"is shorter than the first wait of {found.backoff_seconds:g} s",
            remedy="give a longer one, or a shorter retry_backoff",
        )
    return found


def _built(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Return the model; raise `errors.InvalidValue` that names the option of the first value that does not fit."""
    try:
        return model.model_validate(values, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        raise errors.InvalidValue(
            field=_OPTION_OF.get(name, name),
            value=first["input"],
            problem=f"cannot be: {first['msg'][:1].lower()}{first['msg'][1:]}",
            remedy="see `fleet push-task --help`",
        ) from exc
