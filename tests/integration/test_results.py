"""Results as callers read them: their host's word, or the fleet's, whatever else lies there or is published."""

import gc
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TimeoutError as CeleryTimeout

from fleet import Fleet, credentials, errors, names
from fleet.broker import results
from fleet.client import Batch
from fleet.dispatch.result import RunResult
from fleet.security import signing
from fleet.settings import Settings
from tests import factories
from tests.services.broker import Broker, serve
from tests.services.waiting import until

RING = factories.ring()
NOW = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def fleet(broker: Broker, tmp_path: Path) -> Iterator[Fleet]:
    with opened(broker, tmp_path) as fleet:
        yield fleet


def opened(broker: Broker, state: Path) -> Fleet:
    settings = Settings(broker_url=broker.url, principal="alice", state_dir=state)
    held = factories.principal_credential("alice", broker_url=broker.url)
    credentials.save_principal(settings.principal_path("alice"), held)
    return Fleet(settings)


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that a test may stop."""
    yield from serve("valkey", tmp_path_factory.mktemp("broker"))


@pytest.fixture
def run() -> str:
    return names.new_run_id("edge-7")


def succeeded(run_id: str, reply: dict[str, Any] | None = None) -> dict[str, Any]:
    return results.success_meta(run_id, {"echo": "x"} if reply is None else reply, date_done=NOW)


def failed(run_id: str, *, state: str = "failed", kind: str = "broken") -> dict[str, Any]:
    return results.failure_meta(run_id, state=state, kind=kind, message="it is", date_done=NOW)


def signed(meta: dict[str, Any], *, host: str = "edge-7") -> str:
    return signing.sign_result(meta, factories.key(host), RING.issue(factories.identity(host)))


def put(client: "redis.Redis", run_id: str, result: str | bytes) -> None:
    client.set(names.result(run_id), result)


def publish(client: "redis.Redis", run_id: str, result: str | bytes) -> None:
    until(lambda: dict(client.pubsub_numsub(names.result(run_id)))[names.result(run_id)], "somebody waits")
    client.publish(names.result(run_id), result)


def waiting(pool: ThreadPoolExecutor, result: RunResult, *, timeout: float = 60) -> "Future[Any]":
    return pool.submit(result.get, timeout=timeout)


def test_a_hosts_word_and_the_fleets_are_believed(fleet: Fleet, client: "redis.Redis", run: str) -> None:
    put(client, run, signed(succeeded(run)))
    assert fleet.dispatcher.result(run).get(timeout=30) == {"echo": "x"}
    other = names.new_run_id("edge-7")
    put(client, other, RING.result(failed(other, state="unknown", kind="silent")))
    with pytest.raises(errors.OutcomeUnknown, match="it is"):
        fleet.dispatcher.result(other).get(timeout=30)


def forgeries(run_id: str) -> dict[str, str]:
    """Return what somebody could write in a host's place, by what is wrong with it."""
    dangerous = {"exc_type": "SystemExit", "exc_module": "builtins", "exc_message": ["1"]}
    raising = {**succeeded(run_id), "status": "FAILURE", "result": dangerous}
    genuine = json.loads(signed(succeeded(run_id)))
    return {
        "unsigned": json.dumps(succeeded(run_id)),
        "raises what it names": json.dumps(raising),
        "another reply": json.dumps({**genuine, "result": {"echo": "y"}}),
        "another outcome": json.dumps({**genuine, "status": "FAILURE"}),
        "another host's": signed(succeeded(run_id), host="edge-8"),
        "by no credential": signing.sign_result(succeeded(run_id), factories.key("edge-7"), ""),
        "by another fleet": signing.sign_result(
            succeeded(run_id), factories.key("edge-7"), factories.credential("edge-7", fleet="another").credential
        ),
        "by a principal": signing.sign_result(
            succeeded(run_id), factories.key("p:alice"), RING.issue(factories.principal("alice"))
        ),
    }


GARBAGE = [b"x", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"task_id": 1, "status": 2}', b"\x80\x04."]
KINDS = list(forgeries("edge-7:x"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_result_is_an_error_of_its_own(fleet: Fleet, client: "redis.Redis", run: str, kind: str) -> None:
    put(client, run, forgeries(run)[kind])
    with pytest.raises(errors.ResultForged, match="the result is not to be believed") as caught:
        fleet.dispatcher.result(run).get(timeout=30)
    assert caught.value.exit_code == 4
    with pytest.raises(errors.ResultForged):
        fleet.dispatcher.result(run).get(timeout=30)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_result_that_is_published_is_the_same_error(
    fleet: Fleet, client: "redis.Redis", run: str, kind: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        got = waiting(pool, fleet.dispatcher.result(run))
        publish(client, run, forgeries(run)[kind])
        with pytest.raises(errors.ResultForged):
            got.result(60)


@pytest.mark.parametrize("item", GARBAGE, ids=lambda item: repr(item[:20]))
def test_what_is_no_result_at_all_is_told_from_none(fleet: Fleet, client: "redis.Redis", run: str, item: bytes) -> None:
    put(client, run, item)
    with pytest.raises(errors.ResultForged, match="cannot be read"):
        fleet.dispatcher.result(run).get(timeout=30)


def test_what_is_published_and_is_no_result_of_that_run_does_not_end_the_waiting(
    fleet: Fleet, client: "redis.Redis", run: str
) -> None:
    other = names.new_run_id("edge-7")
    with ThreadPoolExecutor(2) as pool:
        got = waiting(pool, fleet.dispatcher.result(run))
        for item in (*GARBAGE, signed(succeeded(other, {"echo": "theirs"})).encode()):
            publish(client, run, item)
        publish(client, run, signed(succeeded(run)))
        assert got.result(60) == {"echo": "x"}


def test_a_genuine_result_of_another_run_is_not_this_ones(fleet: Fleet, client: "redis.Redis", run: str) -> None:
    put(client, run, signed(succeeded(names.new_run_id("edge-7"))))
    with pytest.raises(errors.ResultForged, match="it is another run's"):
        fleet.dispatcher.result(run).get(timeout=30)


def test_where_nothing_lies_there_is_a_time_out_and_no_error_of_trust(fleet: Fleet, run: str) -> None:
    result = fleet.dispatcher.result(run)
    assert not result.ready()
    with pytest.raises(CeleryTimeout):
        result.get(timeout=0.2)


def test_of_what_the_signature_does_not_cover_nothing_is_passed_on(
    fleet: Fleet, client: "redis.Redis", run: str
) -> None:
    meta = json.loads(signed(failed(run)))
    put(client, run, json.dumps({**meta, "traceback": "forged", "children": [[["x", None], []]], "parent_id": "x"}))
    result = fleet.dispatcher.result(run)
    with pytest.raises(errors.TaskFailed, match="it is"):
        result.get(timeout=30)
    assert (result.traceback, result.children) == (None, [])


def test_results_are_checked_alike_in_every_thread(fleet: Fleet, client: "redis.Redis", run: str) -> None:
    """Celery has a backend for each thread."""
    forged = names.new_run_id("edge-7")
    put(client, run, signed(succeeded(run)))
    put(client, forged, forgeries(forged)["unsigned"])
    assert fleet.dispatcher.result(run).get(timeout=30) == {"echo": "x"}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: fleet.dispatcher.result(run).get(timeout=30)).result() == {"echo": "x"}
        with pytest.raises(errors.ResultForged):
            pool.submit(lambda: fleet.dispatcher.result(forged).get(timeout=30)).result()


def test_a_forged_result_in_a_batch_harms_no_other_run(fleet: Fleet, client: "redis.Redis") -> None:
    runs = [names.new_run_id("edge-7") for _ in range(6)]
    unsigned, garbage, theirs, *good = runs
    put(client, unsigned, forgeries(unsigned)["unsigned"])
    put(client, garbage, b"\xff\xfe")
    put(client, theirs, signed(succeeded(names.new_run_id("edge-7"))))
    for run in good[:-1]:
        put(client, run, signed(succeeded(run)))
    batch = Batch("fleet.host.ping", tuple(fleet.dispatcher.result(run) for run in runs))
    with ThreadPoolExecutor(1) as pool:  # and the thread that waits may be another than the one that pushed
        got = pool.submit(lambda: {outcome.run_id: outcome for outcome in batch.wait(timeout=30)})
        publish(client, good[-1], signed(succeeded(good[-1])))
        found = got.result(60)
    assert [found[run].state for run in runs] == ["unknown"] * 3 + ["succeeded"] * 3
    assert all(isinstance(found[run].error, errors.ResultForged) for run in (unsigned, garbage, theirs))


def test_a_result_that_nobody_holds_any_more_waits_for_no_broker(
    own_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector lets go of it, anywhere in the program, and while the broker is away, too."""
    uncaught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: uncaught.append(what.exc_value))
    with opened(own_broker, tmp_path) as fleet:
        with own_broker.connect() as client:
            client.hset(names.HOSTS, "edge-7", factories.entry("edge-7"))
        left, also_left, kept = (fleet.push("fleet.host.ping", on="edge-7", offline="queue") for _ in range(3))
        forgotten = [*left.run_ids, *also_left.run_ids]
        [run] = kept.run_ids
        own_broker.stop()
        began = time.monotonic()
        del left  # which finds the connection lost
        gc.collect()
        del also_left  # and which knows it
        gc.collect()
        assert time.monotonic() - began < 10, "Celery tries twenty times, a second apart"

        own_broker.start()
        with ThreadPoolExecutor(1) as pool, own_broker.connect() as client:
            got = pool.submit(list, kept.wait(timeout=60))
            publish(client, run, signed(succeeded(run)))
            assert [outcome.reply for outcome in got.result(90)] == [{"echo": "x"}], "who waits connects anew"
            heard = dict(client.pubsub_numsub(*map(names.result, forgotten)))
        assert list(heard.values()) == [0, 0]
        del kept, got
    gc.collect()
    assert uncaught == []
