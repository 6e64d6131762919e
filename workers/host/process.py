"""Process: the one place of the workers that starts processes. It starts zygotes; those fork what there is to run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from fleet import environment

#: The zygote's program. `-P`: a file `redis.py` in somebody's directory is not the library.
_CODE = "import sys; from fleet import services; sys.exit(services.load('workers.host.zygote').main(*sys.argv[1:]))"
_END_WITHIN_SECONDS = 2.0


class Zygote:
    """A running zygote, and the socket on which it is told what to fork."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        """Start it; raises OSError."""
        self._socket, its = socket.socketpair(type=socket.SOCK_SEQPACKET)  # a message is a message
        with its:
            # A session of its own: what the terminal or a supervisor sends to the worker's group is not meant for runs.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-c", _CODE, str(its.fileno()), *arguments],
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment.for_tasks(),
            )

    def hello(self, *, timeout: float) -> bytes | None:
        """Return what it says when it has imported everything; None where nothing came in time."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(65536) or None
        except OSError:
            return None
        finally:
            self._socket.settimeout(None)

    def fork(self, spool: Path, worker: socket.socket, *, lock: int) -> None:
        """Have it fork a supervisor for a spool, with an end of a socket to the worker; raises OSError."""
        socket.send_fds(self._socket, [os.fsencode(spool)], [worker.fileno(), lock])

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it by force; its supervisors go on."""
        self._process.kill()
        self.ends_within(_END_WITHIN_SECONDS)

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, and return whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Let it end; it does so when its last supervisor has."""
        self._socket.close()
        self.ends_within(_END_WITHIN_SECONDS)
