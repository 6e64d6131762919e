"""The state directory of `fleet up`: one `fleet up` at a time, and a file by which everybody on the machine finds it.

`fleet.toml` in it (mode 0600) says where the broker is; `fleet.configuration` reads it after everything the user has
set. It stays when `fleet up` ends: the next start takes its ports and password from there, and a command in between
says that the broker is not running instead of asking for an address.
"""

import fcntl
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleet import errors
from fleet.configuration import STATE_FILE

LOCK = "up.lock"


class StateDirectory:
    """A directory of mode 0700; raises `errors.LocalFault` where it cannot be made or written."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        with self._translated():
            for folder in (self.path, self.logs, self.broker):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def logs(self) -> Path:
        return self.path / "log"

    @property
    def file(self) -> Path:
        return self.path / STATE_FILE

    @property
    def broker(self) -> Path:
        return self.path / "broker"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for one `fleet up`; the kernel lets go when the process ends, however it ends.

        Raises `errors.LocalFault` where another one holds it, with its pid.
        """
        with self._translated():
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
                raise errors.LocalFault(
                    f"`fleet up` is running already on {self.path} (pid {holder})",
                    remedy="use it, end it, or give this one a directory of its own: FLEET_STATE_DIR=…",
                ) from exc
            with self._translated():
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(lock)

    def remembered(self) -> dict[str, Any]:
        """Return what the last start left, or nothing; raises `errors.LocalFault` where it cannot be read."""
        path = self.file
        if not path.is_file():
            return {}
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise errors.LocalFault(
                f"{path} cannot be read ({exc})", remedy="remove it: `fleet up` writes it anew"
            ) from exc

    def remember(self, values: Mapping[str, str | int]) -> None:
        """Leave settings for everybody who reads this directory."""
        lines = [
            "# Written by `fleet up`: how commands and programs on this machine find it. Settings of your own belong",
            "# into ./fleet.toml, /etc/fleet/fleet.toml or the environment; they come first.",
            # A JSON string or number is a TOML one.
            *(f"{name} = {json.dumps(value)}" for name, value in values.items()),
        ]
        self.write(STATE_FILE, "\n".join(lines) + "\n")

    def write(self, name: str, text: str) -> Path:
        """Write a file of mode 0600 whole or not at all; `name` may lie in a subdirectory."""
        path = self.path / name
        with self._translated():
            descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(draft).replace(path)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        return path

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise errors.LocalFault(
                f"the state directory {self.path} cannot be used ({exc.strerror or exc})",
                remedy="make room or permit it, or choose another one: FLEET_STATE_DIR=…",
            ) from exc
