"""What trust costs on the way of a task: `python -m tests.bench.trust`.

A real fleet carries out no-ops, and the median of push → result is taken; then, in the same run and with a message and
a result of that fleet, each check on that way is timed by itself: the caller's signatures over the message and its
report, the host's checks of signature and of whether it has seen the run, its signatures over result and reports, the
caller's check of the result. Printed in microseconds and as a share of the round trip. The bar is 20 %.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from fleet import credentials, names
from fleet.dispatch.signer import Signer
from fleet.security import signing
from fleet.security.keys import KeyPair
from tests.services import benched
from tests.services.sessions import Session
from tests.services.system import System

ROUND_TRIPS = 300
TIMES = 1000
HOST = "bench"


def median_of(act: Callable[[], object], times: int = TIMES) -> float:
    """Return the median time of a call, in microseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


def main() -> None:
    with ExitStack() as stack:
        directory, broker = stack.enter_context(benched.place())
        system, _worker = stack.enter_context(benched.one_host(directory, broker, host=HOST))
        task = system.fleet.dispatcher.task("fleet.host.ping")
        task.apply_async(host=HOST).get(timeout=30)
        round_trip = median_of(lambda: task.apply_async(host=HOST).get(timeout=30), ROUND_TRIPS)
        last = task.apply_async(host=HOST)
        last.get(timeout=30)
        run_id = last.id

        meta = json.loads(system.redis.get(names.result(run_id)))
        message = json.loads(system.record(run_id, state="succeeded").message or captured(system, run_id))
        path = system.settings.principal_path("alice")
        signer = Signer(credentials.load_principal(path, name="alice"), path)
        held = credentials.load(system.settings.credential_path(HOST), host=HOST)
        key = KeyPair.read(held.private_key.get_secret_value())
        form = (message["content-type"], message["content-encoding"])
        report = json.dumps({"report": "x" * 300})
        journal = Session(directory / "journal.db")
        stack.callback(journal.close)
        known = journal.accept()

        steps = {
            "caller signs the message": lambda: signer.sign_message(message),
            "caller signs its report": lambda: signer.report("p:alice", report + "x" * 1500),
            "host checks the message": lambda: signing.check_message(
                message["headers"], message["body"], form=form, trust=signer.trust
            ),
            "host looks whether it has seen it": lambda: journal.offer(known),
            "host signs the result": lambda: signing.sign_result(meta, key, held.credential),
            "host signs three reports": lambda: signing.sign_reports(HOST, (report,) * 3, key),
            "caller checks the result": lambda: signer.check_result(meta, run_id),
        }
        print(f"{'push → result, p50':36}{round_trip:10.0f} µs")
        total = 0.0
        for name, act in steps.items():
            taken = median_of(act)
            total += taken
            print(f"{name:36}{taken:10.0f} µs{taken / round_trip:9.1%}")
        print(f"{'all of it':36}{total:10.0f} µs{total / round_trip:9.1%}   bar 20 %")


def captured(system: System, run_id: str) -> str:
    """Return the message of a run as it lay in the queue: pushed again to a host that takes nothing."""
    system.enroll("silent")
    run = system.fleet.push("fleet.host.ping", on="silent", offline="queue").run_ids[0]
    assert run != run_id
    return str(system.redis.lindex(names.queue("silent"), 0))


if __name__ == "__main__":
    main()
