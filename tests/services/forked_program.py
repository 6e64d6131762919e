"""`fleet` as a program for scripts of tests: whoever finds it in their path starts a fork (`tests.services.forks`).

A command then takes the start of a bare interpreter, and not that of all that Fleet stands on. What goes on is started
for itself, as ever: who looks at it from outside sees what it is.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import forks

#: Commands that go on, or look after what does.
_SERVICES = ("api", "control", "flower", "up", "worker")
#: The program: it hands over what it was given, passes signals on, and ends as the fork does.
_PROGRAM = """\
#!{python} -SE
import json, os, signal, socket, sys
words = sys.argv[1:]
if words[:1] and words[0] in {services!r}:
    os.execv({python!r}, [{python!r}, "-m", "fleet", *words])
mask = os.umask(0o77)
os.umask(mask)
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {largest})
link.connect({door!r})
given = dict(words=words, env=dict(os.environ), cwd=os.getcwd(), umask=mask)
socket.send_fds(link, [json.dumps(given).encode()], [0, 1, 2])
fork = int(link.recv(64))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _frame: os.kill(fork, number))
code = int(link.recv(64))
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def program(directory: Path) -> Iterator[None]:
    """Have a program `fleet` in a directory for as long as the block lasts."""
    door = f"\0fleet-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(door)
        listener.listen()
        place = directory / "fleet"
        place.write_text(_PROGRAM.format(python=sys.executable, services=_SERVICES, largest=forks.LARGEST, door=door))
        place.chmod(0o755)
        serving = threading.Thread(target=_serve, args=(listener,), daemon=True)
        serving.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is over
        while True:
            link, _address = listener.accept()
            threading.Thread(target=_carry_out, args=(link,), daemon=True).start()


def _carry_out(link: socket.socket) -> None:
    """Start what is asked for, and say how it ended, unless nobody waits for that any more."""
    with contextlib.ExitStack() as opened:
        opened.enter_context(link)
        message, descriptors, _flags, _address = socket.recv_fds(link, forks.LARGEST, 3)
        files = [opened.enter_context(os.fdopen(each, "r+b", buffering=0)) for each in descriptors]
        given = json.loads(message)
        stdin, output, errors = files
        process = forks.start(
            given["words"],
            env=given["env"],
            cwd=given["cwd"],
            umask=given["umask"],
            stdin=stdin,
            output=output,
            errors=errors,
        )
        with contextlib.suppress(BrokenPipeError):
            link.send(str(process.pid).encode())
            link.send(str(process.wait()).encode())
