"""A Docker Engine of a test's own, in namespaces of its own: bridges, DNS and published ports really work.

The daemon gets a network, a mount and a process namespace, so it owns `docker0`, the iptables rules and every port in
there, whatever else this machine runs; when it ends, the kernel removes them all with it, the containers included.
What a container publishes is reached from inside that network only: `inside()` runs a program there.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import docker

#: Debian's dockerd answers after 0.4 s on an idle machine with two cores.
_START_SECONDS = 30
_STOP_SECONDS = 30
_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class PrivateEngine:
    """One dockerd below one directory.  `url` is its socket; `stop()` leaves nothing of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "dockerd.log"
        self.socket = directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self._daemon = 0

    @staticmethod
    def missing() -> str:
        """Return why no Engine can be started here, or an empty string."""
        if os.geteuid() != 0:
            return "starting a Docker Engine takes root"
        lacking = [
            name for name in ("dockerd", "containerd", "iptables", "unshare", "nsenter") if not shutil.which(name)
        ]
        return f"not installed: {', '.join(lacking)}" if lacking else ""

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        script = (
            'ip link set lo up; exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/dockerd.pid"'
            ' --host "unix://$0/docker.sock"'
        )
        notify = self.directory / "notify.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications, self._log.open("wb") as log:
            notifications.bind(str(notify))
            self._process = subprocess.Popen(
                [*_NAMESPACES, "sh", "-c", script, str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "NOTIFY_SOCKET": str(notify)},
            )
            self._await_ready(notifications)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._daemon = int(children.split()[0])

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, timeout=120)

    def inside(self, argv: Sequence[str], *, timeout_seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a program in the Engine's network, where the published ports are."""
        return subprocess.run(
            ["nsenter", "--target", str(self._daemon), "--net", *argv],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    @property
    def daemon_pid(self) -> int:
        """Process id of dockerd, as this machine counts."""
        return self._daemon

    def await_end(self) -> None:
        """Wait for a daemon that was killed; its data stays, and `start` begins on it again."""
        assert self._process is not None
        self._process.wait(_STOP_SECONDS)
        for leftover in ("docker.sock", "notify.sock", "dockerd.pid"):
            (self.directory / leftover).unlink(missing_ok=True)
        # As at a boot. The process number in there may be somebody else's in the next namespace, where numbers are
        # small, and the next dockerd would take that for its containerd and wait for it in vain.
        shutil.rmtree(self.directory / "exec", ignore_errors=True)

    def stop(self) -> None:
        """End the daemon, its containers and its network, and remove its directory; a second call does nothing."""
        if self._process is not None:
            self.end()
            self.remove()

    def remove(self) -> None:
        """Remove the directory of an Engine that has ended."""
        shutil.rmtree(self.directory)

    def end(self) -> None:
        """End the daemon, its containers and its network; its directory stays."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._daemon and process.poll() is None:
            os.kill(self._daemon, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        if process.poll() is None:
            # `--kill-child`: the first process of the namespace goes with this one, and with it all the others.
            process.kill()
        process.wait()

    def _await_ready(self, notifications: socket.socket) -> None:
        """Wait until the daemon says READY=1, as it does to systemd, or ends."""
        assert self._process is not None
        ended = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()  # a test process may have more descriptors open than select(2) takes
            for descriptor in (notifications.fileno(), ended):
                poll.register(descriptor, select.POLLIN)
            readable = {descriptor for descriptor, _event in poll.poll(_START_SECONDS * 1000)}
        finally:
            os.close(ended)
        if notifications.fileno() not in readable or b"READY=1" not in notifications.recv(4096):
            log = self._log.read_text(errors="replace")
            self.stop()
            raise AssertionError(f"dockerd does not start:\n{log[-3000:]}")
