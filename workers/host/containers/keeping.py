"""Keeping secrets on the host: files on a tmpfs for as long as their container is there, and ciphertext on the disk.

    <secrets_dir>/<host>/<run>/            0700 up to here, root's; this one is bound into the container, read-only
        db-password                        0400, the container's user's
    <state_dir>/hosts/<host>/secrets/<run>.json    the same, sealed to a key of this host, to make the files again

After a reboot the tmpfs is empty, and the Engine could not start those containers: `reconcile` writes the files again,
and removes what belongs to no container any more.
"""

import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from fleet import credentials, errors, logs
from fleet.contracts.secrets import pack, unpack
from fleet.security import sealing
from fleet.security.keys import KeyPair
from fleet.security.sealing import Opener

log = logs.get(__name__)

#: What the host's own key follows from its file by, see `sealing.Opener.of`.
_KEEPS = "fleet secrets of containers"
#: File systems that lie in memory. Both may be swapped out where the machine has swap that is not encrypted.
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_HALF = "."
_OWNERS_ALONE, _TO_PASS_THROUGH, _TO_READ = 0o700, 0o755, 0o400


class Kept(BaseModel):
    """One container's secrets as they lie on the disk."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str
    docker_id: str
    uid: int
    gid: int
    #: JWE of a JSON object, file name → content in base64
    sealed: str


class SecretFiles:
    """The files of one host's containers. Thread-safe."""

    def __init__(self, directory: Path, state: Path) -> None:
        """`directory` must come to lie on a tmpfs, `state` is the host's; neither is touched before it is needed."""
        #: where the files lie; on a tmpfs
        self.directory = directory
        self._state = state / "secrets"
        self._key_path = state / "secrets.key"
        self._lock = threading.RLock()
        self._opener: Opener | None = None
        #: runs that make a container at the moment
        self._in_hand: set[str] = set()

    @property
    def opener(self) -> Opener:
        """What opens texts for this host's containers; its key is made when first needed."""
        with self._lock:
            if self._opener is None:
                self._opener = Opener.of(_key(self._key_path), purpose=_KEEPS)
            return self._opener

    def require_memory(self) -> None:
        """Raise `errors.LocalFault` where the files would lie on a disk."""
        place = self.directory.resolve()
        mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
        holder = next((parent for parent in (place, *place.parents) if parent in mounts), None)
        if holder is None or mounts[holder] not in _IN_MEMORY:
            raise errors.LocalFault(
                f"secrets directory {self.directory}: it is not on a tmpfs, so secrets would lie on a disk",
                remedy="mount one there, or name a directory on one: FLEET_SECRETS_DIR",
            )

    def write(self, run_id: str, values: Mapping[str, bytes]) -> Path:
        """Write a run's files, for root alone; return the directory that is to be bound into its container."""
        self.require_memory()
        with self._lock, self._translated():
            self._in_hand.add(run_id)
            return self._write(run_id, values, uid=os.geteuid(), gid=os.getegid())

    def settle(self, run_id: str, *, docker_id: str, uid: int, gid: int) -> None:
        """Give the files to the container's user, and keep what makes them again, before the container starts."""
        with self._lock, self._translated():
            place = self._place(run_id)
            values = {each.name: each.read_bytes() for each in place.iterdir()}
            _own(place, uid, gid)
            kept = Kept(run=run_id, docker_id=docker_id, uid=uid, gid=gid, sealed=self._seal(values))
            credentials.write_private(
                self._record(run_id), kept.model_dump_json(), what="secrets", remedy="free some space"
            )

    def done(self, run_id: str) -> None:
        """The run is over: what of it belongs to no container may go from now on."""
        with self._lock:
            self._in_hand.discard(run_id)

    def discard(self, run_id: str) -> None:
        """Remove everything of one run."""
        with self._lock:
            self._in_hand.discard(run_id)
            place = self._place(run_id)
            for each in (place, _half(place)):
                shutil.rmtree(each, ignore_errors=True)
            self._record(run_id).unlink(missing_ok=True)

    def reconcile(self, runs: Collection[str], *, is_there: Callable[[str], bool]) -> list[Kept]:
        """Leave the files of these runs alone, those whose containers are there; return whose were written again.

        A list of containers may be older than what has been made since, so `is_there` is asked (with the last part of
        the run's id) before anything is removed.
        """
        with self._lock:
            in_hand = {_name(run) for run in self._in_hand}
            there = {_name(run) for run in runs} | in_hand
            for stray in {
                *_listed(self.directory),
                *(name.removesuffix(".json") for name in _listed(self._state)),
            } - there:
                if not is_there(stray):
                    shutil.rmtree(self.directory / stray, ignore_errors=True)
                    (self._state / f"{stray}.json").unlink(missing_ok=True)
                    log.info("secrets.removed", run=stray)
            for half in _listed(self.directory, halves=True) - {f"{_HALF}{name}" for name in in_hand}:
                shutil.rmtree(self.directory / half, ignore_errors=True)
            lost = [run for run in runs if not self._place(run).exists() and self._record(run).exists()]
            return [kept for run in lost if (kept := self._restore(run))]

    def values(self) -> set[bytes]:
        """Return the values of all containers' secrets that lie here at the moment, and the key that opens them."""
        places = [self.directory / name for halves in (False, True) for name in _listed(self.directory, halves=halves)]
        found: set[bytes] = set()
        for path in (self._key_path, *(place / name for place in places for name in _listed(place))):
            with suppress(OSError):  # removed meanwhile, or never made
                found.add(path.read_bytes().strip())
        return found

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise errors.LocalFault(
                f"secrets directory {self.directory}: {exc.strerror}",
                remedy="secrets take a worker that is root, and room on that tmpfs (FLEET_SECRETS_DIR)",
            ) from exc

    def _restore(self, run_id: str) -> Kept | None:
        try:
            kept = Kept.model_validate_json(credentials.read_private(self._record(run_id), what="secrets"))
            values = unpack(self.opener.open(kept.sealed))
            self.require_memory()
            self._write(run_id, values, uid=kept.uid, gid=kept.gid)
        except (ValidationError, ValueError, OSError, errors.FleetError) as exc:
            log.warning("secrets.lost", run=run_id, error=str(exc), next="make the container anew")
            return None
        log.info("secrets.restored", run=run_id)
        return kept

    def _write(self, run_id: str, values: Mapping[str, bytes], *, uid: int, gid: int) -> Path:
        place = self._place(run_id)
        self.directory.mkdir(mode=_OWNERS_ALONE, parents=True, exist_ok=True)
        self.directory.chmod(_OWNERS_ALONE)
        half = _half(place)
        for each in (place, half):
            shutil.rmtree(each, ignore_errors=True)
        try:
            half.mkdir(mode=_TO_PASS_THROUGH)
            half.chmod(_TO_PASS_THROUGH)  # whatever the umask is
            for name, value in values.items():
                descriptor = os.open(half / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _TO_READ)
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(value)
            _own(half, uid, gid)
            half.rename(place)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        return place

    def _seal(self, values: Mapping[str, bytes]) -> str:
        return sealing.seal(pack(values), self.opener.public)

    def _place(self, run_id: str) -> Path:
        return self.directory / _name(run_id)

    def _record(self, run_id: str) -> Path:
        return self._state / f"{_name(run_id)}.json"


def _name(run_id: str) -> str:
    """Return the part of a run id that is its own; the rest names the host."""
    return run_id.rpartition(":")[2]


def _half(place: Path) -> Path:
    """Return where a directory lies that is not whole yet."""
    return place.with_name(f"{_HALF}{place.name}")


def _listed(directory: Path, *, halves: bool = False) -> set[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return {each.name for each in directory.iterdir() if each.name.startswith(_HALF) is halves}
    return set()


def _own(place: Path, uid: int, gid: int) -> None:
    for each in place.iterdir():
        os.chown(each, uid, gid, follow_symlinks=False)
        each.chmod(_TO_READ)


def _key(path: Path) -> KeyPair:
    try:
        return KeyPair.read(credentials.read_private(path, what="key of secrets"))
    except FileNotFoundError:
        key = KeyPair.generate()
        credentials.write_private(
            path, key.secret().get_secret_value(), what="key of secrets", remedy="mend that, or set another directory"
        )
        return key
