"""Enrollment under attack: a token lets one host in, one control plane hears its secret, a name inherits nothing."""

import base64
import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from redis.exceptions import NoPermissionError

from fleet import address, clock, credentials, db, enrollment, errors, inventory, joining, members, names, tokens
from fleet.broker import login
from fleet.broker.connection import connect
from fleet.contracts.enrollment import EnrollmentAnswer, EnrollmentRequest, SealedRequest, SignedAnswer, SignedRequest
from fleet.models import EnrollmentToken, Host
from fleet.security import acl, broker_users, sealing, trust
from fleet.security.keys import KeyPair, Purpose
from fleet.security.sealing import Opener
from fleet.tokens import Token
from tests.hostile.recorder import recorded
from tests.hostile.siege import EFFECT, Siege
from tests.services.broker import Broker, emptied, serve
from tests.services.waiting import until

SOON = timedelta(seconds=1.5)
REFUSED = re.escape(enrollment._REFUSED)


def join(token: str, host: str, **more: Any) -> Any:
    return joining.join(token, host=host, version="test", **more)


def new_name() -> str:
    return f"n-{uuid.uuid4().hex[:12]}"


def row(siege: Siege, token: str) -> EnrollmentToken:
    with db.session(siege.engine, write=False) as session:
        found = session.get_one(EnrollmentToken, tokens.parse(token).id)
        session.expunge(found)
        return found


def alter(siege: Siege, token: str, **changes: Any) -> None:
    with db.session(siege.engine) as session:
        session.add(session.get_one(EnrollmentToken, tokens.parse(token).id).sqlmodel_update(changes))


def host_row(siege: Siege, host: str) -> Host | None:
    with db.session(siege.engine, write=False) as session:
        found = session.get(Host, host)
        session.expunge_all()
        return found


class Joiner:
    """Somebody who holds a token, and asks by hand."""

    def __init__(self, siege: Siege, token: str, *, stays: bool = False) -> None:
        """With `stays` the broker is asked as somebody whom the control plane does not take out with the token."""
        self.siege, self.token, self.key, self.opener = (
            siege,
            tokens.parse(token),
            KeyPair.generate(),
            Opener.generate(),
        )
        where = login.at(siege.broker.url, login.joiner_user(self.token.id), self.token.broker_password())
        own = connect(address.parse(where.get_secret_value()), name="joiner")
        self.client: redis.Redis = siege.redis if stays else own

    def request(self, **changes: Any) -> EnrollmentRequest:
        values = {
            "request_id": str(uuid.uuid4()),
            "token_id": self.token.id,
            "secret": SecretStr(self.token.secret),
            "host": new_name(),
            "version": "test",
            "not_after": float(self.siege.time()[0] + 30),
            "key": self.key.public,
            "answer_to": self.opener.public,
            "broker_hash": login.hashed(login.new_password()),
            **changes,
        }
        return EnrollmentRequest.model_validate(values)

    def put(self, request: EnrollmentRequest, *, signer: KeyPair | None = None) -> None:
        text = request.model_dump_json()
        signed = SignedRequest(text=text, signature=(signer or self.key).sign(Purpose.ENROLLMENT, text.encode()))
        said: Any = self.client.get(names.TRUST)
        fleet_key, seal_to = trust.recognise(said, self.token.fleet)
        sealed = sealing.seal(signed.model_dump_json().encode(), seal_to)
        self.client.lpush(names.ENROLL_REQUESTS, SealedRequest(to=fleet_key, sealed=sealed).model_dump_json())

    def ask(self, **changes: Any) -> EnrollmentAnswer:
        request = self.request(**changes)
        self.put(request)
        reply: Any = self.client.brpop([names.enroll_reply(self.token.id, request.request_id)], timeout=30)
        signed = SignedAnswer.model_validate_json(self.opener.open(reply[1]))
        return EnrollmentAnswer.model_validate_json(signed.text)


# --- one token, one host ---


@pytest.mark.parametrize("same", [True, False], ids=["one name", "twenty names"])
def test_of_twenty_who_show_one_token_at_once_one_gets_in(siege: Siege, *, same: bool) -> None:
    token, name = siege.token(), new_name()

    def attempt(number: int) -> str:
        try:
            return str(join(token, name if same else f"{name}-{number}").host)
        except errors.EnrollmentRefused:
            return ""

    with ThreadPoolExecutor(20) as pool:
        let_in = [host for host in pool.map(attempt, range(20)) if host]
    assert len(let_in) == 1
    assert row(siege, token).uses_left == 0
    suspect = host_row(siege, let_in[0])
    assert suspect
    assert suspect.suspect, "nineteen others have the token"
    siege.works()


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same_and_nothing_is_used_up(siege: Siege) -> None:
    expired, revoked, others, good = siege.token(), siege.token(), siege.token(host_id="other"), siege.token()
    alter(siege, expired, expires_at=clock.now() - timedelta(seconds=1))
    alter(siege, revoked, revoked_at=clock.now())
    before = siege.mark()
    answers = [
        Joiner(siege, expired, stays=True).ask(host="n1"),
        Joiner(siege, revoked, stays=True).ask(host="n1"),
        Joiner(siege, others).ask(host="n1"),
        Joiner(siege, good).ask(host="n1", secret=SecretStr("x" * 43)),
    ]
    said = {(answer.outcome, answer.reason, answer.credential, answer.trust) for answer in answers}
    assert said == {("refused", enrollment._REFUSED, "", "")}
    for reason in ("used up or expired", "revoked", "another host's token", "wrong secret"):
        siege.heard("enrollment.refused", after=before, reason=reason)
    assert [row(siege, token).uses_left for token in (expired, revoked, others, good)] == [1, 1, 1, 1]
    assert host_row(siege, "n1") is None
    assert join(good, "n1").host == "n1"


def test_a_token_that_is_shown_again_is_on_record_and_marks_its_host(siege: Siege) -> None:
    token, mine = siege.token(), new_name()
    join(token, mine)
    before = siege.mark()
    with pytest.raises(errors.EnrollmentRefused, match=REFUSED):
        join(token, new_name())
    assert siege.heard("host.suspected", after=before).host_id == mine
    shown = json.loads(siege.command("host", "show", mine, "-o", "json").stdout)
    assert "shown again" in shown["suspect"]


def test_a_member_is_enrolled_again_only_by_a_token_for_it(siege: Siege) -> None:
    name = new_name()
    first = join(siege.token(), name)
    with pytest.raises(errors.EnrollmentRefused, match="enrolled already"):
        join(siege.token(), name)
    with pytest.raises(errors.EnrollmentRefused, match=REFUSED):
        join(siege.token(host_id="other"), name)
    second = join(siege.token(host_id=name), name)
    assert second.private_key.get_secret_value() != first.private_key.get_secret_value()
    with siege.thief(first) as former, pytest.raises(redis.AuthenticationError):
        former.ping()


ODD_NAMES = [
    "../x",
    "a/b",
    "*",
    "celery/",
    "unacked*",
    "Ｈ1",
    "x" * 300,
    "",
    "-x",
    "x-",
    "X",
    "h1\n",
    "h1\x00",
    "control",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_that_is_no_host_id_makes_no_key_no_user_and_no_file(siege: Siege, name: str) -> None:
    token = siege.token()
    known, before = set(siege.redis.acl_users()), siege.mark()  # type: ignore[arg-type]
    answer = Joiner(siege, token).ask(host=name)
    assert (answer.outcome, answer.reason) == ("refused", enrollment._REFUSED)
    siege.heard("enrollment.refused", after=before, reason="not a host id")
    assert set(siege.redis.acl_users()) == known  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidValue):
        join(token, name)
    assert row(siege, token).uses_left == 1
    assert not list(siege.directory.glob("hosts/*x*"))


@pytest.mark.parametrize("name", ["celery", "unacked"])
def test_a_name_that_celery_uses_is_one_like_any_other(siege: Siege, name: str) -> None:
    """Keys of hosts stand under a prefix of their own, so nothing of kombu's is ever called so."""
    siege.enroll(name)
    siege.start_worker(name)
    siege.works(name)
    assert siege.worker(name).stop() == 0


def test_nobody_enrolls_anothers_key(siege: Siege) -> None:
    joiner, before = Joiner(siege, siege.token()), siege.mark()
    joiner.put(joiner.request(), signer=KeyPair.generate())
    siege.heard("enrollment.refused", after=before, reason="malformed request")
    siege.works()


@pytest.mark.parametrize("item", [b"", b"{}", b"\xff", b"[" * 5_000, b"x" * 2**20], ids=lambda item: repr(item[:10]))
def test_what_is_no_request_is_on_record_and_the_next_host_gets_in(siege: Siege, item: bytes) -> None:
    joiner, before = Joiner(siege, siege.token()), siege.mark()
    joiner.client.lpush(names.ENROLL_REQUESTS, item)  # type: ignore[arg-type]
    siege.heard("enrollment.refused", after=before, reason="malformed request")
    assert joiner.ask().outcome == "accepted"


# --- the other control plane ---


@pytest.fixture(scope="module")
def another_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from serve("valkey", tmp_path_factory.mktemp("impostor"))


@pytest.fixture
def impostor(another_broker: Broker) -> Broker:
    """Somebody else's broker, who would like to know the secrets of those who come."""
    return emptied(another_broker)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What joining hosts make and keep from now on: private keys and passwords."""
    made: list[str] = []
    generate, password = KeyPair.generate, login.new_password

    def generated() -> KeyPair:
        key = generate()
        made.append(key.secret().get_secret_value())
        return key

    def new_password() -> str:
        made.append(password())
        return made[-1]

    monkeypatch.setattr(joining.KeyPair, "generate", generated)
    monkeypatch.setattr(login, "new_password", new_password)
    return made


def welcomes(impostor: Broker, token: Token) -> None:
    """Let somebody in with any password."""
    with impostor.connect() as client:
        client.execute_command("ACL", "SETUSER", f"join-{token.id}", "reset", "on", "nopass", "~*", "&*", "+@all")


def tells_nothing(data: bytes, secrets: list[str]) -> None:
    """Look for secrets as they are, and in everything that is base64 or JSON inside."""
    found = [bytes(data)]
    for word in re.findall(rb"[A-Za-z0-9_-]{16,}", bytes(data)):
        with contextlib.suppress(ValueError):  # 1 character more than bytes take
            found.append(base64.urlsafe_b64decode(word + b"=" * (-len(word) % 4)))
    for secret in secrets:
        forms = (secret.encode(), secret.encode().hex().encode(), base64.b64encode(secret.encode()).rstrip(b"="))
        assert not [form for form in forms for text in found if form in text]
        if len(secret) == 43:
            raw = base64.urlsafe_b64decode(secret + "=")
            assert not [text for text in found if raw in text]


def test_a_control_plane_with_another_key_is_told_no_secret(
    siege: Siege, impostor: Broker, besieged: Any, secrets: list[str]
) -> None:
    with recorded(impostor.port) as tap:
        token = replace(tokens.parse(siege.token()), broker_url=tap.url)
        welcomes(impostor, token)
        other = trust.state(
            trust.Statement(version=99, keys=(KeyPair.generate().public,)),
            {KeyPair.generate(): Opener.generate().public},
        )
        with impostor.connect() as client:
            for said in (other, "", "{}", "\ud800".encode("utf-8", "surrogatepass"), "[" * 10_000):
                client.set(names.TRUST, said)
                with pytest.raises(errors.FleetError):
                    join(token.text(), "n2", patience=SOON)
            assert not client.llen(names.ENROLL_REQUESTS)
        assert tap.said
        tells_nothing(tap.said, [token.secret, *secrets])


def test_a_control_plane_that_says_the_true_words_and_cannot_open_learns_no_secret(
    siege: Siege, impostor: Broker, secrets: list[str]
) -> None:
    with recorded(impostor.port) as tap:
        token = replace(tokens.parse(siege.token()), broker_url=tap.url)
        welcomes(impostor, token)
        true: Any = siege.redis.get(names.TRUST)
        with impostor.connect() as client:
            client.set(names.TRUST, true)
            with pytest.raises(errors.Unreachable):
                join(token.text(), "n2", patience=4 * SOON)  # it has to have asked
            assert client.llen(names.ENROLL_REQUESTS), "it has the request, sealed to another"
        tells_nothing(tap.said, [token.secret, *secrets])
    assert len(secrets) == 2


def test_a_control_plane_that_announces_an_opener_of_its_own_is_not_believed(siege: Siege, impostor: Broker) -> None:
    with recorded(impostor.port) as tap:
        token = replace(tokens.parse(siege.token()), broker_url=tap.url)
        welcomes(impostor, token)
        said = json.loads(siege.redis.get(names.TRUST))  # type: ignore[arg-type]
        for public in said["openers"]:
            said["openers"][public]["key"] = Opener.generate().public
        with impostor.connect() as client:
            client.set(names.TRUST, json.dumps(said))
            with pytest.raises(errors.EnrollmentRefused, match="not the one that made this token"):
                join(token.text(), "n2")
        tells_nothing(tap.said, [token.secret])


def test_who_hears_a_whole_enrollment_learns_no_secret(siege: Siege, secrets: list[str]) -> None:
    with recorded(siege.broker.port) as tap:
        token, name = siege.token(), new_name()
        held = join(token, name, broker_url=tap.url)
        own = [held.private_key.get_secret_value(), login_of(held)]
        assert set(own) == set(secrets)
        tells_nothing(tap.said, [tokens.parse(token).secret, *own])
        tells_nothing(tap.told, [tokens.parse(token).secret, *own])


def login_of(held: Any) -> str:
    return str(address.parse(held.broker_url.get_secret_value()).password)


# --- answers ---


@pytest.fixture
def no_control(siege: Siege) -> Iterator[None]:
    """The control worker is away; a test plays what the broker's owner can do in between."""
    control = next(part for part in siege.parts if "control" in part.process.args and part.process.poll() is None)  # type: ignore[operator]
    assert control.stop() == 0
    yield
    siege.start_control()
    siege.works()


def test_answers_that_are_another_requests_or_sealed_to_another_are_passed_over(siege: Siege, no_control: None) -> None:
    token, name = siege.token(host_id=new_name()), ""
    name = row(siege, token).host_id or ""
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(join, token, name)
        item: Any = siege.redis.brpop([names.ENROLL_REQUESTS], timeout=30)
        sealed = SealedRequest.model_validate_json(item[1])
        with siege.control_plane() as (session, client, ring):
            opened = SignedRequest.model_validate_json(ring.opener(sealed.to).open(sealed.sealed))
            request = EnrollmentRequest.model_validate_json(opened.text)
            answer, _event = enrollment.redeem(session, request, ring=ring, broker_time=request.not_after - 5)
            members.admit_host(client, inventory.host(session, name))
            signer = ring.newest

        def put(told: EnrollmentAnswer, *, to: str, by: KeyPair) -> None:
            text = told.model_dump_json()
            signed = SignedAnswer(text=text, signature=by.sign(Purpose.ENROLLMENT, text.encode()))
            reply = names.enroll_reply(request.token_id, request.request_id)
            siege.redis.lpush(reply, sealing.seal(signed.model_dump_json().encode(), to))
            until(lambda: joined.done() or not siege.redis.llen(reply), "it is read")

        put(answer.model_copy(update={"request_id": str(uuid.uuid4())}), to=request.answer_to, by=signer)
        put(answer, to=Opener.generate().public, by=signer)
        put(answer, to=request.answer_to, by=KeyPair.generate())
        put(answer.model_copy(update={"outcome": "refused"}), to=request.answer_to, by=KeyPair.generate())
        assert not joined.done()
        put(answer, to=request.answer_to, by=signer)
        assert joined.result().host == name


def test_a_credential_of_another_host_is_not_taken(siege: Siege) -> None:
    """Not even from the fleet itself: it is for another key."""
    other = siege.held_by_host("h2")
    with siege.control_plane() as (_session, _client, ring):
        believed = trust.Trust.in_keys([ring.newest.public])
    answer = EnrollmentAnswer(
        request_id=str(uuid.uuid4()), outcome="accepted", host="h2", credential=other.credential, trust=other.trust
    )
    with pytest.raises(errors.EnrollmentRefused, match="another host's"):
        joining._credential(answer, believed, key=KeyPair.generate(), broker_url=other.broker_url, broker_ca=None)


def test_a_joiner_can_ask_and_read_its_own_answers_and_nothing_else(siege: Siege) -> None:
    one, two = Joiner(siege, siege.token()), Joiner(siege, siege.token())
    theirs, client = names.enroll_reply(two.token.id, str(uuid.uuid4())), one.client
    command: Any = client.execute_command
    for words in (
        ("BRPOP", theirs, "0.1"),
        ("LPUSH", theirs, "x"),
        ("DEL", theirs),
        ("LRANGE", names.ENROLL_REQUESTS, "0", "-1"),
        ("BRPOP", names.ENROLL_REQUESTS, "0.1"),
        ("DEL", names.ENROLL_REQUESTS),
        ("SET", names.TRUST, "x"),
        ("GET", names.presence("h1")),
        ("HGETALL", names.HOSTS),
        ("HGETALL", names.PRINCIPALS),
        ("LPUSH", names.queue("h1"), "x"),
        ("LPUSH", names.control("h1"), "x"),
        ("SUBSCRIBE", names.WATCH),
        ("PUBLISH", names.WATCH, "x"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("ACL", "WHOAMI"),
        ("CLIENT", "LIST"),
        ("EVAL", "return 1", "0"),
        ("MONITOR",),
        ("FLUSHALL",),
        ("INFO",),
        ("MULTI",),
    ):
        with pytest.raises(NoPermissionError):
            command(*words)
    assert one.ask().outcome == "accepted"


def test_a_joiners_user_outlives_its_use_and_is_gone_a_minute_after_its_time(siege: Siege) -> None:
    token = siege.token()
    user = f"join-{tokens.parse(token).id}"
    first, before = new_name(), siege.mark()
    join(token, first)
    alter(siege, token, expires_at=clock.now() - timedelta(seconds=20))
    with siege.control_plane() as (session, client, _ring):
        members.prune_joiners(session, client)
    assert user in siege.redis.acl_users(), "it may still have to read its answer"
    with pytest.raises(errors.EnrollmentRefused, match="does not enroll this host"):
        join(token, new_name())
    assert siege.heard("host.suspected", after=before).host_id == first
    alter(siege, token, expires_at=clock.now() - timedelta(seconds=61))
    with siege.control_plane() as (session, client, _ring):
        members.prune_joiners(session, client)
    assert user not in siege.redis.acl_users()
    with pytest.raises(errors.EnrollmentRefused, match="does not take this token"):
        join(token, new_name())


# --- a name that is given again ---


def test_a_revoked_name_that_is_enrolled_again_inherits_nothing(siege: Siege) -> None:
    name = new_name()
    siege.enroll(name, labels={"env": "prod", "tier": "edge"})
    siege.start_worker(name)
    with siege.wire() as wire:
        assert siege.command("host", "pause", name).returncode == 0
        words = wire.sent_to(names.control(name))
    assert siege.command("host", "resume", name).returncode == 0
    siege.works(name)
    assert siege.worker(name).stop() == 0
    former = siege.held_by_host(name)
    waiting = [
        siege.fleet.push(EFFECT, on=name, arguments={"log": str(siege.effects)}, offline="queue").run_ids[0]
        for _ in range(2)
    ]
    siege.record(waiting[-1], state="queued")
    messages: Any = siege.redis.lrange(names.queue(name), 0, -1)
    assert len(messages) == 2
    siege.redis.set(names.presence(name), "{}")
    siege.redis.set(names.inventory(name), "{}")
    assert siege.command("host", "revoke", name, "--yes").returncode == 0
    assert sorted(siege.redis.scan_iter(match=f"fleet:h:{name}:*")) in ([], [names.epoch(name)])
    assert not siege.redis.exists(names.presence(name), names.inventory(name))
    assert not siege.redis.hexists(names.HOSTS, name)
    with pytest.raises(errors.HostNotEnrolled):
        siege.fleet.push(EFFECT, on=name, arguments={"log": "/x"})

    credentials.save(siege.settings.credential_path(name), join(siege.token(), name))
    found = host_row(siege, name)
    assert found
    assert (found.labels, found.availability, found.suspect, found.keys) == (
        {},
        "active",
        None,
        [siege.held_by_host(name).credential and key_in(siege, name)],
    )
    with siege.thief(former) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    siege.start_worker(name)
    siege.works(name)
    for message in messages:
        siege.refuses(message.encode(), "misdirected", host=name)
    before = siege.mark()
    for word in words:
        siege.redis.lpush(names.control(name), word)  # type: ignore[arg-type]
        siege.heard("message.refused", after=before, reason="not_trusted")
    siege.works(name)
    for run in waiting:  # and nobody sends it to the new one
        siege.record(run, state="unknown")
    assert [siege.ran(run) for run in waiting] == [0, 0]
    assert siege.worker(name).stop() == 0


def key_in(siege: Siege, name: str) -> str:
    return KeyPair.read(siege.held_by_host(name).private_key.get_secret_value()).public


def test_the_broker_users_are_those_of_members_and_usable_tokens(siege: Siege) -> None:
    with siege.control_plane() as (session, client, _ring):
        wanted = members.users(session)
        present = {user for user in client.acl_users() if user.startswith(broker_users.PREFIXES)}  # type: ignore[union-attr]
    assert present - {user for user in present if user.startswith(acl.JOINER_PREFIX)} <= wanted.keys()
