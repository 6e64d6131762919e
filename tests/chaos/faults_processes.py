"""Faults 1, 2, 3, 14 and 16: what happens to the processes of a host."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet import names
from tests.chaos import fleet, stock
from tests.chaos.fault import Fault, Scale, each, wait
from tests.chaos.fleet import Host
from tests.chaos.stock import StockHost
from tests.chaos.tally import Tally
from tests.services.waiting import until


def _names(seeds: Sequence[int]) -> list[str]:
    return [f"c{seed}" for seed in seeds]


# ── 1: kill -9 before accept ──


def _before_accept(host: Any, random_: random.Random) -> Tally:
    """Freeze the idle worker, push, so that what it asked the broker for comes to nobody; kill it."""
    host.start_and_wait()
    process = host.process if isinstance(host, StockHost) else host.part.process
    wait(random_.uniform(0.2, 1.0))
    os.killpg(process.pid, signal.SIGSTOP)
    host.push_many(5, random_)
    wait(random_.uniform(0.0, 0.3))
    host.kill()
    before = host.effects()
    since = host.start()
    took = host.wait_for_effect(since, more_than=before)
    tally: Tally = host.judge()
    tally.recovered += [took] if took is not None else []
    return tally


def before_accept_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, _before_accept, at_once=2)


def before_accept_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, _before_accept, at_once=10)


# ── 2: kill -9 in the middle of work, at random moments ──

_HOSTS = 4


def _mid_task(host: Any, random_: random.Random, *, kills: int, runs: int) -> Tally:
    """Keep the host busy, and kill its worker's process group again and again."""
    host.start_and_wait()
    stopping = threading.Event()

    def keep_busy() -> None:
        left = runs
        while left and not stopping.is_set():
            part = min(left, 25)
            host.push_many(part, random_, longest=0.1)
            left -= part
            # Ahead of the worker, and not so far that all is queued before the first kill.
            while not stopping.is_set() and host.attempted - host.effects() > 60:
                wait(0.05)

    pushing = threading.Thread(target=keep_busy)
    pushing.start()
    recovered = []
    for _ in range(kills):
        wait(random_.uniform(0.0, 1.5))
        host.kill()
        before = host.effects()
        since = host.start()
        if host.attempted > before:
            took = host.wait_for_effect(since, more_than=before)
            recovered += [took] if took is not None else []
    pushing.join(600)
    stopping.set()
    tally: Tally = host.judge(patience=30)
    tally.recovered = recovered
    return tally


def mid_task_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    kills, runs = scale.of((50, 2500), (4, 120))
    with fleet.arena() as arena:
        hosts = [arena.host(name) for name in _names(seeds)]
        return each(hosts, seeds, lambda h, r: _mid_task(h, r, kills=kills, runs=runs), at_once=2)


def mid_task_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        hosts = [arena.host(name) for name in _names(seeds)]
        return each(hosts, seeds, lambda h, r: _mid_task(h, r, kills=50, runs=2500), at_once=2)


# ── 3: kill -9 after the effect, before its report ──


def _after_effect(host: Any, random_: random.Random) -> Tally:
    host.start_and_wait()
    before = host.effects()
    for _ in range(3):
        host.push(seconds=random_.uniform(0.0, 0.4))
    until(lambda: host.effects() >= before + 1, "an effect", timeout=30)
    host.kill()
    since = host.start()
    tally: Tally = host.judge()
    tally.recovered = [time.monotonic() - since]
    return tally


def after_effect_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, _after_effect, at_once=2)


def after_effect_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    def act(host: StockHost, random_: random.Random) -> Tally:
        tally = _after_effect(host, random_)
        wait(115)  # a copy comes when the visibility timeout is over, whether the first one had its effect or not
        again = host.judge()
        again.recovered = tally.recovered
        return again

    with stock.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, act, at_once=len(seeds))


# ── 14: poison ──

_MALFORMED = (b"\xff\xfe", b"{}", b"[]", b'{"body": 1, "headers": null}', b'{"headers": {"id": "x"}, "properties": {}}')


def _keep_alive(host: Any, stopping: threading.Event) -> None:
    """Start the worker again whenever it has ended, as systemd would."""
    while not stopping.is_set():
        process = host.process if isinstance(host, StockHost) else host.part.process
        if process.poll() is not None:
            host.start()
            _note_worker(host)
        wait(0.1)


def _note_worker(host: Any) -> None:
    """Tell the poison whom to kill."""
    process = host.process if isinstance(host, StockHost) else host.part.process
    Path(f"{host.log}.worker").write_text(str(process.pid))


def _poison_fleet(host: Host, random_: random.Random) -> Tally:
    host.start_and_wait()
    _note_worker(host)
    stopping = threading.Event()
    keeper = threading.Thread(target=_keep_alive, args=(host, stopping))
    keeper.start()
    with host.arena.server.broker.connect() as client:
        for item in _MALFORMED:
            client.lpush(names.queue(host.name), item)
    bad = ["kill_worker", "kill_supervisor", "eat_memory", "exit", "close_everything"]
    random_.shuffle(bad)
    poison = {run for name in bad if (run := host.push(name))}
    if hang := host.push("stubborn", seconds=600, time_limit=2):
        poison.add(hang)
    host.may_fail |= poison
    good = host.push_many(10, random_)
    since = time.monotonic()
    ends = since + fleet.PATIENCE
    while set(host.arena.states(good).values()) != {"succeeded"} and time.monotonic() < ends:
        wait(0.1)
    took = time.monotonic() - since
    tally = host.judge()
    stopping.set()
    keeper.join()
    tally.recovered = [took]
    attempts = [count for run, count in fleet.effects(host.log).items() if run in poison]
    if any(count > 3 for count in attempts):
        tally.wrong += 1
        tally.notes.append(f"poison was begun {max(attempts)} times")
    return tally


def poison_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        hosts = [arena.host(name, FLEET_TASK_MEMORY=str(2**29)) for name in _names(seeds)]
        return each(hosts, seeds, _poison_fleet, at_once=2)


def _poison_stock(host: StockHost, random_: random.Random) -> Tally:
    host.start_and_wait()
    stopping = threading.Event()
    keeper = threading.Thread(target=_keep_alive, args=(host, stopping))
    keeper.start()
    with host.server.broker.connect() as client:
        for item in _MALFORMED:
            client.lpush(host.queue_key, item)
    poison = host.push("kill_worker")
    host.pushed.remove(str(poison))
    good = host.push_many(10, random_)
    since = time.monotonic()
    tally = host.judge()
    stopping.set()
    keeper.join()
    tally.recovered = [time.monotonic() - since] if good and not tally.lost else []
    return tally


def poison_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, _poison_stock, at_once=5)


# ── 16: SIGTERM, twice, KILL ──


def _stop(host: Any, random_: random.Random) -> Tally:
    """Ask the worker to stop while it works and more waits; hurry or kill it, or let it finish; start it again."""
    host.start_and_wait()
    before = host.effects()
    other = "again" if isinstance(host, Host) else "effect"
    long = [host.push(name, seconds=random_.uniform(1.0, 4.0)) for name in ("effect", other, other, other)]
    if isinstance(host, Host):
        host.may_fail |= {run for run in long if run}  # ended by the second signal, and known to be
    host.push_many(12, random_)
    until(lambda: host.effects() > before, "it works", timeout=30)
    wait(random_.uniform(0.0, 0.5))
    process = host.process if isinstance(host, StockHost) else host.part.process
    process.send_signal(signal.SIGTERM)
    how = random_.choice(("finish", "twice", "kill"))
    if how == "twice":
        wait(random_.uniform(0.1, 1.0))
        process.send_signal(signal.SIGTERM)
    elif how == "kill":
        wait(random_.uniform(0.1, 1.0))
        host.kill()
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        host.kill()
        code = None
    before = host.effects()
    since = host.start()
    tally: Tally = host.judge()
    tally.recovered = [time.monotonic() - since]
    if isinstance(host, Host) and how != "kill" and code != 0:
        tally.wrong += 1
        tally.notes.append(f"{how}: the worker ended with {code}")
    return tally


def stop_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, _stop, at_once=3)


def stop_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        return each([arena.host(name) for name in _names(seeds)], seeds, _stop, at_once=10)


FAULTS = (
    Fault(
        1,
        "kill -9 before accept",
        "0 lost, 0 twice; runs ≤ 2 s after the restart",
        before_accept_fleet,
        before_accept_stock,
    ),
    Fault(
        2,
        "kill -9 in the middle of work, at random moments (50 kills and 2,500 tasks a seed)",
        "0 lost, 0 twice; goes on ≤ 2 s after the restart",
        mid_task_fleet,
        mid_task_stock,
        seeds=_HOSTS,
    ),
    Fault(
        3,
        "kill -9 after the effect, before its report",
        "one effect; reported by the next session",
        after_effect_fleet,
        after_effect_stock,
    ),
    Fault(
        14,
        "poison: kills its worker, its supervisor, hangs, eats memory; malformed messages",
        "begun 3 times at most; the queue behind it moves",
        poison_fleet,
        poison_stock,
    ),
    Fault(
        16,
        "SIGTERM with work and a backlog; a second SIGTERM; KILL",
        "finishes or goes on at the next start",
        stop_fleet,
        stop_stock,
    ),
)
