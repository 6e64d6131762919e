"""Faults 9, 11, 12, 13 and 15: the control plane's database and process, copies, a second worker, and floods."""

import os
import random
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from fleet import credentials, errors, names
from fleet.contracts.reports import Kind, Report
from fleet.security import signing
from fleet.security.keys import KeyPair
from tests.chaos import fleet, stock
from tests.chaos.fault import Fault, Scale, each, wait
from tests.chaos.fleet import Arena, Host
from tests.chaos.servers import postgres
from tests.chaos.stock import StockHost
from tests.chaos.tally import Tally, total
from tests.services.freezing import freeze
from tests.services.waiting import until
from workers.host.sender import MOST_TOGETHER

# ── 9 and 13: the database, or the whole control plane, is away ──


def _without(
    arena: Arena,
    seeds: Sequence[int],
    durations: Sequence[float],
    *,
    stop: Callable[[], None],
    start: Callable[[], None],
) -> Tally:
    """Have a host work while a part of the control plane is away, and more wait for a host that is away, too."""
    host, absent = arena.host("c0"), arena.host("d0")
    host.start_and_wait()
    recovered = []
    for seed, seconds in zip(seeds, durations, strict=True):
        random_ = random.Random(seed)
        host.push_many(5, random_, longest=1.0)
        absent.push_many(2, random_)
        stop()
        before = host.effects()
        host.push_many(10, random_, longest=1.0)
        host.wait_for_effect(time.monotonic(), more_than=before)  # hosts need none of it
        wait(seconds)
        start()
        since = time.monotonic()
        pushed = list(host.pushed)
        until(
            lambda pushed=pushed: set(arena.states(pushed).values()) == {"succeeded"},  # type: ignore[misc]
            "the backlog is drained",
            timeout=120,
        )
        recovered.append(time.monotonic() - since)
    absent.start()
    tally = host.judge() + absent.judge()
    tally.recovered = recovered
    return tally


def database_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    durations = [scale.of(3.0, 2.0)] * (len(seeds) - 1) + [scale.of(300.0, 2.0)]
    with postgres() as cluster, fleet.arena(database_url=cluster.url) as arena:
        return _without(arena, seeds, durations, stop=cluster.stop, start=cluster.start)


def control_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    durations = [scale.of(3.0, 2.0)] * (len(seeds) - 1) + [scale.of(600.0, 2.0)]
    with fleet.arena() as arena:
        return _without(arena, seeds, durations, stop=arena.kill_control, start=arena.start_control)


# ── 11: copies of the same message ──


def _copy(client: Any, queue: str, random_: random.Random, *, twice: int, often: int) -> list[bytes]:
    """Put copies among the messages of a queue whose host is away, in any order; return the messages."""
    items: list[bytes] = client.execute_command("LRANGE", queue, 0, -1, NEVER_DECODE=True)
    copies = items[:2] * (twice - 1) + items[2:4] * (often - 1)
    for item in random_.sample(copies, len(copies)):
        (client.lpush if random_.random() < 0.5 else client.rpush)(queue, item)
    return items


def _copies(host: Any, queue: str, random_: random.Random) -> Tally:
    host.push_many(8, random_)
    if isinstance(host, Host):
        pushed = list(host.pushed)
        until(lambda: len(host.arena.states(pushed)) == len(pushed), "all are recorded", timeout=30)
    server = host.server if isinstance(host, StockHost) else host.arena.server
    with server.broker.connect() as client:
        items = _copy(client, queue, random_, twice=2, often=100)
        since = host.start()
        took = host.wait_for_effect(since, more_than=0)
        until(lambda: not client.llen(queue), "the queue is drained", timeout=60)
        for item in items:  # late, when all of them are done
            client.lpush(queue, item)
        until(lambda: not client.llen(queue), "the queue is drained", timeout=60)
    wait(1.0)
    tally: Tally = host.judge()
    tally.recovered = [took] if took is not None else []
    return tally


def copies_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        hosts = [arena.host(f"c{seed}") for seed in seeds]
        return each(hosts, seeds, lambda host, random_: _copies(host, names.queue(host.name), random_), at_once=3)


def copies_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        hosts = [arena.host(f"c{seed}") for seed in seeds]
        return each(hosts, seeds, lambda host, random_: _copies(host, host.queue_key, random_), at_once=5)


# ── 12: a second worker of the same host, while the first is frozen ──


def _frozen_fleet(host: Host, random_: random.Random, *, seconds: float, lapse: bool) -> Tally:
    """Freeze a worker at work, with everything that it started; another machine takes its place; thaw it."""
    arena = host.arena
    host.start_and_wait()
    first = host.part
    assert first is not None
    host.push_many(6, random_, longest=3.0)
    wait(random_.uniform(0.0, 0.5))
    frozen = [*(process.pid for process in host.runs()), first.process.pid]
    freeze(first.process.pid)
    for pid in frozen:
        _signal(pid, signal.SIGSTOP)
    host.push_many(4, random_)
    elsewhere = arena.directory / "elsewhere" / host.name
    copied = elsewhere / "hosts" / host.name / "credential.json"
    copied.parent.mkdir(parents=True)
    shutil.copy2(arena.system.settings.credential_path(host.name), copied)
    if lapse:  # 35 s of silence are what the second one waits for
        with arena.server.broker.connect() as client:
            client.delete(names.presence(host.name))
    host.environment["FLEET_STATE_DIR"] = str(elsewhere)
    begun = time.monotonic()
    host.start()
    before = host.effects()
    host.push_many(4, random_)
    took = host.wait_for_effect(begun, more_than=before, timeout=90)
    wait(max(0.0, seconds - (time.monotonic() - begun)))
    thawed = time.monotonic()
    for pid in reversed(frozen):
        _signal(pid, signal.SIGCONT)
    first.process.wait(30)
    fenced = time.monotonic() - thawed
    host.push_many(2, random_)
    tally = host.judge()
    tally.recovered = [fenced]
    if fenced > 10 or took is None:
        tally.wrong += 1
        tally.notes.append(f"fenced after {fenced:.1f} s, taken over after {took} s")
    return tally


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def frozen_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    seconds = scale.of(120.0, 3.0)
    with fleet.arena() as arena:
        hosts = [arena.host(f"c{seed}") for seed in seeds]
        return each(
            hosts, seeds, lambda h, r: _frozen_fleet(h, r, seconds=seconds, lapse=scale.short), at_once=scale.of(10, 2)
        )


def _frozen_stock(host: StockHost, random_: random.Random) -> Tally:
    host.start_and_wait()
    first = host.process
    host.push_many(10, random_, longest=3.0)
    wait(random_.uniform(0.0, 0.5))
    os.killpg(first.pid, signal.SIGSTOP)
    host.push_many(4, random_)
    host.start()
    wait(120.0)
    os.killpg(first.pid, signal.SIGCONT)
    host.push_many(2, random_)
    return host.judge()


def frozen_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        hosts = [arena.host(f"c{seed}") for seed in seeds]
        return each(hosts, seeds, _frozen_stock, at_once=10)


# ── 15: too much ──

_ARGUMENT = 64 * 1024 * 1024


def _flood(arena: Arena, host: Host, other: Host, seed: int) -> Tally:
    """A huge argument, a huge output, and a host that reports ten thousand things a second; others are not affected."""
    random_ = random.Random(seed)
    refused = Tally()
    try:
        arena.system.fleet.push("fleet.host.ping", on=host.name, arguments={"echo": "x" * _ARGUMENT})
    except errors.UsageError:
        pass
    else:
        refused.wrong, refused.notes = 1, ["64 MiB were taken"]
    host.push("shout", count=1024)
    stopping = threading.Event()
    flooding = threading.Thread(target=_report, args=(arena, host.name, stopping))
    flooding.start()
    before = other.effects()
    since = time.monotonic()
    other.push_many(10, random_)
    took = other.wait_for_effect(since, more_than=before)
    pushed = list(other.pushed)
    until(lambda: set(arena.states(pushed).values()) == {"succeeded"}, "the others' runs are done", timeout=60)
    stopping.set()
    flooding.join()
    refused.recovered = [took] if took is not None else []
    return refused


def _report(arena: Arena, host: str, stopping: threading.Event) -> None:
    """Report steps of a run that nobody knows, 10,000 a second, signed, as a host that has gone mad would."""
    run = f"{host}:{uuid.uuid4()}"
    held = credentials.load(arena.system.settings.credential_path(host), host=host)
    key = KeyPair.read(held.private_key.get_secret_value())
    number = 0
    with arena.server.broker.connect() as client:
        while not stopping.is_set():
            begun = time.monotonic()
            items = []
            for _ in range(1000):
                number += 1
                data = {"step": f"{number}", "percent": None}
                report = Report(
                    sender=host, epoch=10**9, seq=number, kind=Kind.RUN_PROGRESSED, run=run, at=time.time(), data=data
                )
                items.append(report.model_dump_json())
            together = (items[begin : begin + MOST_TOGETHER] for begin in range(0, len(items), MOST_TOGETHER))
            client.lpush(names.reports(host), *(signing.sign_reports(host, texts, key) for texts in together))
            client.sadd(names.REPORTS_DIRTY, host)
            stopping.wait(max(0.0, 0.1 - (time.monotonic() - begun)))


def flood_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        hosts = [arena.host("c0"), arena.host("d0")]
        for host in hosts:
            host.start_and_wait()
        tally = total(_flood(arena, *hosts, seed) for seed in seeds)
        return tally + total(host.judge(patience=180) for host in hosts)


FAULTS = (
    Fault(
        9,
        "the database is down, 3 s nineteen times and 5 min once",
        "work goes on; the backlog is drained ≤ 60 s after",
        database_fleet,
        why_not="it has no record",
    ),
    Fault(
        11,
        "the same message 2 and 100 times, reordered, late",
        "one effect",
        copies_fleet,
        copies_stock,
    ),
    Fault(
        12,
        "two workers of one host; one frozen for 2 min and thawed",
        "one effect; the older one ends ≤ 10 s after",
        frozen_fleet,
        frozen_stock,
    ),
    Fault(
        13,
        "the control plane is down, 3 s nineteen times and 10 min once",
        "hosts go on; no false unknown",
        control_fleet,
        why_not="it has none",
    ),
    Fault(
        15,
        "a 64 MiB argument, 1 GB of output, 10,000 reports/s from one host",
        "refused; cut; others are not affected",
        flood_fleet,
        why_not="it has no limits to compare",
        seeds=5,
    ),
)
