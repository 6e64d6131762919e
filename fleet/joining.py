"""Joining: enrollment, the host's side. A token goes in, a credential comes out.

The request is put again and again until it is answered, since a control worker may die with it in hand; the same
request gets the same answer and uses the token up once. It says until when somebody waits for the answer (by the
broker's clock), so that a request left behind does not use the token up later.
"""

import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import redis
from pydantic import SecretStr, ValidationError

from fleet import clock, errors, logs, names, redaction, tokens
from fleet.broker.connection import connect, translated
from fleet.contracts.enrollment import Credential, EnrollmentAnswer, EnrollmentRequest

log = logs.get(__name__)

PATIENCE = timedelta(seconds=15)
#: How long one wait for the answer lasts; the same request is put again after it.
_WAIT_SECONDS = 3
#: The part of the patience in which a request may be taken up; the rest is for its answer.
_TAKEN_UP_WITHIN = 0.9
_RETRY_SECONDS = 0.3


def join(
    token_text: str, *, host: str, version: str, broker_url: str | None = None, patience: timedelta = PATIENCE
) -> Credential:
    """Ask the control plane to let this host in, and return its credential.

    `broker_url` overrides the token's address, for a host that reaches the broker another way. Raises
    `errors.InvalidValue` (malformed token), `errors.EnrollmentRefused`, `errors.BrokerUnavailable`, and
    `errors.Unreachable` where no control worker answers.
    """
    token = tokens.parse(token_text)
    url = broker_url or token.broker_url
    names.host_id(host)
    client = connect(url, name=f"{host}-joining", timeout=timedelta(seconds=_WAIT_SECONDS + 2))
    try:
        with translated(url):
            seconds, microseconds = _time(client)
            request = EnrollmentRequest(
                request_id=str(uuid.uuid4()),
                token_id=token.id,
                secret=SecretStr(token.secret),
                host=host,
                version=version[:64],
                not_after=seconds + microseconds / 1e6 + patience.total_seconds() * _TAKEN_UP_WITHIN,
            )
            answer = _ask(client, request, patience)
    finally:
        client.close()
    if answer is None:
        raise errors.Unreachable(
            f"no control worker answered at {redaction.url(url)} within {patience.total_seconds():g} s",
            remedy="is `fleet control` running on that broker? then try again: the token is not used up",
        )
    return _credential(answer, url)


def _time(client: "redis.Redis") -> tuple[int, int]:
    measured: Any = client.time()
    return measured[0], measured[1]


def _ask(client: "redis.Redis", request: EnrollmentRequest, patience: timedelta) -> EnrollmentAnswer | None:
    """Put the request until it is answered; None where it is not in time. Raises the error of an outage that lasts."""
    deadline = time.monotonic() + patience.total_seconds()
    pause = threading.Event()
    outage: redis.RedisError | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            client.lpush(names.ENROLL_REQUESTS, request.model_dump_json())
            if answer := _await_answer(client, request, seconds=min(_WAIT_SECONDS, max(left, _RETRY_SECONDS))):
                return answer
            outage = None
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            # The request may have been taken up already, so it is this one that must be put again, not another.
            outage = exc
            pause.wait(_RETRY_SECONDS)
    if outage is not None:
        raise outage
    return None


def _await_answer(client: "redis.Redis", request: EnrollmentRequest, *, seconds: float) -> EnrollmentAnswer | None:
    item: Any = client.brpop([names.enroll_reply(request.token_id, request.request_id)], timeout=seconds)
    if item is None:
        return None
    try:
        return EnrollmentAnswer.model_validate_json(item[1])
    except ValidationError:
        log.warning("enrollment.unreadable", next="asking again")
        return None


def _credential(answer: EnrollmentAnswer, url: str) -> Credential:
    if answer.outcome == "refused":
        raise errors.EnrollmentRefused(
            f"enrollment refused: {answer.reason}", remedy="`fleet token create` makes a new token"
        )
    return Credential(host=answer.host, broker_url=SecretStr(url), labels=answer.labels, enrolled_at=clock.now())
