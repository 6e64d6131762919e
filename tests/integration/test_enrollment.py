"""Tokens and who is let in by them, on both databases."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlmodel import select

from fleet import audit, clock, db, enrollment, errors, inventory, tokens
from fleet.contracts.enrollment import EnrollmentAnswer, EnrollmentRequest
from fleet.models import AuditEvent, EnrollmentToken, Host
from fleet.security import trust
from fleet.security.keys import fingerprint
from fleet.security.trust import Trust
from tests import factories

URL = "rediss://:s3cret@broker:6379/0"
#: Broker's time of these tests, unix seconds.
NOW = 1_750_000_000.0


RING = factories.ring()
FLEET = Trust.in_keys([RING.newest.public])


@pytest.fixture
def engine(engine: Engine) -> Engine:
    with db.session(engine) as session:
        factories.found(session)
    return engine


def create(engine: Engine, **more: Any) -> tokens.Token:
    wishes = {"ring": RING, "broker_url": URL, "created_by": "alice", **more}
    with db.session(engine) as session:
        return tokens.parse(enrollment.create_token(session, **wishes))


def request(token: tokens.Token, *, host: str = "edge-7", **more: Any) -> EnrollmentRequest:
    values = {
        "request_id": str(uuid.uuid4()),
        "token_id": token.id,
        "secret": SecretStr(token.secret),
        "host": host,
        "version": "0.1.0",
        "not_after": NOW + 15,
        "key": factories.key("a machine").public,
        "answer_to": "x" * 43,
        "broker_hash": "ab" * 32,
        **more,
    }
    return EnrollmentRequest.model_validate(values)


def redeem(engine: Engine, asked: EnrollmentRequest) -> EnrollmentAnswer:
    with db.session(engine) as session:
        return enrollment.redeem(session, asked, ring=RING, broker_time=NOW).answer


def uses_left(engine: Engine, token: tokens.Token) -> int:
    with db.session(engine, write=False) as session:
        record = session.get(EnrollmentToken, token.id)
        assert record is not None
        return record.uses_left


def hosts(engine: Engine) -> list[Host]:
    with db.session(engine, write=False) as session:
        return inventory.hosts(session)


def recorded(engine: Engine, event: str) -> list[AuditEvent]:
    with db.session(engine, write=False) as session:
        return audit.events(session, event=event, after_id=0)


def reasons(engine: Engine) -> list[str]:
    return [event.data["reason"] for event in recorded(engine, "enrollment.refused")]


def test_a_token_lets_one_host_in_with_its_labels_once(engine: Engine) -> None:
    token = create(engine, labels={"env": "prod"})
    asked = request(token)
    answer = redeem(engine, asked)
    assert answer.model_dump(exclude={"credential", "trust"}) == {
        "v": 2,
        "request_id": asked.request_id,
        "outcome": "accepted",
        "reason": "",
        "host": "edge-7",
        "labels": {"env": "prod"},
    }
    who = FLEET.host(answer.credential)
    assert (who.host, who.key, who.labels, who.enrolled_at) == ("edge-7", asked.key, {"env": "prod"}, NOW)
    assert trust.read(answer.trust, FLEET.keys).keys == FLEET.keys
    [host] = hosts(engine)
    assert (host.id, host.membership, host.labels) == ("edge-7", "accepted", {"env": "prod"})
    assert (host.keys, host.broker_hashes, host.credential) == ([asked.key], [asked.broker_hash], answer.credential)
    [event] = recorded(engine, "host.enrolled")
    assert (event.actor, event.host_id) == (f"token:{token.id}", "edge-7")
    assert event.data == {"token": token.id, "labels": {"env": "prod"}, "version": "0.1.0", "key": asked.key}

    assert redeem(engine, request(token, host="edge-8")).outcome == "refused"
    assert [host.id for host in hosts(engine)] == ["edge-7"]
    assert reasons(engine) == ["used up or expired"]


def test_only_a_hash_of_the_secret_is_kept_anywhere(engine: Engine) -> None:
    token = create(engine)
    redeem(engine, request(token))
    redeem(engine, request(token, host="edge-8"))
    with db.session(engine, write=False) as session:
        everything = repr(
            [row.model_dump() for table in (EnrollmentToken, Host, AuditEvent) for row in session.exec(select(table))]
        )
    assert token.secret not in everything
    assert token.broker_password() not in everything
    assert "s3cret" not in everything
    assert tokens.hash_secret(token.secret) in everything


def test_making_and_revoking_is_audited(engine: Engine) -> None:
    token = create(engine, host_id="edge-7", uses=3, ttl=timedelta(hours=1), labels={"env": "prod"})
    with db.session(engine) as session:
        enrollment.revoke_token(session, token.id, revoked_by="bob")
        enrollment.revoke_token(session, token.id, revoked_by="carol")
    [created] = recorded(engine, "token.created")
    assert (created.actor, created.host_id) == ("p:alice", "edge-7")
    assert created.data["uses"] == 3
    [revoked] = recorded(engine, "token.revoked")
    assert revoked.actor == "p:bob"


def test_tokens_are_listed_the_newest_first(engine: Engine) -> None:
    made = [create(engine).id for _ in range(3)]
    with db.session(engine, write=False) as session:
        assert [record.id for record in enrollment.list_tokens(session)] == made[::-1]


def test_a_token_that_is_not_there_cannot_be_revoked(engine: Engine) -> None:
    with (
        pytest.raises(errors.NotFound, match="no token with the id '0000000000000000'; `fleet token list` shows"),
        db.session(engine) as session,
    ):
        enrollment.revoke_token(session, "0" * 16, revoked_by="bob")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"ttl": timedelta(seconds=59)}, "ttl"),
        ({"ttl": timedelta(days=30, seconds=1)}, "ttl"),
        ({"ttl": timedelta(seconds=-60)}, "ttl"),
        ({"uses": 0}, "uses"),
        ({"uses": 10_001}, "uses"),
        ({"host_id": "Edge 7"}, "host id"),
        ({"host_id": "control"}, "host id"),
        ({"labels": {"a b": "c"}}, "label"),
        ({"labels": {"env": "x" * 64}}, "value of label 'env'"),
        ({"created_by": "../root"}, "principal"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_no_token_can_be_made_of_is_refused_by_name(engine: Engine, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        create(engine, **wrong)
    assert caught.value.field == field
    assert recorded(engine, "token.created") == []


def test_one_token_from_twenty_threads_lets_exactly_one_host_in(engine: Engine) -> None:
    token = create(engine)
    begin = threading.Barrier(20)

    def ask(number: int) -> str:
        asked = request(token, host=f"edge-{number}")
        begin.wait()
        return redeem(engine, asked).outcome

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(ask, range(20)))
    assert sorted(outcomes) == ["accepted"] + ["refused"] * 19
    assert len(hosts(engine)) == 1
    assert uses_left(engine, token) == 0
    assert len(recorded(engine, "host.enrolled")) == 1
    assert reasons(engine) == ["used up or expired"] * 19


def test_a_token_for_five_lets_five_in_from_twenty_threads(engine: Engine) -> None:
    token = create(engine, uses=5)
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda n: redeem(engine, request(token, host=f"edge-{n}")).outcome, range(20)))
    assert outcomes.count("accepted") == len(hosts(engine)) == 5


def test_twenty_machines_of_one_name_are_one_host(engine: Engine) -> None:
    """Different tokens, so that only the name is what they fight for."""
    made = [create(engine) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda token: redeem(engine, request(token)).outcome, made))
    assert sorted(outcomes) == ["accepted"] + ["refused"] * 19
    assert sum(uses_left(engine, token) for token in made) == 19
    assert reasons(engine) == ["the host is enrolled already"] * 19


def test_the_same_request_at_once_and_again_has_one_answer_and_one_use(engine: Engine) -> None:
    token = create(engine, uses=20)
    asked = request(token)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: redeem(engine, asked), range(10)))
    assert {answer.model_dump_json() for answer in answers} == {answers[0].model_dump_json()}
    assert answers[0].outcome == "accepted"
    assert redeem(engine, asked.model_copy(update={"not_after": 0.0})) == answers[0]
    assert uses_left(engine, token) == 19
    assert len(recorded(engine, "host.enrolled")) == 1
    assert reasons(engine) == []


def test_nobody_gets_an_answer_again_without_the_secret(engine: Engine) -> None:
    token = create(engine, uses=2)
    asked = request(token)
    redeem(engine, asked)
    stolen = asked.model_copy(update={"secret": SecretStr("s" * 43)})
    assert redeem(engine, stolen).outcome == "refused"
    assert redeem(engine, asked.model_copy(update={"host": "edge-8", "request_id": str(uuid.uuid4())})).host == "edge-8"


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same_and_nothing_is_used_up(engine: Engine) -> None:
    good, bound, revoked, expired, used = (create(engine, host_id=host) for host in (None, "other", None, None, None))
    with db.session(engine) as session:
        enrollment.revoke_token(session, revoked.id, revoked_by="alice")
        record = session.get(EnrollmentToken, expired.id)
        assert record is not None
        record.expires_at = clock.now() - timedelta(milliseconds=1)
        session.add(record)
    redeem(engine, request(used, host="first"))
    unknown = tokens.new(broker_url=URL, fleet=fingerprint(RING.newest.public))
    asked = [
        request(good, secret=SecretStr(unknown.secret)),
        request(good, secret=SecretStr("")),
        request(unknown),
        request(bound),
        request(revoked),
        request(expired),
        request(used),
        request(good, not_after=NOW - 0.001),
    ]
    answers = [redeem(engine, each) for each in asked]
    assert {answer.reason for answer in answers} == {
        "this token does not enroll this host: it may be used up, expired, revoked or meant for another host"
    }
    assert {answer.outcome for answer in answers} == {"refused"}
    assert [uses_left(engine, token) for token in (good, bound, revoked, expired, used)] == [1, 1, 1, 1, 0]
    assert [host.id for host in hosts(engine)] == ["first"]
    assert reasons(engine) == [
        "wrong secret",
        "wrong secret",
        "unknown token",
        "another host's token",
        "revoked",
        "used up or expired",
        "used up or expired",
        "late",
    ]
    assert redeem(engine, request(good)).outcome == "accepted"


ODD_NAMES = [
    "",
    "../x",
    "a/b",
    "*",
    "Ｈ1",
    "H1",
    "-a",
    "a-",
    "a.b",
    "a b",
    "a\n",
    "a\x00b",
    "x" * 64,
    "x" * 300,
    "ｈ1",
    "ı",
    "q:*",
    "a\x1b[2J",
    "dirty",
    "control",
    '\n{"event":"approved"}',
]


@pytest.mark.parametrize("host", ODD_NAMES)
def test_what_is_no_host_id_is_refused_like_a_wrong_secret_and_the_next_host_gets_in(engine: Engine, host: str) -> None:
    token = create(engine)
    answer = redeem(engine, request(token, host=host))
    assert answer.outcome == "refused"
    assert answer.reason.startswith("this token does not enroll this host")
    assert reasons(engine) == ["not a host id"]
    assert recorded(engine, "enrollment.refused")[0].host_id is None
    assert uses_left(engine, token) == 1
    assert hosts(engine) == []
    assert redeem(engine, request(token)).outcome == "accepted"
    with db.session(engine, write=False) as session:
        assert audit.verify(session) is None


@pytest.mark.parametrize("host", ["celery", "unacked", "a", "0", "x" * 63, "unknown", "null"])
def test_names_that_only_look_odd_are_hosts_like_others(engine: Engine, host: str) -> None:
    assert redeem(engine, request(create(engine), host=host)).outcome == "accepted"


def test_a_member_is_enrolled_again_only_by_a_token_made_for_it(engine: Engine) -> None:
    redeem(engine, request(create(engine, labels={"env": "prod"})))
    another = create(engine, labels={"env": "test"})
    refused = redeem(engine, request(another))
    assert refused.outcome == "refused"
    assert refused.reason == (
        "host 'edge-7' is enrolled already; to enroll it again use `fleet token create --host-id edge-7`"
    )
    assert uses_left(engine, another) == 1

    own = create(engine, host_id="edge-7", labels={"site": "basel"})
    again = redeem(engine, request(own, key=factories.key("another machine").public))
    assert again.outcome == "accepted"
    assert again.labels == FLEET.host(again.credential).labels == {"env": "prod", "site": "basel"}
    assert len(recorded(engine, "host.enrolled")) == 2
    [host] = hosts(engine)
    assert host.keys == [factories.key("another machine").public], "the former machine is the host no more"


def test_a_token_that_is_shown_again_after_its_last_use_makes_the_host_that_came_by_it_a_suspect(
    engine: Engine,
) -> None:
    token, other = create(engine), create(engine)
    redeem(engine, request(token, secret=SecretStr("s" * 43)))
    redeem(engine, request(token))
    redeem(engine, request(other, host="edge-8"))
    redeem(engine, request(token, host="edge-9", secret=SecretStr("s" * 43)))
    assert [host.suspect for host in hosts(engine)] == [None, None], "who does not know the secret says nothing"
    for _ in range(2):
        assert redeem(engine, request(token, host="edge-9")).outcome == "refused"
    edge_7, edge_8 = hosts(engine)
    assert (edge_7.suspect, edge_8.suspect) == (f"token {token.id}, by which it came, was shown again", None)
    [event] = recorded(engine, "host.suspected")
    assert (event.actor, event.host_id) == ("control", "edge-7")
    redeem(engine, request(create(engine, host_id="edge-7")))
    assert hosts(engine)[0].suspect is None, "it came by another token since"


def test_the_address_in_a_token_has_no_password(engine: Engine) -> None:
    assert create(engine).broker_url == "rediss://broker:6379/0"


def test_who_lacks_the_secret_does_not_learn_which_hosts_there_are(engine: Engine) -> None:
    redeem(engine, request(create(engine)))
    token = create(engine)
    there = redeem(engine, request(token, secret=SecretStr("s" * 43)))
    not_there = redeem(engine, request(token, host="edge-8", secret=SecretStr("s" * 43)))
    assert there.reason == not_there.reason


def test_a_token_whose_labels_would_be_too_many_says_so_and_is_not_used_up(engine: Engine) -> None:
    redeem(engine, request(create(engine, labels={f"a{n}": "" for n in range(64)})))
    token = create(engine, host_id="edge-7", labels={"one-more": ""})
    answer = redeem(engine, request(token))
    assert answer.reason == "host 'edge-7' would have more than 64 labels; remove some of them first"
    assert uses_left(engine, token) == 1


def test_a_token_revoked_while_it_is_redeemed_is_either_used_or_revoked(engine: Engine) -> None:
    for number in range(20):
        token = create(engine)

        def revoke(token_id: str = token.id) -> None:
            with db.session(engine) as session:
                enrollment.revoke_token(session, token_id, revoked_by="alice")

        with ThreadPoolExecutor(2) as pool:
            revoking = pool.submit(revoke)
            outcome = pool.submit(redeem, engine, request(token, host=f"edge-{number}")).result().outcome
            revoking.result()
        assert uses_left(engine, token) == (0 if outcome == "accepted" else 1)
