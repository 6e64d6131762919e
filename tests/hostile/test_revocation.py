"""Revocation and rotation: who is put out is out within two seconds, and new keys lose nothing and repeat nothing."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from fleet import errors, members, names
from fleet.contracts.envelope import HEADER
from fleet.security.identity import Level
from tests.hostile.siege import AT_ONCE, EFFECT, Siege
from tests.services.freezing import freeze
from tests.services.waiting import until

MANY = 200


@contextmanager
def at_once(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < AT_ONCE, f"{what} took {took:.2f} s"


def revoke(siege: Siege, host: str) -> None:
    """Do what `fleet host revoke` does, without the start of a program."""
    with siege.control_plane() as (session, client, ring):
        members.revoke_host(session, client, ring, host, by="alice")


def busy(siege: Siege, host: str) -> str:
    """Start a worker, and a task in it that would go on for a minute."""
    siege.enroll(host)
    siege.start_worker(host)
    run_id = siege.fleet.push(EFFECT, on=host, arguments={"log": str(siege.effects), "seconds": 60}).run_ids[0]
    until(lambda: siege.ran(run_id), "it has begun")
    return run_id


def test_a_busy_worker_whose_host_is_revoked_ends_within_two_seconds(siege: Siege) -> None:
    run_id, message = busy(siege, "r1"), siege.template("r1")
    worker = siege.worker("r1")
    with at_once("revoking"):
        revoke(siege, "r1")
        assert worker.process.wait(AT_ONCE) == os.EX_NOPERM
    late = siege.signed(siege.fresh(message), siege.held_by("alice"))
    siege.send(late, host="r1")
    assert not siege.ran(late["headers"]["id"])
    assert siege.ran(run_id) == 1
    assert siege.run("worker", "--host-id", "r1").process.wait(30) != 0, "and it does not come back"
    assert not siege.ran(late["headers"]["id"])
    siege.redis.delete(names.queue("r1"))
    siege.works()


def test_a_worker_that_was_stopped_meanwhile_takes_nothing_when_it_goes_on(siege: Siege) -> None:
    busy(siege, "r2")
    worker, message = siege.worker("r2"), siege.template("r2")
    freeze(worker.process.pid)
    late = siege.signed(siege.fresh(message), siege.held_by("alice"))
    siege.send(late, host="r2")  # a worker that waits in BLMOVE is handed it at once, and has not read it
    with siege.thief(siege.held_by_host("r2")) as thief:
        assert thief.ping()
        with at_once("revoking"):
            revoke(siege, "r2")
        with pytest.raises(redis.RedisError):
            thief.ping()
    worker.process.send_signal(signal.SIGCONT)

    def has_gone_on() -> bool:
        """It has read what it was handed and asks for more, or has heard before that it is out."""
        return b"broker.lost" in worker.log.read_bytes() or worker.process.poll() is not None

    until(has_gone_on, "it goes on")
    assert not siege.ran(late["headers"]["id"])
    siege.works()
    worker.stop(number=signal.SIGKILL)


def test_a_session_that_ignores_the_word_is_cut_while_it_waits_and_gets_nothing_more(siege: Siege) -> None:
    siege.enroll("r3")
    held = siege.held_by_host("r3")
    with siege.thief(held) as thief, ThreadPoolExecutor(1) as pool:
        waits: Any = pool.submit(thief.blmove, names.queue("r3"), names.inbox("r3", 1), 60, "RIGHT", "LEFT")
        until(
            lambda: any(client["cmd"] == "blmove" and client["user"] == "h-r3" for client in siege.redis.client_list()),
            "it waits",
        )
        with at_once("cutting it"):
            revoke(siege, "r3")
            with pytest.raises(redis.RedisError):
                waits.result(AT_ONCE)
        siege.redis.lpush(names.queue("r3"), "a message")
        assert siege.redis.lrange(names.queue("r3"), 0, -1) == ["a message"]
        siege.redis.delete(names.queue("r3"))
    with siege.thief(held) as again, pytest.raises(redis.AuthenticationError):
        again.ping()
    siege.works()


def test_what_a_revoked_host_still_reports_is_not_taken_in(siege: Siege) -> None:
    siege.enroll("r4")
    revoke(siege, "r4")
    before = siege.mark()
    siege.redis.lpush(names.reports("r4"), "x")  # by somebody who owns the broker
    siege.redis.sadd(names.REPORTS_DIRTY, "r4")
    siege.heard("report.refused", after=before, reason="the host is not enrolled")
    siege.works()


def test_a_revoked_principal_is_cut_and_pushes_nothing_more(siege: Siege) -> None:
    held = siege.known("gone")
    with siege.fleet_of("gone") as fleet, siege.thief(held) as thief, ThreadPoolExecutor(1) as pool:
        fleet.push(EFFECT, on="h1", arguments={"log": str(siege.effects)}).results[0].get(timeout=AT_ONCE)
        with thief.pubsub() as watch:
            watch.subscribe(names.WATCH)
            watch.get_message(timeout=AT_ONCE)
            revoked = pool.submit(siege.command, "principal", "revoke", "gone", "--yes")

            def is_cut() -> bool:
                try:
                    thief.ping()
                except redis.RedisError:
                    return True
                return False

            until(lambda: revoked.done() or is_cut(), "it is revoked")
            until(is_cut, "it is cut", timeout=AT_ONCE)
            assert revoked.result().returncode == 0
        with pytest.raises(errors.FleetError):
            fleet.push(EFFECT, on="h1", arguments={"log": str(siege.effects)})
    siege.works()


def test_a_level_that_is_lowered_counts_within_two_seconds(siege: Siege) -> None:
    held = siege.known("lowered")
    message = siege.fresh(siege.template())
    message["headers"][HEADER]["submitted_by"] = "lowered"
    siege.signed(message, held)
    with siege.fleet_of("lowered") as fleet:
        fleet.push(EFFECT, on="h1", arguments={"log": str(siege.effects)}).results[0].get(timeout=AT_ONCE)
        assert siege.command("principal", "set-level", "lowered", "student").returncode == 0

        def is_refused() -> bool:
            try:
                fleet.push(EFFECT, on="h1", arguments={"log": str(siege.effects)})
            except errors.NotPermitted:
                return True
            return False

        until(is_refused, "the caller has heard of it", timeout=AT_ONCE)
        until(lambda: not siege.redis.llen(names.control("h1")), "the host has heard of it", timeout=AT_ONCE)
        siege.rejects(message, "credential_revoked")
        assert fleet.push("fleet.host.ping", on="h1").results[0].get(timeout=AT_ONCE), "it may look"


def under_load(siege: Siege, change: Callable[[], None], *, host: str = "h1") -> None:
    """Push many tasks while something changes; each runs once, and its caller hears of it."""
    changed = threading.Event()
    results: list[Any] = []

    def push() -> None:
        while not changed.wait(0.03) or len(results) < MANY:
            results.extend(siege.fleet.push(EFFECT, on=host, arguments={"log": str(siege.effects)}).results)

    with ThreadPoolExecutor(3) as pool:
        pushing = [pool.submit(push) for _ in range(3)]
        until(lambda: len(results) > MANY // 4 or any(each.done() for each in pushing), "a quarter is pushed")
        try:
            change()
        finally:
            changed.set()
        for each in pushing:
            each.result()
    assert [result.get(timeout=60) for result in results] == [{"said": "done"}] * len(results)
    counted = Counter(line.split()[0] for line in siege.effects.read_text().splitlines())
    assert {counted[result.id] for result in results} == {1}
    siege.works(host)


def rotate_host(siege: Siege, host: str) -> str:
    former = siege.held_by_host(host).private_key.get_secret_value()
    before = siege.mark()
    assert siege.command("host", "rotate", host).returncode == 0
    siege.heard("host.credential_taken", after=before)
    assert siege.held_by_host(host).private_key.get_secret_value() != former
    return former


def test_a_hosts_key_changes_under_load_and_nothing_is_lost_or_repeated(siege: Siege) -> None:
    held = siege.held_by_host("h1")
    under_load(siege, lambda: rotate_host(siege, "h1") and None)

    def is_out() -> bool:
        with siege.thief(held) as thief:
            try:
                thief.ping()
            except redis.AuthenticationError:
                return True
            return False

    until(is_out, "the former password counts no more")


def test_a_principals_key_changes_under_load_and_nothing_is_lost_or_repeated(siege: Siege) -> None:
    under_load(siege, lambda: succeeds(siege, "principal", "rotate", "alice"))
    siege.read_files_anew()
    siege.works()


def test_the_fleets_key_changes_under_load_and_nothing_is_lost_or_repeated(siege: Siege) -> None:
    under_load(siege, lambda: succeeds(siege, "key", "rotate"))

    def all_is_signed_anew() -> bool:
        with siege.control_plane() as (_session, _client, ring):
            return ring.has_issued(siege.held_by_host("h1").credential)

    until(all_is_signed_anew, "h1 goes by the newest key")
    succeeds(siege, "key", "retire", "--yes")
    siege.works()
    siege.known("after")
    with siege.fleet_of("after") as fleet:
        assert fleet.push(EFFECT, on="h1", arguments={"log": str(siege.effects)}).results[0].get(timeout=AT_ONCE)


def succeeds(siege: Siege, *words: str) -> None:
    done = siege.command(*words)
    assert done.returncode == 0, done.stderr


def test_a_host_that_was_away_while_all_keys_changed_comes_back(siege: Siege) -> None:
    siege.enroll("away")
    siege.start_worker("away")
    siege.works("away")
    assert siege.worker("away").stop() == 0
    succeeds(siege, "key", "rotate")
    siege.known("low", Level.STUDENT)
    siege.start_worker("away")
    siege.works("away")
    assert siege.worker("away").stop() == 0
