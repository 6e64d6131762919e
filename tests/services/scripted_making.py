"""A process that acts on containers and is killed before each call that changes something on the Engine.

    python -m tests.services.scripted_making URL DIRECTORY SECRETS

Reads lines of JSON, {"task": …, "arguments": …, "run": …, "fatal": n}, forks a child for each, which carries that out
as host "edge" until SIGKILL before its n-th changing call, and writes how the child ended: the signal, negative,
or 0 where it needed fewer calls, 1 where it failed. SECRETS is where secrets lie, on a tmpfs. Nothing of the worker is
replaced but the moment of its death, and who has the values of secrets.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from fleet import errors
from fleet.contracts import registry
from tests.services.containers import KeptSecrets, tasks_and_undoing
from tests.services.runs import FakeRun
from workers.host.containers.engine import Engine
from workers.host.tasks.registry import performers


def _die_before(fatal: int) -> None:
    send, left = requests.Session.send, fatal

    def counted(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        nonlocal left
        if request.method != "GET":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return send(session, request, **options)

    requests.Session.send = counted  # type: ignore[method-assign]


def _lead(url: str, directory: Path, secrets: Path, order: dict[str, Any]) -> int:
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BaseException):
        _die_before(order["fatal"])
        contract = registry.get(order["task"])
        kept = KeptSecrets(secrets, directory)
        tasks, undoing = tasks_and_undoing(Engine(url), directory, secrets=kept, interrupted={order["run"]})
        perform = performers(lambda: None, tasks)[contract.name]  # type: ignore[arg-type,return-value]
        try:
            perform(contract.parse(order["arguments"]), FakeRun(run_id=order["run"]))
        except errors.TaskFailed:
            os._exit(1)
        undoing.look()  # as its thread does next
        os._exit(0)
    os._exit(2)


if __name__ == "__main__":
    for line in sys.stdin:
        print(_lead(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(line)), flush=True)
