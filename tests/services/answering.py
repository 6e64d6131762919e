"""A host without a worker: a thread that takes tasks about files from its queue and answers them under a grant.

The whole way of a task is tested elsewhere; here is what the other end of a command needs.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet import canonical, errors, names
from fleet.broker import results
from fleet.contracts import registry
from fleet.security import signing
from tests import factories
from tests.services.broker import Broker
from tests.services.granted_files import Grant
from workers.host.files.never import Never
from workers.host.replies import checked_reply
from workers.host.tasks.files import FileTasks, GrantedFiles


@dataclass(frozen=True)
class _Run:
    """What a performer is told."""

    run_id: str

    def ended(self) -> bool:
        return False


@contextmanager
def answering(broker: Broker, host: str, root: Path, *, most_bytes: int) -> Iterator[None]:
    """Have a host that is connected and grants one directory, until the block ends."""
    tasks = FileTasks(notes=root.with_name(f"{host}-putting"), never=Never(()))
    performers: Any = GrantedFiles(tasks, lambda *_: Grant(str(root), most_bytes)).performers()
    over = threading.Event()

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        run_id, contract = message["headers"]["id"], registry.get(message["headers"]["task"])
        request = contract.parse(canonical.read(message["body"])[1])
        done = "2026-01-01T00:00:00+00:00"
        try:
            reply = checked_reply(contract, performers[contract.name](request, _Run(run_id)))
        except errors.TaskFailed as exc:
            return results.failure_meta(run_id, state="failed", kind=exc.kind, message=str(exc), date_done=done)
        return results.success_meta(run_id, reply, date_done=done)

    def serve() -> None:
        with broker.connect() as client:
            credential = factories.ring().issue(factories.identity(host))
            while not over.is_set():
                taken: Any = client.brpop([names.queue(host)], timeout=0.2)
                if taken:
                    meta = answer(json.loads(taken[1]))
                    signed = signing.sign_result(meta, factories.key(host), credential)
                    client.set(names.result(meta["task_id"]), signed)
                    client.publish(names.result(meta["task_id"]), signed)

    with broker.connect() as client:
        client.hset(names.HOSTS, host, factories.entry(host))
        client.set(names.presence(host), "{}")
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
