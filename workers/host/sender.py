"""The sender: hands the outbox to the broker, in order, again and again until it has it."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta

import redis

from fleet import logs, names
from fleet.broker.results import RESULT_TTL_SECONDS
from workers.host.outbox import Outbox, Outgoing
from workers.host.own import Own

log = logs.get(__name__)

#: First wait after a failed try, and the longest; short, because callers wait for results.
_RETRY_FIRST = timedelta(milliseconds=200)
_RETRY_LONGEST = timedelta(seconds=2)
#: How long steps on the way wait for company; a result takes them along at once. A round trip for each step would cost
#: more than the step.
_GATHER_SECONDS = 0.03
#: Reports that are signed together: checking the signature costs the control plane as much as recording one of them.
MOST_TOGETHER = 20
#: In characters; the control plane reads items of bounded size (`workers.control.reading`), and one reply may have a
#: quarter of this.
_LONGEST_TOGETHER = 1024 * 1024
#: After this long without a word of the control plane, it is looked whether the broker still has what it was given.
_ACKNOWLEDGED_WITHIN = 30.0


class Sender:
    """A thread that sends reports and results as they come."""

    def __init__(self, outbox: Outbox, client: "redis.Redis", own: Own) -> None:
        self._outbox = outbox
        self._client = client
        self._own = own
        self._sender = names.host_sender(own.host)
        self._stopping = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        """Try once more to send what is there, then stop; what is left stays in the outbox."""
        self._stopping.set()
        self._outbox.tell_urgently()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())
        else:
            self.stopped.set()

    def _run(self) -> None:
        wait = _RETRY_FIRST
        failing = False
        while True:
            if not self._outbox.news.wait(_ACKNOWLEDGED_WITHIN):
                self._look_after_sent()
                continue
            self._outbox.urgent.wait(_GATHER_SECONDS)
            self._outbox.urgent.clear()
            self._outbox.news.clear()
            last_try = self._stopping.is_set()
            try:
                while reports := self._outbox.unsent():
                    self.send(reports)
            except (redis.RedisError, sqlite3.Error) as exc:  # the broker is away, or the disk is full
                if not failing:
                    log.warning("outbox.delayed", error=str(exc), next="reports wait on disk and are sent again")
                failing = True
                self._outbox.news.set()
                self._stopping.wait(wait.total_seconds())
                wait = min(wait * 2, _RETRY_LONGEST)
            else:
                if failing:
                    log.info("outbox.resumed")
                failing, wait = False, _RETRY_FIRST
            if last_try:
                break
        self.stopped.set()

    def _look_after_sent(self) -> None:
        """Send again what the broker has no longer and nobody has recorded: it lost its disk, or the word got lost.

        Called when nothing was sent for a while. What lies in the list waits for the control plane; in an empty list
        it was taken in, and then the acknowledgement has had its time.
        """
        try:
            if self._outbox.unacknowledged() and not self._client.llen(names.reports(self._sender)):
                self._outbox.send_again()
        except (redis.RedisError, sqlite3.Error) as exc:
            log.warning("outbox.unchecked", error=str(exc), next="it is looked at again later")

    def send(self, reports: list[Outgoing]) -> None:
        """Send reports and results, signed, in one transaction of the broker, then remember that it has them."""
        items = [self._own.sign_reports(tuple(texts)) for texts in _together(reports)]
        with self._client.pipeline(transaction=True) as pipe:
            pipe.lpush(names.reports(self._sender), *items)
            pipe.sadd(names.REPORTS_DIRTY, self._sender)
            for report in reports:
                if report.run_id is not None and report.result is not None:
                    key, signed = names.result(report.run_id), self._own.sign_result(json.loads(report.result))
                    pipe.set(key, signed, ex=RESULT_TTL_SECONDS)
                    pipe.publish(key, signed)
            pipe.execute()
        self._outbox.mark_sent(reports)


def _together(reports: Iterable[Outgoing]) -> Iterator[list[str]]:
    """Yield reports that are signed together, in their order; none is too long to be signed alone."""
    texts: list[str] = []
    length = 0
    for report in reports:
        if len(texts) == MOST_TOGETHER or (texts and length + len(report.report) > _LONGEST_TOGETHER):
            yield texts
            texts, length = [], 0
        texts.append(report.report)
        length += len(report.report)
    if texts:
        yield texts
