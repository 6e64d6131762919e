"""The functions of `offered_contracts`."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from offered_contracts import Act, Done

from fleet import errors
from fleet.contracts import RunContext

print("written while it was imported, and not by any run")


def note(path: str, text: str) -> None:
    """Append a line in one write, so that no two get mixed."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(log, f"{text}\n".encode())
    os.close(log)


def effect(request: Act, run: RunContext) -> Done:
    note(request.log, f"{run.run_id} {run.attempt}")
    select.select([], [], [], request.seconds)  # libfaketime breaks time.sleep
    return Done(said="done")


again = returned = effect


def held(request: Act, run: RunContext) -> Done:
    """Go on when somebody has made the file `.go` beside the log."""
    note(request.log, f"{run.run_id} {run.attempt}")
    while not Path(f"{request.log}.go").exists():
        time.sleep(0.05)
    return Done(said="done")


held_again = held


def fail(request: Act, run: RunContext) -> Done:
    note(request.log, f"{run.run_id} {run.attempt}")
    raise errors.TaskFailed("it cannot be done", kind="impossible")


def fail_twice(request: Act, run: RunContext) -> Done:
    note(request.log, f"{run.run_id} {run.attempt}")
    if run.attempt <= 2:
        raise errors.TaskFailed("not yet", kind="early")
    return Done(said=f"attempt {run.attempt}")


def exit(request: Act, _run: RunContext) -> Done:  # noqa: A001 - named for what it does
    os._exit(3)


def wrong_reply(_request: Act, _run: RunContext) -> Any:
    return {"said": "no reply of the contract"}


def large_reply(_request: Act, _run: RunContext) -> Done:
    return Done(said="x" * 300_000)


class Odd(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def odd_error(_request: Act, _run: RunContext) -> Done:
    raise Odd


def eat_memory(_request: Act, _run: RunContext) -> Done:
    eaten = []
    while True:
        eaten.append(bytearray(16 * 1024 * 1024))


def shout(request: Act, run: RunContext) -> Done:
    note(request.log, f"{run.run_id} {run.attempt}")
    sys.stdout.write("the first words\n")
    for _ in range(request.count):
        sys.stdout.write("x" * 1024 * 1024)
    sys.stdout.write("\nthe last words\n")
    return Done(said="done")


def stubborn(request: Act, run: RunContext) -> Done:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(request.log, f"{run.run_id} {run.attempt}")
    time.sleep(request.seconds)
    note(request.log, "late")
    return Done(said="done")


def tidy(request: Act, run: RunContext) -> Done:
    try:
        note(request.log, f"{run.run_id} {run.attempt}")  # whoever has read it may have this ended at once
        time.sleep(request.seconds)
    except errors.SoftTimeLimit:
        note(request.log, "warned")
        if request.count:
            return Done(said="in time")
        raise
    finally:
        note(request.log, "tidied")
    return Done(said="done")


def fork_away(request: Act, _run: RunContext) -> Done:
    """Start a process that leaves the session and the process group, and outlives this one."""
    script = f"import os, time; os.setsid(); open({request.log!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", script])
    while not Path(request.log).exists() or not Path(request.log).read_text():
        time.sleep(0.01)
    time.sleep(request.seconds)
    return Done(said="done")


def kill_supervisor(request: Act, run: RunContext) -> Done:
    note(request.log, str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return Done(said="never")


def kill_worker(request: Act, run: RunContext) -> Done:
    """Kill the process whose number stands in the file beside the log, and the own supervisor with it."""
    note(request.log, f"{run.run_id} {run.attempt}")
    while True:
        number = Path(f"{request.log}.worker").read_text()
        try:
            os.kill(int(number), signal.SIGKILL)
            break
        except (ProcessLookupError, ValueError):  # the former worker's, or none: this one's is yet to be written
            time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return Done(said="never")


def close_everything(_request: Act, _run: RunContext) -> Done:
    os.closerange(0, 1024)
    return Done(said="nobody hears it")


def tell_steps(_request: Act, run: RunContext) -> Done:
    for number in range(1000):
        run.progress(f"step {number}", number / 10)
    run.progress("last", 100)
    return Done(said="done")


def show_environment(_request: Act, _run: RunContext) -> Done:
    return Done(said=" ".join(sorted(os.environ)))


def orphan(request: Act, _run: RunContext) -> Done:
    """Kill the supervisor, and leave a process that has left session and group behind."""
    script = f"import os, time; os.setsid(); open({request.log!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", script])
    while not Path(request.log).exists() or not Path(request.log).read_text():
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return Done(said="never")


def write_everywhere(_request: Act, _run: RunContext) -> Done:
    """Write what is no message into every descriptor there is, the one that messages go through among them."""
    nonsense = [b"[1, 2]", b"5", b'"reply"', b"null", b'{"reply": 1}', b'{"error": []}', b'{"progress": {}}', b"\xff"]
    nonsense += [b'{"reply": {"said": NaN}}', b"[" * 100_000, b'{"progress": ["x", 1e999]}']
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\n".join(nonsense) + b"\n")
        except OSError:
            continue
    return Done(said="done")


def tell_two_steps(request: Act, run: RunContext) -> Done:
    run.progress("first", 1)
    run.progress("second", 2)
    time.sleep(request.seconds)
    return Done(said="done")


def tell_nonsense(_request: Act, run: RunContext) -> Done:
    run.progress("half", "50 %")
    return Done(said="done")


def flee_by_forking(request: Act, _run: RunContext) -> Done:
    """Leave a process that is always a new one: it forks and ends, again and again, for twenty seconds at most."""
    until = time.monotonic() + 20
    if os.fork() == 0:
        os.setsid()
        while time.monotonic() < until:
            if os.fork() != 0:
                os._exit(0)
            Path(request.log).write_text(str(os.getpid()))
        os._exit(0)
    while not Path(request.log).exists():
        time.sleep(0.01)
    return Done(said="done")


def say_when(_request: Act, _run: RunContext) -> Done:
    return Done(said=str(time.monotonic()))
