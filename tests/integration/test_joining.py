"""A host joins over the broker: the enrollment desk on one side, `join` on the other, on both brokers."""

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import (
    address,
    audit,
    credentials,
    db,
    enrollment,
    errors,
    inventory,
    joining,
    keyring,
    members,
    names,
    tokens,
)
from fleet.broker import login
from fleet.broker.connection import connect
from fleet.contracts.control import InventoryRequested
from fleet.contracts.enrollment import EnrollmentAnswer, EnrollmentRequest, SealedRequest, SignedAnswer, SignedRequest
from fleet.dispatch import membership
from fleet.keyring import Keyring, Keyrings
from fleet.security import sealing, trust
from fleet.security.keys import KeyPair, Purpose, fingerprint
from fleet.security.sealing import Opener
from fleet.security.trust import Trust
from tests import factories
from tests.services.broker import Broker
from tests.services.waiting import until
from workers.control.enrollment import EnrollmentDesk
from workers.control.enrollment import _opened as opened

SOON = timedelta(seconds=1)
#: For what takes its time on a busy machine.
LONG = timedelta(seconds=60)
RING = factories.ring()
OPENER = RING.opener(RING.newest.public).public
#: The key of whoever asks.
MACHINE = factories.key("a machine")


@pytest.fixture
def server(any_broker: Broker) -> Broker:
    return any_broker


@pytest.fixture
def caller(server: Broker) -> Iterator["redis.Redis"]:
    with server.connect() as opened:
        yield opened


@pytest.fixture
def engine(engine: Engine) -> Engine:
    with db.session(engine) as session:
        factories.found(session)
    return engine


@pytest.fixture
def desk(engine: Engine, server: Broker) -> Iterator[EnrollmentDesk]:
    """A desk that is not at work yet."""
    with connect(server.address, name="desk") as client:
        made = EnrollmentDesk(engine=engine, client=client, keyrings=factories.HeldKeyrings())
        yield made
        made.stop()
        assert made.stopped.wait(30)


def create(engine: Engine, server: Broker, **more: Any) -> str:
    """Return a token that the broker knows."""
    wishes = {"ring": RING, "broker_url": server.url, "created_by": "alice", **more}
    with server.connect() as client, db.session(engine) as session:
        token = enrollment.create_token(session, **wishes)
        members.admit_token(session, client, wishes["ring"], token)
        return token


def unknown(url: str) -> str:
    """Return a token that nobody made."""
    return tokens.new(broker_url=url, fleet=fingerprint(RING.newest.public)).text()


def asked(token: str, **more: Any) -> dict[str, Any]:
    """Return what a host asks, as JSON."""
    parsed = tokens.parse(token)
    return {
        "v": 2,
        "request_id": str(uuid.uuid4()),
        "token_id": parsed.id,
        "secret": parsed.secret,
        "host": "edge-7",
        "version": "0.1.0",
        "not_after": 4e9,
        "key": MACHINE.public,
        "answer_to": Opener.generate().public,
        "broker_hash": "ab" * 32,
        **more,
    }


def request(token: str, **more: Any) -> bytes:
    return sealed(json.dumps(asked(token, **more)))


def sealed(text: str, *, by: KeyPair = MACHINE, to: str = RING.newest.public, for_: str = OPENER) -> bytes:
    """Return a request as it lies in the broker: signed, and sealed to the fleet."""
    signed = SignedRequest(text=text, signature=by.sign(Purpose.ENROLLMENT, text.encode()))
    item = SealedRequest(to=to, sealed=sealing.seal(signed.model_dump_json().encode(), for_))
    return item.model_dump_json().encode()


def uses_left(engine: Engine) -> int:
    with db.session(engine, write=False) as session:
        [token] = enrollment.list_tokens(session)
        return token.uses_left


def reasons(engine: Engine) -> list[str]:
    with db.session(engine, write=False) as session:
        return [event.data["reason"] for event in audit.events(session, event="enrollment.refused", after_id=0)]


def test_a_host_gets_its_credential_and_is_in_the_registry_by_then(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    desk.start()
    token = create(engine, server, labels={"env": "prod"})
    with caller.pubsub(ignore_subscribe_messages=True) as watcher:
        watcher.subscribe(names.WATCH)
        watcher.get_message(timeout=30)
        credential = joining.join(token, host="edge-7", version="0.1.0")
        trusted = Trust.in_keys([RING.newest.public])
        ((host, entry),) = caller.hgetall(names.HOSTS).items()
        member = membership.read(host, entry, trust=trusted)
        assert (member.identity.host, member.labels, member.takes_work) == ("edge-7", {"env": "prod"}, True)
        assert member.identity == trusted.host(credential.credential)
        assert KeyPair.read(credential.private_key.get_secret_value()).public == member.identity.key
        assert (credential.host, credential.labels) == ("edge-7", {"env": "prod"})
        own = address.parse(credential.broker_url.get_secret_value())
        assert (own.username, login.without(own.url)) == ("h-edge-7", server.url)
        with connect(own, name="edge-7") as host_client:
            assert host_client.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                host_client.get(names.presence("edge-8"))
        message = watcher.get_message(timeout=30)
    assert message is not None
    told = json.loads(message["data"])
    assert (told["event"], told["host"]) == ("host.enrolled", "edge-7")
    assert caller.keys("fleet:enroll:*") == []


def test_a_refusal_says_why_and_what_to_do(desk: EnrollmentDesk, engine: Engine, server: Broker) -> None:
    desk.start()
    token = create(engine, server)
    joining.join(token, host="edge-7", version="0.1.0")
    with pytest.raises(errors.EnrollmentRefused) as caught:
        joining.join(token, host="edge-8", version="0.1.0")
    assert str(caught.value) == (
        "enrollment refused: this token does not enroll this host: it may be used up, expired, revoked or meant for "
        "another host; `fleet token create` makes a new token"
    )


def test_the_brokers_address_can_be_another_than_the_tokens(
    desk: EnrollmentDesk, engine: Engine, server: Broker
) -> None:
    desk.start()
    token = create(engine, server, broker_url="redis://127.0.0.1:1/0")
    credential = joining.join(token, host="edge-7", version="0.1.0", broker_url=server.url)
    assert login.without(credential.broker_url.get_secret_value()) == server.url


def test_without_a_control_worker_it_says_so_and_the_request_left_behind_uses_nothing_up(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server)
    with pytest.raises(errors.Unreachable) as caught:
        joining.join(token, host="edge-7", version="0.1.0", patience=SOON)
    assert str(caught.value) == (
        f"no control worker answered at {server.url} within 1 s; is `fleet control` running on that broker? then try "
        "again: the token is not used up"
    )
    assert caller.llen(names.ENROLL_REQUESTS)
    desk.start()
    until(lambda: not caller.llen(names.ENROLL_REQUESTS), "the desk has read what was left behind")
    until(lambda: "late" in reasons(engine), "it was refused")
    assert uses_left(engine) == 1
    joining.join(token, host="edge-7", version="0.1.0")


def test_a_request_that_was_lost_with_a_control_worker_is_put_again(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host="edge-7", version="0.1.0", patience=LONG)
        assert caller.brpop([names.ENROLL_REQUESTS], timeout=30)  # taken by somebody who dies with it
        desk.start()
        assert joined.result().host == "edge-7"


def test_an_answer_that_was_lost_with_a_control_worker_is_given_again(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host="edge-7", version="0.1.0", patience=LONG)
        item: Any = caller.brpop([names.ENROLL_REQUESTS], timeout=30)
        put = opened(item[1].encode(), RING)
        with db.session(engine) as session:  # and dies before it answers
            enrollment.redeem(session, put, ring=RING, broker_time=put.not_after - 5)
        desk.start()
        assert joined.result().host == "edge-7"
    assert uses_left(engine) == 0
    assert reasons(engine) == []


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The file of the fleet's keys."""
    path = tmp_path / "signing-keys.json"
    content = json.dumps({"keys": [factories.key("fleet").secret().get_secret_value()]})
    credentials.write_private(path, content, what="keys", remedy="")
    return path


@pytest.fixture
def real_desk(engine: Engine, server: Broker, keys: Path) -> Iterator[EnrollmentDesk]:
    """A desk with the keys of that file, read once already."""
    with connect(server.address, name="desk") as client:
        keyrings = Keyrings(keys, lambda: db.session(engine))
        made = EnrollmentDesk(engine=engine, client=client, keyrings=keyrings)
        yield made
        made.stop()
        assert made.stopped.wait(30)


def rotate(engine: Engine, keys: Path) -> Keyring:
    """Make the next key, as another process does."""
    with db.session(engine) as session:
        return keyring.rotate(session, keys, by="alice")


def test_a_host_that_is_enrolled_anew_finds_no_words_for_its_former_key(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    """It would refuse each of them, on record."""
    desk.start()
    joining.join(create(engine, server), host="edge-7", version="0.1.0", patience=LONG)
    with db.session(engine) as session:
        members.tell(session, caller, RING, {"edge-7": InventoryRequested()})
    assert caller.llen(names.control("edge-7")) == 1
    joining.join(create(engine, server, host_id="edge-7"), host="edge-7", version="0.1.0", patience=LONG)
    assert caller.llen(names.control("edge-7")) == 0


def test_a_host_that_joins_right_after_a_key_was_made_hears_of_that_key(
    real_desk: EnrollmentDesk, engine: Engine, server: Broker, keys: Path
) -> None:
    token = create(engine, server)
    ring = rotate(engine, keys)
    real_desk.start()
    credential = joining.join(token, host="edge-7", version="0.1.0", patience=LONG)
    with db.session(engine, write=False) as session:
        assert trust.read(credential.trust, [RING.newest.public]) == keyring.stated(session)
    assert ring.has_issued(credential.credential)
    by_the_next = create(engine, server, ring=ring)
    assert joining.join(by_the_next, host="edge-8", version="0.1.0", patience=LONG).host == "edge-8"
    assert reasons(engine) == []


def test_a_desk_without_a_key_of_the_fleets_lets_nobody_in_until_it_is_there(
    real_desk: EnrollmentDesk, engine: Engine, server: Broker, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = create(engine, server)
    before = keys.read_text()
    rotate(engine, keys)
    after = keys.read_text()
    keys.write_text(before)
    with pytest.raises(errors.LocalFault, match="is not in it; copy the file"):
        real_desk.serve(request(token))
    real_desk.start()
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host="edge-7", version="0.1.0", patience=LONG)
        until(lambda: "enrollment.paused" in caplog.text, "the desk is paused")
        assert "is not in it; copy the file" in caplog.text
        assert uses_left(engine) == 1
        keys.write_text(after)
        with db.session(engine, write=False) as session:
            assert trust.read(joined.result().trust, [RING.newest.public]) == keyring.stated(session)
    assert reasons(engine) == []


def test_twenty_hosts_join_at_once_by_one_token_at_two_desks(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server, uses=20)
    with connect(server.address, name="desk-2") as client:
        second = EnrollmentDesk(engine=engine, client=client, keyrings=factories.HeldKeyrings())
        desk.start()
        second.start()
        with ThreadPoolExecutor(20) as pool:
            joined = [
                pool.submit(joining.join, token, host=f"edge-{n}", version="0.1.0", patience=LONG) for n in range(20)
            ]
            assert sorted(each.result().host for each in joined) == sorted(f"edge-{n}" for n in range(20))
        second.stop()
        assert second.stopped.wait(30)
    assert reasons(engine) == [], "nobody took another's answer and had to ask again"
    assert caller.hlen(names.HOSTS) == 20


def test_the_broker_may_be_away_for_a_moment_while_a_host_joins(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host="edge-7", version="0.1.0", patience=LONG)
        until(lambda: caller.llen(names.ENROLL_REQUESTS), "the request is put")
        server.stop(kill=True)
        server.start()
        desk.start()
        assert joined.result().host == "edge-7"
    assert uses_left(engine) == 0


GARBAGE = [
    b"",
    b"null",
    b"{}",
    b"[]",
    b"\xff\xfe\x00",
    b'{"host": "edge-7"}',
    b'{"host": "\\ud800"}',
    b"[" * 4000,
    b"x" * 70_000,
    b"\x80\x04\x95pickle",
    sealed(""),
    sealed("[]"),
    sealed("[" * 5000),
    sealed(json.dumps({"host": "edge-7"})),
    sealed("{}", to=factories.key("another fleet").public),
    sealed("{}", for_=Opener.generate().public),
    b'{"to": "%s", "sealed": "e30.e30.e30.e30.e30"}' % RING.newest.public.encode(),
]


def test_what_cannot_be_read_is_audited_and_the_next_host_gets_in(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    desk.start()
    for item in GARBAGE:
        caller.lpush(names.ENROLL_REQUESTS, item)
    assert joining.join(create(engine, server), host="edge-7", version="0.1.0").host == "edge-7"
    assert reasons(engine) == ["malformed request"] * len(GARBAGE)


ODD = [
    {"request_id": "r" * 5000},
    {"request_id": "../../x"},
    {"request_id": "r" * 37},
    {"request_id": "\x00"},
    {"token_id": "\x00"},
    {"token_id": "*"},
    {"token_id": "0" * 17},
    {"secret": "\x00" * 43, "host": "a\x00"},
    {"secret": 7},
    {"version": "v" * 65},
    {"not_after": "NaN"},
    {"not_after": None},
    {"host": ["edge-7"]},
    {"host": "x" * 300},
    {"host": "a\x00b"},
    {"host": "control"},
    {"host": "Ｈ1"},
    {"key": factories.key("another machine").public},
    {"key": "x" * 42},
    {"answer_to": "x" * 44},
    {"answer_to": "A" * 43},  # whatever is sealed to it, everybody can open
    {"broker_hash": "ab" * 31 + "AB"},
    {"broker_hash": "nopass +@all"},
]


def test_no_field_of_a_request_keeps_the_next_host_out(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    desk.start()
    token = create(engine, server)
    for odd in ODD:
        caller.lpush(names.ENROLL_REQUESTS, request(token, **odd))
    assert joining.join(token, host="edge-8", version="\x1b[2J" + "0" * 100).host == "edge-8"
    with db.session(engine, write=False) as session:
        assert [host.id for host in inventory.hosts(session)] == ["edge-8"]
        assert audit.verify(session) is None
    assert len(reasons(engine)) == len(ODD)


def test_a_reply_key_that_somebody_has_spoiled_harms_that_request_alone(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    desk.start()
    spoiled = asked(create(engine, server), host="edge-6")
    caller.set(names.enroll_reply(spoiled["token_id"], spoiled["request_id"]), "x")
    caller.lpush(names.ENROLL_REQUESTS, sealed(json.dumps(spoiled)))
    assert joining.join(create(engine, server), host="edge-7", version="0.1.0").host == "edge-7"
    assert "s3cret" not in caplog.text
    assert spoiled["secret"] not in caplog.text


def test_a_fault_of_the_database_pauses_the_desk_and_no_more(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    token = create(engine, server)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE enrollment_token RENAME TO away")
    desk.start()
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host="edge-7", version="0.1.0", patience=LONG)
        until(lambda: "enrollment.paused" in caplog.text, "the desk is paused")
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO enrollment_token")
        assert joined.result().host == "edge-7"
    assert caplog.text.count("enrollment.paused") == 1
    assert tokens.parse(token).secret not in caplog.text


def test_an_answer_nobody_fetches_is_gone_after_a_minute(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    put = asked(create(engine, server))
    answer = desk.serve(sealed(json.dumps(put)))
    assert answer is not None
    key = names.enroll_reply(put["token_id"], answer.request_id)
    assert 30 < caller.ttl(key) <= 60


def test_the_desk_starts_once_and_stops_at_once_also_before_the_start(desk: EnrollmentDesk, engine: Engine) -> None:
    never = EnrollmentDesk(engine=engine, client=desk._client, keyrings=factories.HeldKeyrings())
    never.stop()
    never.stop()
    assert never.stopped.is_set()
    desk.start()
    desk.start()
    assert [thread.name for thread in threading.enumerate()].count("enrollment") == 1
    desk.stop()
    desk.stop()
    assert desk.stopped.wait(30)
    until(lambda: "enrollment" not in [thread.name for thread in threading.enumerate()], "no thread is left")


def test_a_broker_that_is_not_there_is_one_error_without_the_password() -> None:
    token = unknown("redis://:s3cret@127.0.0.1:1/0")
    with pytest.raises(errors.BrokerUnavailable, match="cannot be reached") as caught:
        joining.join(token, host="edge-7", version="0.1.0")
    assert "s3cret" not in str(caught.value)
    assert tokens.parse(token).broker_password() not in str(caught.value)


def test_a_token_that_the_broker_does_not_know_is_one_error(server: Broker) -> None:
    """It may be used up or expired, and its user gone with it."""
    token = unknown(server.url)
    with pytest.raises(errors.EnrollmentRefused) as caught:
        joining.join(token, host="edge-7", version="0.1.0")
    said = str(caught.value)
    assert said.startswith(
        f"the broker at {server.url} does not take this token: it may be used up, expired or revoked"
    )
    assert said.endswith("`fleet token create` makes a new one")
    assert tokens.parse(token).broker_password() not in said


def test_nothing_is_said_to_another_control_plane_than_the_one_that_made_the_token(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server)
    for impostor in (factories.statement("another fleet"), "", "{}", "\x00", factories.statement()[:-2]):
        caller.set(names.TRUST, impostor)
        with pytest.raises(errors.EnrollmentRefused, match="is not the one that made this token; nothing was said"):
            joining.join(token, host="edge-7", version="0.1.0")
    caller.delete(names.TRUST)
    with pytest.raises(errors.BrokerEmpty, match="nothing was sent"):
        joining.join(token, host="edge-7", version="0.1.0")
    assert caller.llen(names.ENROLL_REQUESTS) == 0


def test_an_answer_that_the_fleet_did_not_give_is_not_taken(
    desk: EnrollmentDesk, engine: Engine, server: Broker, caller: "redis.Redis"
) -> None:
    token = create(engine, server)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(joining.join, token, host="edge-7", version="0.1.0", patience=LONG)
        item: Any = until(lambda: caller.lindex(names.ENROLL_REQUESTS, 0), "the request is put")
        put = opened(item.encode(), RING)
        refusal = EnrollmentAnswer(request_id=put.request_id, outcome="refused", reason="because", host="edge-7")
        text = refusal.model_dump_json()
        signed = SignedAnswer(text=text, signature=MACHINE.sign(Purpose.ENROLLMENT, text.encode()))
        reply = names.enroll_reply(put.token_id, put.request_id)
        for forged in (
            "x",
            text,
            signed.model_dump_json(),
            sealing.seal(signed.model_dump_json().encode(), put.answer_to),
        ):
            caller.lpush(reply, forged)
        desk.start()
        assert joined.result().host == "edge-7"


@pytest.mark.parametrize("host", ["../x", "a/b", "*", "Ｈ1", "x" * 300, "control"])
def test_a_name_that_is_no_host_id_never_reaches_the_broker(host: str) -> None:
    token = unknown("redis://127.0.0.1:1/0")
    with pytest.raises(errors.InvalidValue):
        joining.join(token, host=host, version="0.1.0")


def test_the_secret_is_masked_wherever_a_request_is_shown(engine: Engine, server: Broker) -> None:
    token = create(engine, server)
    assert tokens.parse(token).secret not in repr(EnrollmentRequest.model_validate(asked(token)))
