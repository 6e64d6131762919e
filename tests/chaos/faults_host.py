"""Faults 7, 8, 10 and 17: the host's clock, its disk, its Docker Engine, its power."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fleet import errors
from tests.chaos import fleet, stock
from tests.chaos.fault import Fault, Scale, each, wait
from tests.chaos.fleet import Host, effects
from tests.chaos.servers import SmallDisk
from tests.chaos.tally import Tally, total
from tests.services.docker import IMAGE, busybox_root
from tests.services.freezing import freeze
from tests.services.private_engine import PrivateEngine
from tests.services.waiting import until

# ── 7: a clock that is ten minutes off ──

_OFF = 600


def _faked(seed: int) -> dict[str, str]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{'+' if seed % 2 else '-'}{_OFF}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _clock(host: Any, random_: random.Random) -> Tally:
    """Push what is valid for a minute, and what is over when the worker comes."""
    stale = {run for _ in range(3) if (run := host.push(expires=1.0))}
    for _ in range(3):
        host.push(expires=60.0)
    host.push_many(3, random_)
    wait(1.5)
    since = host.start()
    took = host.wait_for_effect(since, more_than=0)
    if isinstance(host, Host):
        tally = host.judge(patience=30)
        lines = effects(host.log)
        for run, state in host.arena.states(host.pushed).items():
            if (run in stale) != (state == "expired") or (run in stale and lines[run]):
                tally.wrong += 1
                tally.notes.append(f"{run} is {state}")
    else:
        tally = host.judge(patience=30, never=frozenset(stale))
    tally.recovered = [took] if took is not None else []
    return tally


def clock_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        hosts = [arena.host(f"c{seed}", **_faked(seed)) for seed in seeds]
        return each(hosts, seeds, _clock, at_once=3)


def clock_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        hosts = [arena.host(f"c{seed}") for seed in seeds]
        for host, seed in zip(hosts, seeds, strict=True):
            host.environment = _faked(seed)
        return each(hosts, seeds, _clock, at_once=10)


# ── 8: disk full ──


def _host_disk(host: Host, disk: SmallDisk, random_: random.Random) -> Tally:
    """Fill the disk of a host that works; the worker may end, and is started again when there is space."""
    host.start_and_wait()
    host.push_many(5, random_)
    disk.fill()
    host.push_many(10, random_)
    wait(random_.uniform(1.0, 3.0))
    disk.free()
    assert host.part is not None
    since = time.monotonic()
    before = host.effects()
    with _kept_running(host):
        took = host.wait_for_effect(since, more_than=before)
        host.may_fail = {run for run in host.pushed if not effects(host.log)[run]}  # refused before any effect
        tally = host.judge()
    tally.recovered = [took] if took is not None else []
    return tally


@contextmanager
def _kept_running(host: Host) -> Iterator[None]:
    """Start the worker again whenever it has ended, as systemd would: on a slow machine that takes it a while."""
    stopping = threading.Event()

    def keep() -> None:
        while not stopping.wait(0.1):
            assert host.part is not None
            if host.part.process.poll() is not None:
                host.start()

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        stopping.set()
        keeper.join()


def disk_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with ExitStack() as stack:
        arena = stack.enter_context(fleet.arena())
        hosts, disks = [], {}
        for seed in seeds:
            name = f"c{seed}"
            # Room for eight spools, which take 384 KiB each, and a journal: it is full only when it is filled.
            disk = SmallDisk(arena.directory / "hosts" / name, megabytes=8)
            stack.callback(disk.end)
            disks[name] = disk
            hosts.append(arena.host(name))
        tally = each(hosts, seeds, lambda host, random_: _host_disk(host, disks[host.name], random_), at_once=3)
        stack.callback(arena.end)  # before the disks go
    return tally + _ledger_disk(seeds[0])


def _ledger_disk(seed: int) -> Tally:
    """Fill the disk of the control plane's database: nothing is acknowledged that is not durable."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(_temporary()))
        disk = SmallDisk(directory / "database", megabytes=4)
        stack.callback(disk.end)
        arena = stack.enter_context(fleet.arena(database_url=f"sqlite:///{disk.path / 'fleet.db'}"))
        host = arena.host("ledger")
        host.start_and_wait()
        host.push_many(5, random.Random(seed))
        disk.fill()
        host.push_many(30, random.Random(seed))
        wait(3.0)
        disk.free()
        since = time.monotonic()
        tally = host.judge()
        tally.recovered = [time.monotonic() - since]
        tally.notes = [f"database: {note}" for note in tally.notes]
        return tally


def _temporary() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory(prefix="fleet-chaos-disk-")


# ── 10: the Docker Engine goes, comes, hangs ──


def engine_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    """Restart containers while the Engine is killed, hangs, and comes back; each ends within 10 s with a reason."""
    if why := PrivateEngine.missing():
        raise RuntimeError(why)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(_temporary()))
        engine = PrivateEngine(directory / "e")
        engine.start()
        stack.callback(engine.stop)
        client = engine.client()
        client.api.import_image_from_data(busybox_root(), repository=IMAGE.partition(":")[0], tag="latest")
        client.containers.create(IMAGE, ["/bin/sleep", "3600"], name="busy", stop_signal="SIGKILL")
        client.close()
        arena = stack.enter_context(fleet.arena())
        host = arena.host("c0", FLEET_DOCKER_URL=engine.url)
        host.start_and_wait()
        return total(_engine_fault(arena, host, engine, seed) for seed in seeds)


def _engine_fault(arena: fleet.Arena, host: Host, engine: PrivateEngine, seed: int) -> Tally:
    random_ = random.Random(seed)
    how = ("hangs", "is away")[seed % 2]
    if how == "hangs":
        freeze(engine.daemon_pid)
    else:
        os.kill(engine.daemon_pid, signal.SIGKILL)
        engine.await_end()
    pushed_at = time.monotonic()
    task = arena.system.fleet.dispatcher.task("fleet.containers.start")
    runs = [task.apply_async(kwargs={"container": "busy"}, host="c0") for _ in range(3)]
    tally = Tally(attempted=len(runs), acknowledged=len(runs))
    for run in runs:
        try:
            run.get(timeout=30)
            tally.wrong += 1
            tally.notes.append(f"{how}: succeeded without an Engine")
        except errors.FleetError:
            tally.ok += 1
        except Exception:  # noqa: BLE001 - Celery's own time-out
            tally.lost += 1
    if (took := time.monotonic() - pushed_at) > 12:
        tally.wrong += 1
        tally.notes.append(f"{how}: the reason came after {took:.1f} s")
    wait(random_.uniform(0.0, 1.0))
    since = time.monotonic()
    if how == "hangs":
        os.kill(engine.daemon_pid, signal.SIGCONT)
    else:
        engine.start()

    def works() -> bool:
        try:
            return bool(task.apply_async(kwargs={"container": "busy"}, host="c0").get(timeout=15))
        except errors.FleetError:
            return False

    until(works, "containers can be started again", timeout=60)
    tally.recovered = [time.monotonic() - since]
    client = engine.client()
    if len(client.containers.list(all=True, ignore_removed=True)) != 1:
        tally.duplicated += 1
    client.close()
    return tally


# ── 17: power loss ──


def build_shim(directory: Path) -> Path:
    """Compile the library that remembers what was synced."""
    library = directory / "powerloss.so"
    source = Path(__file__).with_name("powerloss.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def _power(host: Host, shadow: Path, random_: random.Random) -> Tally:
    """Switch a host off in the middle of work, twice: what was not synced is gone. (The third crash ends a run.)"""
    state = host.arena.directory / "hosts" / host.name
    _boot(host)
    host.start_and_wait()
    recovered = []
    for _ in range(2):
        host.push_many(15, random_, longest=0.5)
        wait(random_.uniform(0.1, 0.8))
        host.kill_everything()
        for name in ("journal.db", "journal.db-wal"):
            kept = shadow / (str(state / name).replace("/", "%"))
            (state / name).unlink(missing_ok=True)
            if kept.exists():
                shutil.copyfile(kept, state / name)
        (state / "journal.db-shm").unlink(missing_ok=True)
        _roll_back_spool(state / "spool", shadow, random_)
        _boot(host)
        before = host.effects()
        since = host.start()
        took = host.wait_for_effect(since, more_than=before)
        recovered += [took] if took is not None else []
    tally = host.judge()
    tally.recovered = recovered
    return tally


def _roll_back_spool(spool: Path, shadow: Path, random_: random.Random) -> None:
    """Leave of the spool what was synced: endings. Of the rest, some has reached the disk, and some has not."""
    for directory in spool.iterdir() if spool.is_dir() else ():
        if (shadow / str(directory / ".ending").replace("/", "%")).exists():
            continue
        (directory / "ending").unlink(missing_ok=True)
        if random_.random() < 0.5:
            shutil.rmtree(directory)
        elif random_.random() < 0.5:
            (directory / "output").unlink(missing_ok=True)


def _boot(host: Host) -> None:
    """Have the host's machine be one that was just started, as far as its kernel says so."""
    boot = host.arena.directory / f"boot-{host.name}"
    boot.write_text(f"{uuid.uuid4()}\n")
    told = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    host.prefix = ["unshare", "--mount", "sh", "-c", told, str(boot)]


def power_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        library = build_shim(arena.directory)
        hosts, shadows = [], {}
        for seed in seeds:
            name = f"c{seed}"
            shadow = arena.directory / "shadow" / name
            shadow.mkdir(parents=True)
            shadows[name] = shadow
            watched = arena.directory / "hosts" / name
            hosts.append(
                arena.host(name, LD_PRELOAD=str(library), POWERLOSS_WATCHED=str(watched), POWERLOSS_SHADOW=str(shadow))
            )
        return each(hosts, seeds, lambda host, random_: _power(host, shadows[host.name], random_), at_once=2)


FAULTS = (
    Fault(
        7,
        "the host's clock is 10 minutes off, ahead or behind",
        "nothing dropped early, nothing stale run",
        clock_fleet,
        clock_stock,
        short_seeds=2,
    ),
    Fault(
        8,
        "disk full on the host, and on the control plane",
        "refused before any effect; nothing acknowledged that is not durable",
        disk_fleet,
        why_not="it keeps nothing on the host",
    ),
    Fault(
        10,
        "the Docker Engine is killed, or hangs, and comes back",
        "fails within 10 s with the reason; no second container",
        engine_fleet,
        why_not="it knows nothing of an Engine",
        short_seeds=2,
    ),
    Fault(
        17,
        "the host loses power: its state is what had been synced",
        "no run twice that must not; nothing recorded is forgotten",
        power_fleet,
        why_not="it keeps nothing on the host; the broker's copy is fault 2",
    ),
)
