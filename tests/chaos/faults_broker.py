"""Faults 4, 5 and 6: the broker goes, loses its disk, or cannot be reached."""

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tests.chaos import fleet, network, stock
from tests.chaos.fault import Fault, Scale, each, wait
from tests.chaos.fleet import Host
from tests.chaos.network import Namespace
from tests.chaos.tally import Tally, total
from tests.services.waiting import until

_HOSTS = 3
#: A stock worker that does not come back after a broker kill costs half a minute each time.
_STOCK_ROUNDS = 5

# ── 4: kill -9 of the broker, with its append-only file, under load ──


def _broker_killed(server: Any, hosts: Sequence[Any], random_: random.Random) -> list[float]:
    """Kill the broker while work is pushed and done, and start it again; return how long each host took to go on."""
    for host in hosts:
        host.push_many(15, random_, longest=0.5)
    wait(random_.uniform(0.0, 0.5))
    server.kill()
    for host in hosts:
        host.push_many(1, random_)  # an error to whoever pushes; nothing is owed
    wait(random_.uniform(0.2, 2.0))
    server.start()
    since = time.monotonic()
    before = {host.name: host.effects() for host in hosts}
    for host in hosts:
        until(lambda host=host: host.push(), "the broker takes pushes again", timeout=60)  # type: ignore[misc]
    took = [host.wait_for_effect(since, more_than=before[host.name], timeout=30.0) for host in hosts]
    return [each for each in took if each is not None]


def broker_killed_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        hosts = [arena.host(f"c{number}") for number in range(_HOSTS)]
        for host in hosts:
            host.start_and_wait()
        recovered = [took for seed in seeds for took in _broker_killed(arena.server, hosts, random.Random(seed))]
        tally = total(host.judge() for host in hosts)
    tally.recovered = recovered
    return tally


def broker_killed_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        hosts = [arena.host(f"c{number}") for number in range(_HOSTS)]
        for host in hosts:
            host.start_and_wait()
        recovered = []
        for seed in seeds[:_STOCK_ROUNDS]:
            for host in hosts:
                if host.process.poll() is not None:
                    host.start()  # as its supervisor would
            recovered += _broker_killed(arena.server, hosts, random.Random(seed))
        tally = total(host.judge() for host in hosts)
    tally.recovered = recovered
    return tally


# ── 5: the broker loses its disk ──


def _disk_lost(arena: fleet.Arena, seed: int) -> Tally:
    """Have runs queued, running and done, all of them recorded; then the broker comes back with nothing."""
    random_ = random.Random(seed)
    host, absent = arena.host(f"c{seed}"), arena.host(f"d{seed}")
    host.start_and_wait()
    for _ in range(4):
        host.push(seconds=random_.uniform(0.5, 3.0))
    host.push_many(16, random_)
    absent.push_many(10, random_)
    pushed = [*host.pushed, *absent.pushed]
    until(lambda: len(arena.states(pushed)) == len(pushed), "all pushes are recorded", timeout=30)
    arena.server.lose_disk()
    arena.server.start()
    since = time.monotonic()
    absent.start()
    tally = host.judge() + absent.judge()
    tally.recovered = [time.monotonic() - since]
    host.kill()
    absent.kill()
    return tally


def disk_lost_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with fleet.arena() as arena:
        return total(_disk_lost(arena, seed) for seed in seeds)


def disk_lost_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with stock.arena() as arena:
        hosts = []
        for seed in seeds:
            random_ = random.Random(seed)
            host, absent = arena.host(f"c{seed}"), arena.host(f"d{seed}")
            host.start_and_wait()
            host.push_many(20, random_, longest=1.0)
            absent.push_many(10, random_)
            arena.server.lose_disk()
            arena.server.start()
            absent.start()
            hosts += [host, absent]
        wait(60.0)
        return total(host.judge(patience=1) for host in hosts)


# ── 6: one host cut off ──


def _cut_off(host: Any, namespace: Namespace, how: str, seconds: float, random_: random.Random) -> Tally:
    """Cut a host off while it works; push meanwhile, also what is of no use when the link is back."""
    host.start_and_wait()
    host.push(seconds=2.0)
    host.push_many(4, random_)
    wait(random_.uniform(0.0, 0.5))
    with namespace.cut(how):
        wait(1.0)
        stale = {run for _ in range(2) if (run := host.push(expires=seconds / 2))}
        host.push_many(4, random_)
        wait(seconds - 1.0)
    since = time.monotonic()
    before = host.effects()
    took = host.wait_for_effect(since, more_than=before)
    tally = host.judge() if isinstance(host, Host) else host.judge(never=frozenset(stale))
    # A run that came before its time was over has its effect in spite of the cut; only one that began later is wrong.
    tally.recovered = [took] if took is not None else []
    tally.notes = [f"{how}, {seconds:g} s: {note}" for note in tally.notes]
    return tally


def _duration(seed: int, scale: Scale) -> float:
    """Every fifth seed is cut off for a minute, the last four of a full run for ten; the others for five seconds."""
    if scale.short or (seed % 5 and seed < 17):
        return 5.0
    return 600.0 if seed >= 17 else 60.0


def cut_off_fleet(seeds: Sequence[int], scale: Scale) -> Tally:
    with network.bridge(), ExitStack() as stack:
        # Fleet reaches another machine by TLS only.
        arena = stack.enter_context(fleet.arena(addresses=(network.ADDRESS, "127.0.0.1"), tls=True))
        return _each_cut(arena, seeds, scale, stack, at_once=20)


def cut_off_stock(seeds: Sequence[int], scale: Scale) -> Tally:
    with network.bridge(), ExitStack() as stack:
        arena = stack.enter_context(stock.arena(addresses=(network.ADDRESS, "127.0.0.1")))
        return _each_cut(arena, seeds, scale, stack, at_once=20)


def _each_cut(arena: Any, seeds: Sequence[int], scale: Scale, stack: ExitStack, *, at_once: int) -> Tally:
    hosts, places = [], {}
    for seed in seeds:
        host = arena.host(f"c{seed}")
        namespace = Namespace()
        stack.callback(namespace.end)
        host.prefix = namespace.prefix
        hosts.append(host)
        places[host.name] = (namespace, network.CUTS[seed % len(network.CUTS)], _duration(seed, scale))
    return each(hosts, seeds, lambda host, random_: _cut_off(host, *places[host.name], random_), at_once=at_once)


FAULTS = (
    Fault(
        4,
        "broker kill -9 with its append-only file, under load",
        "0 lost, 0 twice; goes on ≤ 5 s after it is back",
        broker_killed_fleet,
        broker_killed_stock,
    ),
    Fault(
        5,
        "the broker loses its disk",
        "0 lost of what is recorded; what no list has is sent again",
        disk_lost_fleet,
        disk_lost_stock,
    ),
    Fault(
        6,
        "one host cut off for 5 s, 60 s or 10 min (dropped, reset, half-open either way)",
        "0 lost, 0 twice; goes on ≤ 5 s after; expired work does not run",
        cut_off_fleet,
        cut_off_stock,
        short_seeds=4,
    ),
)
