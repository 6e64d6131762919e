"""The enrollment desk: takes requests from the broker, answers each, and publishes whom it let in."""

import json
import threading
from datetime import timedelta
from typing import Any

import redis
from pydantic import ValidationError
from redis.client import NEVER_DECODE
from sqlalchemy import Engine

from fleet import audit, clock, db, enrollment, errors, inventory, logs, members, names
from fleet.contracts.enrollment import (
    EnrollmentAnswer,
    EnrollmentRequest,
    SealedRequest,
    SignedAnswer,
    SignedRequest,
)
from fleet.keyring import Keyring, Keyrings
from fleet.models import AuditEvent
from fleet.security import sealing
from fleet.security.keys import Purpose, verify

log = logs.get(__name__)

#: How long one wait for a request lasts; less than the connection's time-out, and the longest a stop has to wait.
_WAIT_SECONDS = 0.5
_RETRY = timedelta(seconds=1)
#: How long an answer waits for the host that asked.
_ANSWER_TTL = timedelta(seconds=60)
#: A request is some 1,500 bytes; anybody who has a token may write here.
_MAX_REQUEST_BYTES = 10_000


class EnrollmentDesk:
    """A thread that serves joining hosts. Several control workers may have one each.

    A request that is lost with a crash is put again by the host, and the same request gets the same answer.
    """

    def __init__(self, *, engine: Engine, client: "redis.Redis", keyrings: Keyrings) -> None:
        self._engine = engine
        self._client = client
        self._keyrings = keyrings
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._ticked_at: float | None = None

    def age(self) -> float | None:
        """Return the seconds since the loop ticked last; None before the first tick."""
        return None if self._ticked_at is None else clock.elapsed() - self._ticked_at

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="enrollment", daemon=True)
            self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """End after the request in hand; harmless when called twice or before the start."""
        self._stopping.set()
        if self._thread is None:
            self.stopped.set()
        else:
            self._thread.join(timeout.total_seconds())

    def _run(self) -> None:
        failing = False
        try:
            while not self._stopping.is_set():
                self._ticked_at = clock.elapsed()
                try:
                    if failing:
                        self._ring()  # or what another desk could answer would be taken and lost, each time
                    if (item := self._take()) is not None:
                        self.serve(item)
                except Exception as exc:  # noqa: BLE001 - one request must not keep the next host out
                    if not failing:
                        log.warning("enrollment.paused", reason=_kind(exc), next="hosts ask again until it works")
                    failing = True
                    self._stopping.wait(_RETRY.total_seconds())
                else:
                    if failing:
                        log.info("enrollment.resumed")
                    failing = False
        finally:
            self.stopped.set()

    def _take(self) -> bytes | None:
        # foreign bytes: a client that decodes would fail on them
        command: Any = self._client.execute_command
        item = command("BRPOP", names.ENROLL_REQUESTS, _WAIT_SECONDS, **{NEVER_DECODE: True})
        return bytes(item[1]) if item else None

    def serve(self, item: bytes) -> EnrollmentAnswer | None:
        """Answer one request; what cannot be read is audited and gets no answer.

        Raises `errors.LocalFault` where a key of the fleet's is not on this machine: a host that is told less than all
        keys would never learn the others. It asks again, and another control worker may have them.
        """
        ring = self._ring()
        try:
            if len(item) > _MAX_REQUEST_BYTES:
                raise ValueError(f"{len(item)} bytes")
            request = _opened(item, ring)
        except ValueError as exc:  # pydantic's ValidationError is one; its text would repeat the secret
            self._refuse_malformed(item, _first_field(exc))
            return None
        now = clock.of_broker(self._client)
        with db.session(self._engine) as session:
            enrollment.keep_still(session)
            ring = self._keyrings.current(session)
            redemption = enrollment.redeem(session, request, ring=ring, broker_time=now)
        answer, event = redemption
        log.info("enrollment.answered", host=answer.host, outcome=answer.outcome)
        if answer.outcome == "accepted":
            # Before the answer: the host may connect, and be pushed to, as soon as it is there.
            self._admit(answer.host, request.key, anew=event is not None)
        text = answer.model_dump_json()
        # by the oldest key: a newer one may have been made since the host has read which there are
        signed = SignedAnswer(text=text, signature=ring.oldest.sign(Purpose.ENROLLMENT, text.encode()))
        reply = names.enroll_reply(request.token_id, request.request_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.lpush(reply, sealing.seal(signed.model_dump_json().encode(), request.answer_to))
            pipe.expire(reply, _ANSWER_TTL)
            pipe.execute()
        self._publish(event)
        return answer

    def _admit(self, host_id: str, key: str, *, anew: bool) -> None:
        """Let a host in at the broker, unless somebody has put it out since."""
        with db.session(self._engine) as session:
            enrollment.keep_still(session)
            host = inventory.host(session, host_id)
            if key in host.keys:
                members.admit_host(self._client, host, anew=anew)
                members.drop_former_words(session, self._client, host)
                inventory.publish_hosts(session, self._client, host_id)

    def _ring(self) -> Keyring:
        with db.session(self._engine, write=False) as session:
            return self._keyrings.current(session)

    def _refuse_malformed(self, item: bytes, problem: str) -> None:
        log.warning("enrollment.malformed", problem=problem, size=len(item))
        with db.session(self._engine) as session:
            event = audit.record(
                session,
                event="enrollment.refused",
                actor="control",
                data={"reason": "malformed request", "problem": problem, "size": len(item)},
            )
        self._publish(event)

    def _publish(self, event: AuditEvent | None) -> None:
        if event is not None:
            self._client.publish(names.WATCH, json.dumps(audit.to_wire(event)))


def _opened(item: bytes, ring: Keyring) -> EnrollmentRequest:
    """Return what a host asks; raise ValueError for what nobody could have sealed and signed like that."""
    sealed = SealedRequest.model_validate_json(item)
    signed = SignedRequest.model_validate_json(ring.opener(sealed.to).open(sealed.sealed))
    request = EnrollmentRequest.model_validate_json(signed.text)
    if not verify(request.key, Purpose.ENROLLMENT, signed.text.encode(), signed.signature):
        raise ValueError("not signed by the key in it")
    sealing.require_key(request.answer_to)  # before anything is used up for it
    return request


def _first_field(exc: ValueError) -> str:
    """Say what is wrong without the value."""
    if not isinstance(exc, ValidationError):
        return str(exc)
    error = exc.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['type']}" if where else str(error["type"])


def _kind(exc: Exception) -> str:
    """Say what went wrong; of an error that is not known, nothing that could quote a request."""
    if isinstance(exc, (errors.FleetError, redis.RedisError)):
        return str(exc)
    return f"{type(exc).__module__}.{type(exc).__name__}"
