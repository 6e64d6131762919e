"""Recovery: what a new session of a host does about the runs that the former one left unfinished.

The former session is over (the lock on the host's state proves it), so nobody else will finish them:

- accepted, not begun: they are in the journal, and begin as if they had just come;
- claimed, but no supervisor was ever there, though its contract needs one: it never began;
- claimed, but held back until its message had left the inbox, where it still is: it never began either;
- begun under a supervisor: its word counts; one that still runs is waited for, and its run can be ended as ever;
- begun, and no word: what the contract says.

What was to be cancelled is not begun again, whichever session has heard of that.
"""

import json
import threading
from collections.abc import Sequence
from typing import Any

import redis
from redis.client import NEVER_DECODE

from fleet import logs, names
from fleet.contracts import shell
from workers.host.children import Children, Found
from workers.host.claim import Claim
from workers.host.endings import Endings
from workers.host.inboxes import restore
from workers.host.journal import Journal
from workers.host.running import EndRequest, Running, Why
from workers.host.settling import Settling
from workers.host.unbegun import Unbegun

log = logs.get(__name__)


class Recovery:
    """Takes up what a former session left."""

    def __init__(
        self,
        journal: Journal,
        endings: Endings,
        settling: Settling,
        children: Children,
        running: Running,
        *,
        unbegun: Unbegun,
    ) -> None:
        self._journal = journal
        self._endings = endings
        self._settling = settling
        self._children = children
        self._running = running
        self._unbegun = unbegun

    def run(self, client: "redis.Redis", *, inboxes: Sequence[str], superseded: bool, rebooted: bool) -> None:
        """Settle what can be settled now, and have the rest waited for in threads.

        `inboxes` are those of former sessions; `superseded` says that sessions elsewhere came after the journal's
        newest: they have put back and may have run what had not left the inbox. `rebooted` says that the machine was
        started again since, so that a spool which is not there proves nothing. Raises redis-py's errors, and may be
        called again after them.
        """
        if superseded:
            for run_id, _item in self._journal.waiting(unsettled=True):
                self._journal.disown(run_id)
                log.info("run.disowned", run=run_id, next="its message was in the broker, for whoever came next")
        left = _run_ids(client, inboxes)
        found = {(each.run_id, each.attempt): each for each in self._children.found()}
        for claim in self._journal.interrupted():
            each = found.pop((claim.run_id, claim.attempt), None)
            not_begun = not each.began if each else not rebooted and self._settling.needs_supervisor(claim)
            untouched = each is None and claim.run_id in left and not superseded
            if (not_begun or untouched) and self._journal.unclaim(claim.run_id, certain=not_begun):
                self._children.forget(claim.run_id, claim.attempt)
                cancel = self._unbegun.requested(claim.run_id)
                if cancel:
                    self._unbegun.cancel(cancel)
                begins = "it was cancelled" if cancel else "it begins now"
                log.info("run.unclaimed", **claim.about, next=f"it had not begun; {begins}")
            else:
                self._take_up(claim, each)
        for each in found.values():
            if not each.running:  # the journal has its end
                self._children.forget(each.run_id, each.attempt)

    def _take_up(self, claim: Claim, found: Found | None) -> None:
        restart = self._settling.restart(claim)
        self._endings.recover(claim, how="spool" if found else restart.value)
        log.warning("run.interrupted", **claim.about, next="spool" if found else restart.value)
        self._running.enter(claim.run_id)
        if cancel := self._unbegun.requested(claim.run_id):
            self._running.end(claim.run_id, EndRequest(Why.CANCELLED, cancel))
        threading.Thread(target=self._settle, args=(claim, found), name=f"recover-{claim.run_id}", daemon=True).start()

    def _settle(self, claim: Claim, found: Found | None) -> None:
        try:
            ending = found.ending if found else None
            if found and found.running:
                self._running.begin(claim.run_id, lambda request: self._end(claim, request))
                ending = self._children.wait(
                    claim.run_id,
                    claim.attempt,
                    on_progress=lambda step, percent: self._endings.progress(claim, step=step, percent=percent),
                )
            request = self._running.requested(claim.run_id)
            if ending is None:
                self._settling.by_contract(claim)
            elif ending.kind == "stopped" and self._is_left(claim, request):
                return  # this session ended it because it stops itself; the next one decides
            else:
                self._settling.by_ending(claim, ending, request)
            if found:
                self._children.forget(claim.run_id, claim.attempt)
        except Exception:  # whatever one run does, it is looked at again by the next session
            log.exception("run.unrecovered", **claim.about)
        finally:
            self._running.leave(claim.run_id)

    def _is_left(self, claim: Claim, stopped: EndRequest | None) -> bool:
        """Say whether the next session settles what this one has stopped; nobody has to decide what was cancelled."""
        return stopped is not None and claim.task != shell.RUN.name and not self._settling.cancelled(claim.run_id)

    def _end(self, claim: Claim, request: EndRequest) -> None:
        self._children.end(claim.run_id, why="cancelled" if request.why is Why.CANCELLED else "stopped")


def hand_back(journal: Journal, client: "redis.Redis", *, host: str, inboxes: Sequence[str]) -> None:
    """Put back into the queue what was taken and has not begun; for the end of a session.

    A message is in the queue before its row is forgotten: killed in between, the next start finds both, and the copy in
    the queue is recognised by the row.
    """
    queue: Any = names.queue(host)
    for run_id, item in journal.waiting():
        client.rpush(queue, item)
        journal.disown(run_id)
        log.info("run.returned", run=run_id, next="it had not begun; it waits in the queue")
    restore(client, queue, inboxes)


def _run_ids(client: "redis.Redis", inboxes: Sequence[str]) -> set[str]:
    """Return the ids of the runs whose messages lie in these inboxes."""
    answers: list[Any] = []
    pipe: Any
    with client.pipeline(transaction=False) as pipe:
        for inbox in inboxes:
            pipe.execute_command("LRANGE", inbox, 0, -1, **{NEVER_DECODE: True})  # foreign bytes, maybe
        answers = pipe.execute() if inboxes else []
    found = set()
    for item in (item for answer in answers for item in answer):
        try:
            found.add(json.loads(item)["headers"]["id"])
        except (ValueError, KeyError, TypeError):
            continue  # the guard puts it aside when it comes again
    return found
