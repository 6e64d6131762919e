"""The control worker as a process: what it refuses to start on, what it waits for, how it ends."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Engine

from fleet import audit, clock, credentials, db, inventory, joining, names, runs
from fleet.broker import connection
from tests import factories
from tests.services import database as databases
from tests.services.broker import Broker
from tests.services.freezing import frozen
from tests.services.system import Part, System
from tests.services.waiting import until

NOBODY = "redis://127.0.0.1:1/0"
#: An idle one needs less than a second, on an idle machine; one that hung would be there after thirty.
ENDS_SOON = 20.0
#: The last words to the broker get two seconds. Its connections, one after the other, would take 25.
ENDS_IN_SILENCE = 20.0


def ended(part: Part, *, within: float = 30) -> tuple[int, str]:
    """Wait for a process that ends by itself; return its exit code and what it said."""
    code = part.process.wait(within)
    return code, part.log.read_text()


def stop(part: Part, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
    began = time.monotonic()
    return part.stop(number=number), time.monotonic() - began


@contextmanager
def configured(broker: Broker, **settings: str) -> Iterator[None]:
    with broker.connect() as client:
        before = {name: client.config_get(name)[name] for name in settings}
        for name, value in settings.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


def test_it_enrolls_a_host_publishes_it_and_ends_cleanly(system: System) -> None:
    control = system.start_control()
    system.enroll("edge-7", labels={"env": "prod"})
    credential = credentials.load(system.settings.credential_path("edge-7"), host="edge-7")
    assert credential.labels == {"env": "prod"}
    assert [target.host for target in system.fleet.targets(selector={"env": "prod"})] == ["edge-7"]
    assert [event.event for event in system.events("host.enrolled")] == ["host.enrolled"]
    code, seconds = stop(control)
    assert code == 0
    assert seconds < ENDS_SOON
    assert "control.started" in control.log.read_text()
    assert control.log.read_text().rstrip().endswith("control.stopped [workers.control.app]")
    with system.broker.connect() as client:
        assert not client.exists(names.CONTROL_LEASE), "the next one need not wait"
        assert client.client_list() is not None
        until(
            lambda: not [each for each in client.client_list() if "control" in str(each["name"])],
            "its connections are closed",
        )


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too(system: System, number: signal.Signals) -> None:
    control = system.start_control()
    assert stop(control, number)[0] == 0


def test_of_two_one_writes_both_enroll_and_the_other_takes_over(system: System) -> None:
    first = system.start_control()
    second = system.run("control")
    until(lambda: "control.started" in second.log.read_text(), "the second has started")
    with system.broker.connect() as client:
        holder = client.get(names.CONTROL_LEASE)
        for number in range(6):
            system.enroll(f"edge-{number}")
        first.process.send_signal(signal.SIGKILL)
        system.enroll("edge-6")
        until(lambda: client.get(names.CONTROL_LEASE) not in (None, holder), "the second holds the lease")
        assert client.hlen(names.HOSTS) == 7
    assert len(system.events("host.enrolled")) == 7
    with db.session(system.engine, write=False) as session:
        assert audit.verify(session) is None
    assert stop(second)[0] == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_broker_that_is_not_there_yet_is_waited_for(system: System) -> None:
    system.broker.stop()
    control = system.run("control")
    until(lambda: "broker.awaited" in control.log.read_text(), "it waits")
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 2.5, "a few more tries")
    system.broker.start()
    until(lambda: "control.started" in control.log.read_text(), "it goes on")
    assert control.log.read_text().count("broker.awaited") == 1, "one outage, one line"
    system.enroll("edge-7")
    assert stop(control)[0] == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_it_can_be_stopped_while_it_waits(system: System) -> None:
    control = system.run("control", FLEET_BROKER_URL=NOBODY)
    until(lambda: "broker.awaited" in control.log.read_text(), "it waits")
    code, seconds = stop(control)
    assert code == 0
    assert seconds < ENDS_SOON


@pytest.mark.parametrize("backend", ["sqlite"])
def test_it_outlives_the_broker_and_enrolls_again_soon_after(system: System) -> None:
    control = system.start_control()
    system.broker.stop(kill=True)
    until(lambda: "enrollment.paused" in control.log.read_text(), "the desk is paused")
    until(lambda: "beat.failed" in control.log.read_text(), "a renewal of the lease has failed")
    system.broker.start()
    began = time.monotonic()
    system.enroll("edge-7")
    assert time.monotonic() - began < 25, "it was answered, and not given up, which takes a minute"
    until(lambda: "beat.recovered" in control.log.read_text(), "the lease is renewed")
    until(lambda: "enrollment.resumed" in control.log.read_text(), "the desk is open again")
    said = control.log.read_text()
    assert said.count("enrollment.paused") == said.count("enrollment.resumed") == 1
    assert "Traceback" not in said
    system.broker.stop()
    code, seconds = stop(control)
    assert code == 0
    assert seconds < ENDS_SOON, "also while the broker is away"


@pytest.mark.parametrize("backend", ["sqlite"])
def test_it_ends_soon_although_the_broker_has_fallen_silent(system: System) -> None:
    control = system.start_control()
    server = system.broker.process
    assert server is not None
    with frozen(server.pid):
        code, seconds = stop(control)
    assert code == 0
    assert seconds < ENDS_IN_SILENCE


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("appendonly", "no", "appendonly is off: a restart forgets queues (set `appendonly yes`)"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru: a full broker drops queues"),
    ],
)
def test_a_broker_that_can_lose_tasks_is_refused_unless_that_is_wanted(
    system: System, setting: str, value: str, said: str
) -> None:
    with configured(system.broker, **{setting: value}):
        code, output = ended(system.run("control"))
        assert code == 5
        assert said in output
        assert "FLEET_ALLOW_UNSAFE_BROKER=true" in output
        assert "Traceback" not in output
        control = system.run("control", FLEET_ALLOW_UNSAFE_BROKER="true")
        until(lambda: "control.started" in control.log.read_text(), "it runs all the same")
        assert "broker.unsafe" in control.log.read_text()
        assert stop(control)[0] == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_broker_where_config_is_forbidden_is_judged_by_what_it_says_of_itself(system: System) -> None:
    with system.broker.connect() as client:
        client.acl_setuser(
            "control",
            enabled=True,
            passwords=["+pw"],
            categories=["+@all"],
            commands=["-config"],
            keys=["*"],
            channels=["*"],
        )
        url = system.broker.url.replace("redis://", "redis://control:pw@")
        control = system.run("control", FLEET_BROKER_URL=url)
        try:
            until(lambda: "control.started" in control.log.read_text(), "it runs")
            assert stop(control)[0] == 0
            client.config_set("appendonly", "no")
            code, output = ended(system.run("control", FLEET_BROKER_URL=url))
            assert code == 5
            assert "appendonly is off" in output
        finally:
            client.config_set("appendonly", "yes")
            client.acl_deluser("control")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_wrong_password_is_told_at_once(system: System) -> None:
    with system.broker.connect() as client:
        client.config_set("requirepass", "right")
        try:
            url = system.broker.url.replace("redis://", "redis://:wrong@")
            code, output = ended(system.run("control", FLEET_BROKER_URL=url))
        finally:
            client.config_set("requirepass", "")
    assert code == 5
    assert len(output.strip().splitlines()) == 1
    assert "password" in output
    assert "wrong@" not in output


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    "url", ["postgresql://nobody:s3cret@127.0.0.1:1/fleet", "sqlite:////proc/nowhere/fleet.db"], ids=["port", "place"]
)
def test_a_database_that_is_not_there_is_one_line_and_an_exit_code(system: System, url: str) -> None:
    code, output = ended(system.run("control", FLEET_DATABASE_URL=url))
    assert code == 5
    assert len(output.strip().splitlines()) == 1
    assert "s3cret" not in output


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.postgres
def test_an_outage_of_the_database_is_lived_through(system: System, engine: Engine) -> None:
    control = system.start_control()
    name = engine.url.database
    token = system.token()
    with psycopg.connect(databases.SERVER, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
        # a request that comes now is taken, cannot be answered, and is put again
        asking = system.run("enroll", token, "--host-id", "edge-7")
        until(lambda: "enrollment.paused" in control.log.read_text(), "the desk is paused")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert ended(asking)[0] == 0
    with db.session(system.engine, write=False) as session:
        assert [host.id for host in inventory.hosts(session)] == ["edge-7"]
    assert "Traceback" not in control.log.read_text()
    assert stop(control)[0] == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_last_heartbeat_is_remembered_when_the_key_has_run_out(system: System) -> None:
    system.start_control()
    system.enroll("edge-7")
    worker = system.start_worker("edge-7")
    worker.stop(number=signal.SIGKILL)

    def seen() -> bool:
        with db.session(system.engine, write=False) as session:
            return inventory.host(session, "edge-7").last_seen_at is not None

    until(seen, "the sweep has seen the heartbeat")
    system.redis.pexpire(names.presence("edge-7"), 1)
    until(lambda: not system.redis.exists(names.presence("edge-7")), "the key has run out")
    assert '"stale"' in system.command("host", "list", "-o", "json").stdout


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_token_made_before_the_control_worker_starts_is_good(system: System) -> None:
    token = system.token()
    system.start_control()
    assert joining.join(token, host="edge-7", version="0.1.0").host == "edge-7"


def test_both_brokers_say_whether_they_keep_what_they_are_given(any_broker: Broker) -> None:
    with any_broker.connect() as client:
        assert connection.check(client, any_broker.address) >= "7"
        assert connection.check_durability(client, any_broker.address) == []
        with configured(any_broker, **{"appendonly": "no", "maxmemory-policy": "volatile-ttl"}):
            forgets, evicts = connection.check_durability(client, any_broker.address)
    assert "appendonly yes" in forgets
    assert "maxmemory-policy noeviction" in evicts


def test_it_sends_again_what_the_broker_lost_and_ends_what_came_too_late(system: System) -> None:
    lost, late = names.new_run_id("edge-7"), names.new_run_id("edge-7")
    message = {
        "headers": {"id": lost},
        "body": "[]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    system.sign(message)
    item = json.dumps(message)
    with db.session(system.engine) as session:
        enrolled_at = clock.from_unix(time.time() - 3600)
        inventory.enroll_host(session, "edge-7", key=factories.key("edge-7").public, at=enrolled_at)
        pushed = [factories.queued(lost, submitted_at=time.time() - 60, message=item)]
        pushed.append(factories.queued(late, submitted_at=time.time() - 60, not_after=time.time() - 30))
        runs.apply_many(session, pushed)
    with system.broker.connect() as client:
        client.lpush(names.queue("edge-7"), json.dumps({"body": late}))
        control = system.start_control()
        until(lambda: client.lrange(names.queue("edge-7"), 0, -1) == [item], "it is sent again")
    until(lambda: system.record(late, state="expired").message is None, "its message is let go, as the last step")
    assert [event.event for event in until(lambda: system.life(lost), "it is on record")] == ["run.sent_again"]
    assert stop(control)[0] == 0
