"""Joining: enrollment, the host's side. A token goes in, a credential comes out.

The host makes its own key and the password of its broker user, of which it tells the public half and a hash. It asks by
the token's broker user, which can do nothing else, and only of a control plane that proves to be the one whose
fingerprint the token carries: everything it says is sealed to that.

The request is put again and again until it is answered, since a control worker may die with it in hand; the same
request gets the same answer and uses the token up once. It says until when somebody waits for the answer (by the
broker's clock), so that a request left behind does not use the token up later.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis
from pydantic import SecretStr

from fleet import address, clock, errors, logs, names, tokens
from fleet.address import Address
from fleet.broker import login
from fleet.broker.connection import connect, translated
from fleet.contracts.credentials import HostCredential
from fleet.contracts.enrollment import (
    EnrollmentAnswer,
    EnrollmentRequest,
    SealedRequest,
    SignedAnswer,
    SignedRequest,
)
from fleet.security import sealing, trust
from fleet.security.keys import KeyPair, Purpose
from fleet.security.sealing import Opener
from fleet.security.trust import Trust

log = logs.get(__name__)

PATIENCE = timedelta(seconds=15)
#: How long one wait for the answer lasts; the same request is put again after it.
_WAIT_SECONDS = 3
#: The part of the patience in which a request may be taken up; the rest is for its answer.
_TAKEN_UP_WITHIN = 0.9
_RETRY_SECONDS = 0.3


@dataclass(frozen=True)
class _Asking:
    """One request on its way, and what its answer is read by."""

    request: EnrollmentRequest
    #: as it lies in the list
    item: str
    opener: Opener
    trusted: Trust

    def read(self, item: str) -> EnrollmentAnswer | None:
        """Return the answer; None for something that is none of the control plane's."""
        try:
            signed = SignedAnswer.model_validate_json(self.opener.open(item))
            if not self.trusted.by_fleet(Purpose.ENROLLMENT, signed.text.encode(), signed.signature):
                raise errors.NotTrusted("it is not signed by the fleet")
            answer = EnrollmentAnswer.model_validate_json(signed.text)
            if answer.request_id != self.request.request_id:
                raise errors.NotTrusted("it is the answer to another request")
        except (ValueError, errors.NotTrusted) as exc:
            log.warning("enrollment.unreadable", error=str(exc)[:200], next="asking again")
            return None
        return answer


def join(
    token_text: str,
    *,
    host: str,
    version: str,
    broker_url: str | None = None,
    broker_ca: str | None = None,
    patience: timedelta = PATIENCE,
) -> HostCredential:
    """Ask the control plane to let this host in, and return its credential.

    `broker_url` overrides the token's address, for a host that reaches the broker another way, and `broker_ca` (PEM)
    the token's CA. Raises `errors.InvalidValue` (malformed token, or an address that Fleet does not connect to),
    `errors.EnrollmentRefused` (also where the control plane is another than the one that made the token: nothing was
    said to it), `errors.BrokerUnavailable`, and `errors.Unreachable` where no control worker answers.
    """
    token = tokens.parse(token_text)
    names.host_id(host)
    where = login.without(broker_url or token.broker_url)
    broker = address.parse(
        login.at(where, login.joiner_user(token.id), token.broker_password()).get_secret_value(),
        ca=broker_ca or token.broker_ca,
        field="--broker-url" if broker_url else "the token's broker",
    )
    key, password = KeyPair.generate(), login.new_password()
    client = connect(broker, name=f"{host}-joining", timeout=timedelta(seconds=_WAIT_SECONDS + 2))
    try:
        with _translated(broker):
            asking = _prepare(client, token, host=host, version=version, key=key, password=password, patience=patience)
            answer = _ask(client, asking, patience)
    finally:
        client.close()
    if answer is None:
        raise errors.Unreachable(
            f"no control worker answered at {where} within {patience.total_seconds():g} s",
            remedy="is `fleet control` running on that broker? then try again: the token is not used up",
        )
    own = login.at(where, login.host_user(host), password)
    return _credential(answer, asking.trusted, key=key, broker_url=own, broker_ca=broker.ca)


@contextmanager
def _translated(broker: Address) -> Iterator[None]:
    """Turn errors of the broker into Fleet's; a login that fails is the token's fault."""
    try:
        with translated(broker):
            yield
    except errors.BrokerUntrusted:
        raise
    except errors.BrokerRefused as exc:
        raise errors.EnrollmentRefused(
            f"the broker at {login.without(broker.url)} does not take this token: it may be used up, expired or "
            f"revoked ({exc.message})",
            remedy="`fleet token create` makes a new one",
        ) from exc


def _prepare(
    client: "redis.Redis",
    token: tokens.Token,
    *,
    host: str,
    version: str,
    key: KeyPair,
    password: str,
    patience: timedelta,
) -> _Asking:
    """Recognise the control plane, and seal the request to it."""
    try:
        said: Any = client.get(names.TRUST)
        if said is None:
            raise errors.BrokerEmpty
        fleet_key, seal_to = trust.recognise(said, token.fleet)
        believed = Trust.in_keys([fleet_key])
        believed.learn(said)
    except (errors.NotTrusted, UnicodeDecodeError) as exc:
        raise errors.EnrollmentRefused(
            f"the control plane at {login.without(token.broker_url)} is not the one that made this token",
            remedy="nothing was said to it; make a token where the control plane runs that this host is to belong to",
        ) from exc
    asked_at = clock.of_broker(client)
    opener = Opener.generate()
    request = EnrollmentRequest(
        request_id=str(uuid.uuid4()),
        token_id=token.id,
        secret=SecretStr(token.secret),
        host=host,
        version=version[:64],
        not_after=asked_at + patience.total_seconds() * _TAKEN_UP_WITHIN,
        key=key.public,
        answer_to=opener.public,
        broker_hash=login.hashed(password),
    )
    text = request.model_dump_json()
    signed = SignedRequest(text=text, signature=key.sign(Purpose.ENROLLMENT, text.encode()))
    sealed = SealedRequest(to=fleet_key, sealed=sealing.seal(signed.model_dump_json().encode(), seal_to))
    return _Asking(request, sealed.model_dump_json(), opener, believed)


def _ask(client: "redis.Redis", asking: _Asking, patience: timedelta) -> EnrollmentAnswer | None:
    """Put the request until it is answered; None where it is not in time. Raises the error of an outage that lasts."""
    deadline = time.monotonic() + patience.total_seconds()
    pause = threading.Event()
    outage: redis.RedisError | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            client.lpush(names.ENROLL_REQUESTS, asking.item)
            if answer := _await_answer(client, asking, seconds=min(_WAIT_SECONDS, max(left, _RETRY_SECONDS))):
                return answer
            outage = None
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            # The request may have been taken up already, so it is this one that must be put again, not another.
            outage = exc
            pause.wait(_RETRY_SECONDS)
    if outage is not None:
        raise outage
    return None


def _await_answer(client: "redis.Redis", asking: _Asking, *, seconds: float) -> EnrollmentAnswer | None:
    key = names.enroll_reply(asking.request.token_id, asking.request.request_id)
    item: Any = client.brpop([key], timeout=seconds)
    return None if item is None else asking.read(item[1])


def _credential(
    answer: EnrollmentAnswer, trusted: Trust, *, key: KeyPair, broker_url: SecretStr, broker_ca: str | None
) -> HostCredential:
    if answer.outcome == "refused":
        raise errors.EnrollmentRefused(
            f"enrollment refused: {answer.reason}", remedy="`fleet token create` makes a new token"
        )
    trusted.learn(answer.trust)
    who = trusted.host(answer.credential)
    if (who.host, who.key) != (answer.host, key.public):
        raise errors.EnrollmentRefused("the credential that came is another host's", remedy="try again")
    return HostCredential(
        host=answer.host,
        broker_url=broker_url,
        broker_ca=broker_ca,
        private_key=key.secret(),
        credential=answer.credential,
        trust=answer.trust,
        labels=dict(who.labels),
        enrolled_at=clock.from_unix(who.enrolled_at),
    )
