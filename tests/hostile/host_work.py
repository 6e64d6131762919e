"""What a host does with the broker, in small pieces, by the code that does it in its worker."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import kombu
from pydantic import SecretStr

from fleet import clock, credentials, names, policy, presence
from fleet.contracts.output import ENDED_TTL_SECONDS
from fleet.contracts.presence import Heartbeat
from fleet.contracts.reports import Kind
from tests import factories
from tests.hostile.stage import HOST, Needs, Stage
from tests.services.sessions import BrokerTime, Session
from workers.host import consumer, epoch, inboxes, publish
from workers.host.control import ControlList
from workers.host.obeying import learn
from workers.host.own import Own
from workers.host.pulse import Pulse
from workers.host.refusals import DEAD_LETTERS, Refusals
from workers.host.ruling import Ruling
from workers.host.sender import Sender
from workers.host.strays import Strays
from workers.host.streams import Streams

QUEUE, INBOX = names.queue(HOST), names.inbox(HOST, 1)


def ask_the_time(stage: Stage) -> None:
    stage.client().time()


def take_an_epoch(stage: Stage) -> None:
    assert epoch.take(stage.client(), HOST, known=0) == epoch.Taken(1, superseded=False)


def wait_for_another_session(stage: Stage) -> None:
    stage.admin.set(names.epoch(HOST), 5)
    presence.mark(stage.admin, heartbeat(epoch=5))
    assert epoch.take(stage.client(), HOST, known=0) is None


def connect_the_consumer(stage: Stage) -> None:
    with _consuming(stage) as connection:
        assert connection.default_channel


def hand_over(stage: Stage) -> None:
    put_aside: list[bytes] = []
    with _consuming(stage, on_malformed=lambda item, _problem: put_aside.append(item)) as connection:
        queue = kombu.Queue(QUEUE, kombu.Exchange(""), QUEUE, no_declare=True)
        stage.admin.lpush(QUEUE, "no message")
        with kombu.Consumer(connection.channel(), queues=[queue], callbacks=[]):
            connection.drain_events(timeout=stage.patience)
    assert put_aside == [b"no message"]
    assert stage.admin.lrange(INBOX, 0, -1) == ["no message"]


def restore_former_inboxes(stage: Stage) -> None:
    stage.admin.lpush(INBOX, "message")
    inboxes.restore(stage.client(), QUEUE, [INBOX, names.inbox(HOST, 2)])
    assert stage.admin.lrange(QUEUE, 0, -1) == ["message"]


def put_strays_back(stage: Stage) -> None:
    stage.admin.lpush(INBOX, "stray")
    strays = Strays(stage.client(), host=HOST, inbox=INBOX)
    assert [strays.look(set), strays.look(set)] == [0, 1]


def read_the_control_list(stage: Stage) -> None:
    stage.admin.lpush(names.control(HOST), "signed by nobody")
    refused: list[bytes] = []
    listing = ControlList(
        stage.client(),
        {},
        decide=lambda _word, _principal, _item: None,
        own=_own(stage),
        epoch=1,
        clock=BrokerTime(),
        on_superseded=lambda _newer: None,
        on_refused=lambda item, _reason, _detail: refused.append(item),
    )
    listing.catch_up()
    assert refused == [b"signed by nobody"]
    assert not stage.admin.exists(names.control(HOST))


def bury_what_is_no_message(stage: Stage) -> None:
    stage.admin.lpush(names.dead(HOST), *["letter"] * DEAD_LETTERS)
    with _session(stage) as session:
        refusals = Refusals(session.outbox, stage.client(), host=HOST, clock=session.time)
        refusals.report(b"no message", "malformed", "none")
    assert stage.admin.llen(names.dead(HOST)) == DEAD_LETTERS


def report(stage: Stage) -> None:
    with _session(stage) as session:
        claim = session.begun()
        session.endings.succeed(claim, reply={}, duration_seconds=0.1)
        Sender(session.outbox, stage.client(), _own(stage)).send(session.outbox.unsent())
    assert stage.admin.exists(names.result(claim.run_id))


def look_after_reports(stage: Stage) -> None:
    with _session(stage) as session:
        session.outbox.report(Kind.HOST_REGISTERED)
        session.outbox.mark_sent(session.outbox.unsent())
        Sender(session.outbox, stage.client(), _own(stage))._look_after_sent()
        assert session.outbox.unsent(), "the broker has it no longer, so it is sent again"


def say_something(stage: Stage) -> None:
    streams, run_id = Streams(stage.client(), _own(stage), clock=BrokerTime()), names.new_run_id(HOST)
    stream = streams.open(run_id, 1)
    stream.say("stdout", "hello\n")
    streams._send()
    assert stage.admin.xlen(names.output(run_id)) == 1
    assert stage.admin.ttl(names.output(run_id)) > ENDED_TTL_SECONDS
    stream.close(0)
    streams._send()
    assert 0 < stage.admin.ttl(names.output(run_id)) <= ENDED_TTL_SECONDS


def beat(stage: Stage) -> None:
    presence.mark(stage.client(), heartbeat(epoch=1))


def sign_off(stage: Stage) -> None:
    stage.admin.set(names.presence(HOST), "heartbeat")
    presence.clear(stage.client(), HOST)
    assert not stage.admin.exists(names.presence(HOST))


def check_its_health(stage: Stage) -> None:
    presence.mark(stage.admin, heartbeat(epoch=1))
    assert presence.read(stage.client(), [HOST])[HOST]


def learn_whom_to_trust(stage: Stage) -> None:
    stage.admin.set(names.TRUST, factories.statement(version=2))
    own = _own(stage)
    learn(stage.client(), names.TRUST, own.learn_trust)
    assert own.trust.version == 2


def read_the_policy(stage: Stage) -> None:
    stage.admin.set(names.POLICY, policy.state("", 1, [factories.key("fleet")]))
    ruling = Ruling(stage.directory / "policy.json", _own(stage))
    learn(stage.client(), names.POLICY, ruling.learn)
    assert ruling.version == 1


def write_its_inventory(stage: Stage) -> None:
    interval = timedelta(seconds=60)
    publish.InventoryKey(stage.client(), host=HOST, interval=interval, clock=clock.BrokerClock()).write(())
    assert stage.admin.exists(names.inventory(HOST))


def tell_flower(stage: Stage) -> None:
    with _consuming(stage) as connection:
        app: Any = consumer.make_app(HOST, stage.address, **_options(stage))
        app.events.Dispatcher(connection, hostname=names.worker_node(HOST)).send("worker-heartbeat")


NEEDS: Needs = MappingProxyType(
    {
        "": {
            "~fleet:h:h1:*": take_an_epoch,
            "+ping": connect_the_consumer,
            "+time": ask_the_time,
            "+client|setname": ask_the_time,
            "+client|setinfo": ask_the_time,
            "+multi": take_an_epoch,
            "+exec": take_an_epoch,
            "+watch": take_an_epoch,
            "+unwatch": wait_for_another_session,
            "+get": take_an_epoch,
            "+set": take_an_epoch,
            "+blmove": hand_over,
            "+lmove": restore_former_inboxes,
            "+llen": restore_former_inboxes,
            "+rpush": put_strays_back,
            "+lrem": put_strays_back,
            "+lrange": read_the_control_list,
            "+lpush": bury_what_is_no_message,
            "+rpop": bury_what_is_no_message,
            "+xadd": say_something,
            "+expire": say_something,
        },
        "fleet:presence:h1": {
            "~fleet:presence:h1": beat,
            "+set": beat,
            "+get": wait_for_another_session,
            "+mget": check_its_health,
            "+del": sign_off,
        },
        "fleet:inventory:h1": {
            "%W~fleet:inventory:h1": write_its_inventory,
            "%W~celery-task-meta-h1:*": report,
            "+set": report,
        },
        "fleet:reports:h1": {"%W~fleet:reports:h1": report, "+lpush": report, "+llen": look_after_reports},
        "fleet:trust": {
            "%R~fleet:trust": learn_whom_to_trust,
            "%R~fleet:policy": read_the_policy,
            "+get": learn_whom_to_trust,
        },
        "fleet:reports:dirty": {"%W~fleet:reports:dirty": report, "+sadd": report},
        "&celery-task-meta-h1:*": {
            "&celery-task-meta-h1:*": report,
            "&fleet:h:h1:out:*": say_something,
            "&/h-h1.celeryev/*": tell_flower,
            "+publish": report,
        },
    }
)


def _own(stage: Stage) -> Own:
    """Return what the host's parts know of it, with its user at the stage's broker."""
    held = factories.credential(HOST).model_copy(update={"broker_url": SecretStr(stage.address.url)})
    path = stage.directory / "credential.json"
    credentials.save(path, held)
    return Own(path, held)


def _options(stage: Stage) -> dict[str, Any]:
    return {
        "takes_work": lambda: True,
        "on_reconciled": lambda: None,
        "pulse": Pulse(),
        "on_malformed": lambda _item, _problem: None,
        "inbox": INBOX,
        "link": stage.client(),
        "login": _own(stage).login,
    }


@contextmanager
def _consuming(stage: Stage, **options: Any) -> Iterator[Any]:
    app = consumer.make_app(HOST, stage.address, **{**_options(stage), **options})
    with app.connection_for_read() as connection:
        yield connection


@contextmanager
def _session(stage: Stage) -> Iterator[Session]:
    with closing(Session(stage.directory / "journal.db")) as session:
        yield session


def heartbeat(*, epoch: int) -> Heartbeat:
    return Heartbeat(
        host=HOST,
        at=1.0,
        epoch=epoch,
        version="test",
        address="h1",
        port=8000,
        pid=1,
        started_at=clock.now(),
        loop_age_seconds=None,
        in_hand=0,
        queue_length=0,
        docker_reachable=None,
    )
