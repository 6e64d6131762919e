"""Pushing and cancelling as programs do it, on a real broker, with nobody there who takes anything away."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import group
from celery.exceptions import TimeoutError as CeleryTimeout

from fleet import Fleet, credentials, errors, names, tasks
from fleet.broker import results
from fleet.client import Outcome
from fleet.contracts.control import READER, CancelRun, ControlMessage
from fleet.contracts.reports import Kind, Queued, Report
from fleet.dispatch import MOST_WAITING
from fleet.keyring import Keyring
from fleet.security import signing
from fleet.security.identity import Level
from fleet.security.trust import Trust
from fleet.settings import Settings
from tests import factories
from tests.services.broker import Broker

FLEET = Trust.in_keys([factories.key("fleet").public])


def enroll(client: "redis.Redis", *hosts: str, connected: bool = True, **record: Any) -> None:
    for host in hosts:
        client.hset(names.HOSTS, host, factories.entry(host, **record))
        if connected:
            client.set(names.presence(host), "{}")


@pytest.fixture
def settings(broker: Broker, tmp_path: Path) -> Settings:
    """Alice's settings, with her file in its place."""
    found = Settings(broker_url=broker.url, principal="alice", state_dir=tmp_path)
    held = factories.principal_credential("alice", broker_url=broker.url)
    credentials.save_principal(found.principal_path("alice"), held)
    return found


@pytest.fixture
def fleet(settings: Settings, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet of edge-1 and edge-2, connected, without workers; `fleet.tasks` pushes to it, too."""
    client.set(names.TRUST, factories.statement())
    enroll(client, "edge-1", "edge-2")
    with Fleet(settings) as opened:
        monkeypatch.setattr(tasks, "_fleet", lambda: opened)
        yield opened


def messages(client: "redis.Redis", host: str) -> list[dict[str, Any]]:
    """Return the messages in the host's queue, oldest first, having made sure that alice signed them for that host."""
    found = [json.loads(item) for item in reversed(client.lrange(names.queue(host), 0, -1))]
    for message in found:
        form = (message["content-type"], message["content-encoding"])
        who = signing.check_message(message["headers"], message["body"], form=form, trust=FLEET)
        assert who.name == message["headers"]["fleet"]["submitted_by"] == "alice"
        assert message["headers"]["fleet"]["host_key"] == factories.key(host).public
    return found


def reports(client: "redis.Redis") -> list[Report]:
    """Return alice's reports, oldest first."""
    return [report for item in reversed(client.lrange(names.reports("p:alice"), 0, -1)) for report in told(item)]


def told(item: str) -> list[Report]:
    """Return the reports in an item of alice's list, which she has signed."""
    texts = signing.check_reports(item.encode(), "p:alice", [factories.key("p:alice").public])
    return [Report.model_validate_json(text) for text in texts]


def heard(client: "redis.Redis", host: str) -> ControlMessage:
    """Return the newest of what a host is told, which alice has signed for it."""
    item = client.lindex(names.control(host), 0)
    assert isinstance(item, str)
    text, who = signing.check_control(item, [factories.key(host).public], trust=FLEET)
    assert who is not None
    assert who.name == "alice"
    return READER.validate_json(text)


def broker_now(client: "redis.Redis") -> float:
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


def test_what_a_push_asks_for_is_in_the_message_and_in_the_ledgers_report(fleet: Fleet, client: "redis.Redis") -> None:
    before, earliest = names.new_run_id("edge-1"), broker_now(client)
    tasks.ping_host.on("edge-1").apply_async(
        kwargs={"echo": "x"},
        countdown=60,
        expires=timedelta(hours=1),
        time_limit=30,
        soft_time_limit=timedelta(seconds=20),
        max_retries=3,
        retry_backoff=2,
        retry_backoff_max=50,
        retry_of=before,
    )
    [message] = messages(client, "edge-1")
    headers = message["headers"]
    wanted = headers["fleet"]
    latest = broker_now(client)
    assert earliest - 1 < wanted["not_before"] - 60 <= latest
    assert earliest - 1 < wanted["not_after"] - 3600 <= latest
    assert wanted["limits"] == {"soft_seconds": 20.0, "hard_seconds": 30.0}
    assert wanted["retry"] == {"max_retries": 3, "backoff_seconds": 2.0, "backoff_max_seconds": 50.0}
    assert wanted["retry_of"] == before
    # by these Celery would delay, drop or end it on its own; hosts refuse messages that have them
    assert headers["eta"] is None
    assert headers["expires"] is None
    assert headers["timelimit"] == [None, None]
    [report] = reports(client)
    queued = Queued.model_validate(report.data)
    assert (queued.not_before, queued.limit_seconds, queued.soft_limit_seconds) == (wanted["not_before"], 30.0, 20.0)
    assert (queued.max_retries, queued.backoff_seconds, queued.backoff_max_seconds) == (3, 2.0, 50.0)
    assert queued.retry_of == before


def test_without_limits_the_report_has_the_contracts_own(fleet: Fleet, client: "redis.Redis") -> None:
    tasks.ping_host.on("edge-1").delay()
    [report] = reports(client)
    assert Queued.model_validate(report.data).limit_seconds == 3600.0


def test_signatures_and_groups_take_the_same_options(fleet: Fleet, client: "redis.Redis") -> None:
    tasks.ping_host.on("edge-1").s(echo="a").set(countdown=60).apply_async()
    group(tasks.ping_host.on(host).s(echo="b").set(time_limit=5) for host in ("edge-1", "edge-2"))()
    group(tasks.ping_host.on("edge-2").s(echo="c") for _ in range(2)).apply_async(countdown=60)
    delayed, limited = (message["headers"]["fleet"] for message in messages(client, "edge-1"))
    assert delayed["not_before"] is not None
    assert limited["limits"]["hard_seconds"] == 5.0
    first, *others = (message["headers"]["fleet"] for message in messages(client, "edge-2"))
    assert first["limits"]["hard_seconds"] == 5.0
    assert [other["not_before"] is not None for other in others] == [True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"countdown": 5, "expires": 5}, "expires: 5 is over before the task may begin"),
        ({"soft_time_limit": 9, "time_limit": 5}, "soft_time_limit: 9 is not shorter than time_limit of 5 s"),
        ({"eta": datetime(2030, 1, 1, tzinfo=UTC), "countdown": 1}, "countdown and eta"),
        ({"countdwon": 5}, "did you mean 'countdown'?"),
        ({"link": "x"}, "push the next step"),
        ({"queue": "x"}, "name the host with .on(host)"),
        ({"description": "\ud800"}, "description: "),
    ],
)
def test_an_option_that_cannot_be_sends_nothing(
    fleet: Fleet, client: "redis.Redis", options: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.UsageError) as caught:
        tasks.ping_host.on("edge-1").apply_async(**options)
    assert said in str(caught.value)
    assert messages(client, "edge-1") == []
    assert reports(client) == []


def test_a_host_that_takes_no_new_work_is_pushed_nothing_unless_it_is_to_be_queued(
    fleet: Fleet, client: "redis.Redis"
) -> None:
    enroll(client, "edge-1", availability="paused")
    enroll(client, "edge-2", availability="draining")
    enroll(client, "edge-3", availability="active")
    for host, word in (("edge-1", "paused"), ("edge-2", "draining")):
        with pytest.raises(errors.HostNotAvailable, match=f"host '{host}' is {word}; nothing was queued"):
            tasks.ping_host.on(host).delay()
    with pytest.raises(errors.HostNotAvailable):
        fleet.push("fleet.host.ping", all_hosts=True)
    assert client.llen(names.queue("edge-3")) == 0  # nothing to any host
    batch = fleet.push("fleet.host.ping", all_hosts=True, offline="skip")
    assert batch.skipped == ("edge-1", "edge-2")
    assert [names.host_of_run(run_id) for run_id in batch.run_ids] == ["edge-3"]
    tasks.ping_host.on("edge-1", offline="queue").delay()
    assert len(messages(client, "edge-1")) == 1
    assert {target.host: target.availability for target in fleet.targets(all_hosts=True)} == {
        "edge-1": "paused",
        "edge-2": "draining",
        "edge-3": "active",
    }


def test_a_queue_is_full_at_ten_thousand_messages(fleet: Fleet, client: "redis.Redis") -> None:
    client.lpush(names.queue("edge-1"), *["x"] * (MOST_WAITING - 1))
    tasks.ping_host.on("edge-1").delay()
    for offline in ("fail", "queue"):
        with pytest.raises(errors.QueueFull, match="10,000 messages wait for host 'edge-1'; nothing was queued"):
            tasks.ping_host.on("edge-1", offline=offline).delay()  # type: ignore[arg-type]
    with pytest.raises(errors.QueueFull):
        fleet.push("fleet.host.ping", all_hosts=True, offline="skip")
    assert client.llen(names.queue("edge-1")) == MOST_WAITING
    assert client.llen(names.queue("edge-2")) == 0


def test_a_cancel_tells_the_host_and_the_control_plane_also_while_the_host_is_away(
    fleet: Fleet, client: "redis.Redis"
) -> None:
    result = tasks.ping_host.on("edge-1").delay()
    client.delete(names.presence("edge-1"))
    result.cancel("no longer needed")
    assert client.llen(names.control("edge-1")) == 1
    assert heard(client, "edge-1") == CancelRun(run=result.id, by="alice", reason="no longer needed")
    asked = reports(client)[-1]
    assert (asked.kind, asked.run, asked.data) == (
        Kind.RUN_CANCEL_REQUESTED,
        result.id,
        {"reason": "no longer needed"},
    )
    assert abs(asked.at - broker_now(client)) < 30
    assert client.sismember(names.REPORTS_DIRTY, "p:alice")


def test_a_batch_is_cancelled_host_by_host(fleet: Fleet, client: "redis.Redis") -> None:
    batch = fleet.push("fleet.host.ping", all_hosts=True)
    batch.cancel()
    words = [heard(client, host) for host in ("edge-1", "edge-2")]
    assert [word.run for word in words if isinstance(word, CancelRun)] == list(batch.run_ids)


@pytest.mark.parametrize(
    ("run_id", "reason", "said"),
    [
        ("edge-1:123", "", "is not a task id"),
        (names.new_run_id("egde-1"), "", "did you mean 'edge-1'?"),
        (names.new_run_id("edge-1"), "x" * 1025, "reason: "),
        (names.new_run_id("edge-1"), "\ud800", "reason: "),
    ],
    ids=["no id", "unknown host", "long reason", "surrogate"],
)
def test_a_cancel_that_cannot_be_says_why_and_tells_nobody(
    fleet: Fleet, client: "redis.Redis", run_id: str, reason: str, said: str
) -> None:
    with pytest.raises(errors.UsageError) as caught:
        fleet.cancel(run_id, reason=reason)
    assert said in str(caught.value)
    assert client.keys("fleet:h:*:ctl") == []
    assert reports(client) == []


def test_revoking_is_an_error_that_names_cancelling(fleet: Fleet) -> None:
    one = tasks.ping_host.on("edge-1").delay()
    many = group(tasks.ping_host.on(host).s() for host in ("edge-1", "edge-2"))()
    for revoke in (one.revoke, many.revoke):
        with pytest.raises(errors.UsageError, match=r"end a task with \.cancel\(\)"):
            revoke()
    with pytest.raises(errors.UsageError, match="Celery's shutdown"):
        one.app.control.shutdown()


@pytest.mark.parametrize(("state", "error"), [("cancelled", errors.TaskCancelled), ("unknown", errors.OutcomeUnknown)])
def test_what_was_cancelled_or_is_unknown_is_told_to_whoever_waits(
    fleet: Fleet, client: "redis.Redis", state: str, error: type[errors.FleetError]
) -> None:
    batch = fleet.push("fleet.host.ping", on="edge-1")
    [run_id] = batch.run_ids
    meta = results.failure_meta(run_id, state=state, kind=state, message="so it is", date_done="2030-01-01T00:00:00")
    credential = factories.ring().issue(factories.identity("edge-1"))
    client.set(names.result(run_id), signing.sign_result(meta, factories.key("edge-1"), credential))
    [outcome] = batch.wait(timeout=30)
    assert isinstance(outcome, Outcome)
    assert outcome.state == state
    assert isinstance(outcome.error, error)
    with pytest.raises(error, match="so it is"):
        batch.results[0].get(timeout=30)


def test_a_push_is_recorded_when_its_report_has_been_taken_away(fleet: Fleet, client: "redis.Redis") -> None:
    batch = fleet.push("fleet.host.ping", all_hosts=True)
    key = names.reports("p:alice")
    assert not fleet.recorded(batch, timeout=0.1)
    client.rpop(key)  # the first host's
    assert not fleet.recorded(batch, timeout=0.1)
    with ThreadPoolExecutor() as pool:
        seen = pool.submit(fleet.recorded, batch, timeout=30)
        fleet.push("fleet.host.ping", on="edge-1")  # what comes later is waited for by others
        client.rpop(key)
        assert seen.result(timeout=30)


def test_pushes_of_several_threads_know_their_own_reports(fleet: Fleet, client: "redis.Redis") -> None:
    start = threading.Barrier(4)

    def push(_: int) -> bool:
        start.wait()
        return all(
            [report.run for report in told(result.report)] == [result.id]
            for result in (tasks.ping_host.on("edge-1").delay() for _ in range(20))
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(push, range(4)))


def test_threads_that_push_first_share_one_dispatcher(settings: Settings) -> None:
    start = threading.Barrier(8)

    def look(fleet: Fleet) -> object:
        start.wait()
        return fleet.dispatcher

    with Fleet(settings) as fleet, ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(look, [fleet] * 8))) == 1


def test_nobody_there_is_celerys_own_time_out(fleet: Fleet) -> None:
    with pytest.raises(CeleryTimeout):
        tasks.ping_host.on("edge-1").delay().get(timeout=0.1)


def test_an_entry_that_the_fleet_has_not_signed_is_no_host(fleet: Fleet, client: "redis.Redis") -> None:
    """Who can write to the registry could have messages signed for a key of their own, and labels that they like."""
    theirs = Keyring([factories.key("mallory")]).issue(factories.identity("edge-2"))
    for entry in (
        json.dumps({"credential": theirs, "availability": "active"}),
        json.dumps({"labels": {}, "availability": "active"}),
        factories.entry("edge-1"),
        "[]",
        "x",
    ):
        client.hset(names.HOSTS, "edge-2", entry)
        with pytest.raises(errors.NotTrusted):
            tasks.ping_host.on("edge-2").delay()
        assert [target.host for target in fleet.targets(all_hosts=True)] == ["edge-1"], "a sweep leaves it out"
    assert client.llen(names.queue("edge-2")) == 0
    assert reports(client) == []


def test_where_no_entry_can_be_believed_that_is_said_and_not_that_there_are_no_hosts(
    fleet: Fleet, client: "redis.Redis"
) -> None:
    for host in ("edge-1", "edge-2"):
        client.hset(names.HOSTS, host, "{}")
    with pytest.raises(errors.NotTrusted, match="of 2 hosts in the registry none is vouched for"):
        fleet.targets(all_hosts=True)


def test_a_broker_that_has_lost_its_data_is_not_a_fleet_without_hosts(fleet: Fleet, client: "redis.Redis") -> None:
    """Hosts are back before the control plane has set the broker up again: they are enrolled all the same."""
    with pytest.raises(errors.HostNotEnrolled):
        tasks.ping_host.on("edge-9").delay()
    client.delete(names.TRUST, names.HOSTS)
    for ask in (
        tasks.ping_host.on("edge-1").delay,
        lambda: fleet.targets(on="edge-1"),
        lambda: fleet.targets(all_hosts=True),
        lambda: fleet.dispatcher.cancel(names.new_run_id("edge-1")),
    ):
        with pytest.raises(errors.BrokerEmpty, match="lost its data"):
            ask()
    assert client.llen(names.queue("edge-1")) == client.llen(names.control("edge-1")) == 0


def granted(client: "redis.Redis", *, version: int = 1, least: int = 1, **more: Any) -> None:
    """Have the broker say what alice may do by her newest credential."""
    client.set(names.TRUST, factories.statement(version=version, alice=least))
    client.hset(names.PRINCIPALS, "alice", factories.ring().issue(factories.principal("alice", **more)))


def test_what_a_principal_may_not_push_is_refused_where_it_is_pushed(fleet: Fleet, client: "redis.Redis") -> None:
    client.hset(names.HOSTS, "edge-2", factories.entry("edge-2", labels={"env": "test"}))
    granted(client, serial=2, level=Level.STUDENT, selectors={"env": "test"})
    assert tasks.ping_host.on("edge-2").delay().id
    with pytest.raises(
        errors.NotPermitted, match=r"may push to hosts with env=test only, and 'edge-1' is none of them"
    ):
        tasks.ping_host.on("edge-1").delay()
    with pytest.raises(errors.NotPermitted, match=r"'alice' is student, and fleet\.containers\.restart changes"):
        tasks.restart_container.on("edge-2").delay(container="web")
    with pytest.raises(errors.NotPermitted):
        fleet.cancel(names.new_run_id("edge-1"))
    assert len(reports(client)) == 1
    assert messages(client, "edge-1") == []
    assert client.keys("fleet:h:*:ctl") == []


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ({"version": 2, "least": 2}, "the credential of principal 'alice' was revoked"),
        ({"serial": 2, "expires_at": 1_700_000_000.0}, "the credential of principal 'alice' has expired"),
    ],
)
def test_with_a_credential_that_counts_no_more_nothing_is_sent(
    fleet: Fleet, client: "redis.Redis", grant: dict[str, Any], said: str
) -> None:
    granted(client, **grant)
    for send in (tasks.ping_host.on("edge-1").delay, lambda: fleet.cancel(names.new_run_id("edge-1"))):
        with pytest.raises(errors.CredentialUnusable, match=said) as caught:
            send()
        assert "`fleet principal rotate alice` makes a new file" in str(caught.value)
    assert messages(client, "edge-1") == reports(client) == []


def test_what_the_fleet_has_said_since_is_kept_in_the_principals_file(
    fleet: Fleet, settings: Settings, client: "redis.Redis"
) -> None:
    """The key that it announces now may be the only one later."""
    client.set(names.TRUST, factories.statement("fleet", "the next", version=2))
    tasks.ping_host.on("edge-1").delay()
    client.set(names.TRUST, factories.statement("the next", version=3))
    next_ring = Keyring([factories.key("the next")])
    entry = {"credential": next_ring.issue(factories.identity("edge-1")), "availability": "active"}
    client.hset(names.HOSTS, "edge-1", json.dumps(entry))
    with Fleet(settings) as later:
        assert [target.host for target in later.targets(on="edge-1")] == ["edge-1"]


def test_what_nobody_of_the_fleet_has_said_is_not_learned(fleet: Fleet, client: "redis.Redis") -> None:
    client.set(names.TRUST, factories.statement("mallory", version=9, alice=9))
    theirs = Keyring([factories.key("mallory")]).issue(factories.principal("alice", serial=9, level=Level.STUDENT))
    client.hset(names.PRINCIPALS, "alice", theirs)
    tasks.ping_host.on("edge-1").delay()
    client.hset(names.PRINCIPALS, "alice", factories.ring().issue(factories.principal("bob")))
    tasks.ping_host.on("edge-2").delay()
    assert len(messages(client, "edge-1")) == len(messages(client, "edge-2")) == 1
