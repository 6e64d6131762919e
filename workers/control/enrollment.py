"""The enrollment loop: takes requests from the broker, answers each, and publishes whom it let in."""

import threading
from datetime import timedelta
from typing import Any

import redis
from pydantic import ValidationError
from sqlalchemy import Engine

from fleet import audit, db, enrollment, errors, inventory, logs, names
from fleet.contracts.enrollment import EnrollmentAnswer, EnrollmentRequest

log = logs.get(__name__)

#: How long one wait for a request lasts; less than the connection's time-out, and the longest a stop has to wait.
_WAIT_SECONDS = 1
_RETRY = timedelta(seconds=1)
#: How long an answer waits for the host that asked.
_ANSWER_TTL = timedelta(seconds=60)
#: A request is a few hundred bytes; anybody who has a token may write here.
_MAX_REQUEST_BYTES = 4096


class EnrollmentDesk:
    """A thread that serves joining hosts. Several control workers may have one each.

    A request that is lost with a crash is put again by the host, and the same request gets the same answer.
    """

    def __init__(self, *, engine: Engine, client: "redis.Redis") -> None:
        self._engine = engine
        self._client = client
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="enrollment", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=3)) -> None:
        """End after the request in hand; harmless when called twice or before the start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())

    def _run(self) -> None:
        failing = False
        while not self._stopping.is_set():
            try:
                item: Any = self._client.brpop([names.ENROLL_REQUESTS], timeout=_WAIT_SECONDS)
                if item is not None:
                    self.serve(item[1])
            except (redis.RedisError, errors.FleetError) as exc:
                if not failing:
                    log.warning("enrollment.paused", error=str(exc), next="hosts ask again until it works")
                failing = True
                self._stopping.wait(_RETRY.total_seconds())
            else:
                failing = False
        self.stopped.set()

    def serve(self, item: str) -> EnrollmentAnswer | None:
        """Answer one request; what cannot be read is audited and gets no answer."""
        try:
            if len(item) > _MAX_REQUEST_BYTES:
                raise ValueError(f"{len(item)} characters")
            request = EnrollmentRequest.model_validate_json(item)
            answer_key = names.enroll_reply(request.token_id)
        except (ValidationError, ValueError) as exc:
            log.warning("enrollment.malformed", error=type(exc).__name__)
            with db.session(self._engine) as session:
                audit.record(
                    session,
                    event="enrollment.refused",
                    actor="unknown",
                    data={"reason": "malformed request", "size": len(item)},
                )
            return None
        with db.session(self._engine) as session:
            answer = enrollment.redeem(session, request)
        log.info("enrollment.answered", host=answer.host, outcome=answer.outcome)
        if answer.outcome == "accepted":
            # Before the answer: the host may be pushed to as soon as it is there.
            with db.session(self._engine, write=False) as session:
                inventory.publish_hosts(session, self._client, answer.host)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.lpush(answer_key, answer.model_dump_json())
            pipe.expire(answer_key, _ANSWER_TTL)
            pipe.execute()
        return answer
