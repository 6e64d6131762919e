"""Joining: enrollment, the host's side. A token goes in, a credential comes out."""

import time
import uuid
from datetime import timedelta

import redis
from pydantic import SecretStr, ValidationError

from fleet import clock, errors, logs, names, redaction, tokens
from fleet.broker.connection import connect, translated
from fleet.contracts.enrollment import Credential, EnrollmentAnswer, EnrollmentRequest

log = logs.get(__name__)

PATIENCE = timedelta(seconds=20)
#: How long one wait for the answer lasts; the same request is put again after it, in case it was lost.
_WAIT_SECONDS = 3


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
    request = EnrollmentRequest(
        request_id=str(uuid.uuid4()), token_id=token.id, secret=token.secret, host=names.host_id(host), version=version
    )
    client = connect(url, name=f"{host}-joining", timeout=timedelta(seconds=_WAIT_SECONDS + 2))
    deadline = time.monotonic() + patience.total_seconds()
    try:
        with translated(url):
            while time.monotonic() < deadline:
                client.lpush(names.ENROLL_REQUESTS, request.model_dump_json())
                if answer := _await_answer(client, token.id, request.request_id):
                    return _credential(answer, url)
    finally:
        client.close()
    raise errors.Unreachable(
        f"no control worker answered at {redaction.url(url)} within {patience.total_seconds():g} s",
        remedy="is `fleet control` running on that broker? then try again; the token is not used up",
    )


def _await_answer(client: "redis.Redis", token_id: str, request_id: str) -> EnrollmentAnswer | None:
    item = client.brpop([names.enroll_reply(token_id)], timeout=_WAIT_SECONDS)
    if item is None:
        return None
    try:
        answer = EnrollmentAnswer.model_validate_json(item[1])
    except ValidationError:
        log.warning("enrollment.unreadable", next="asking again")
        return None
    # Of a token with several uses another host's answer may come; that host asks again and gets it then.
    return answer if answer.request_id == request_id else None


def _credential(answer: EnrollmentAnswer, url: str) -> Credential:
    if answer.outcome == "refused":
        raise errors.EnrollmentRefused(
            f"enrollment refused: {answer.reason}", remedy="`fleet token create` makes a new token"
        )
    return Credential(host=answer.host, broker_url=SecretStr(url), labels=answer.labels, enrolled_at=clock.now())
