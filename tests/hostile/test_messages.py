"""Messages of an attacker: what is not whole, signed, for this host, in time and permitted never runs."""

import base64
import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import chain, chord

from fleet import address, clock, errors, names
from fleet.broker import app as broker_app
from fleet.broker.channel import MAX_MESSAGE_BYTES
from fleet.contracts.credentials import PrincipalCredential
from fleet.contracts.envelope import HEADER, LONGEST_WAY_SECONDS, Envelope
from fleet.dispatch import RunSignature
from fleet.security import identity, signing
from fleet.security.identity import Level, PrincipalIdentity
from fleet.security.keys import KeyPair, encode
from tests.hostile.siege import AT_ONCE, EFFECT, Siege
from tests.services.waiting import until

Message = dict[str, Any]

#: What Celery writes into the headers of a task message.
CELERYS_HEADERS = frozenset(
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr origin "  # noqa: SIM905
    "ignore_result replaced_task_nesting stamped_headers stamps".split()
)


@pytest.fixture(scope="module")
def captured(siege: Siege) -> Message:
    """A message as it went over the wire; its run is over."""
    return siege.template()


@pytest.fixture
def good(siege: Siege, captured: Message) -> Message:
    """Such a message for a run of its own, signed by alice: it would run."""
    return siege.signed(siege.fresh(captured), siege.held_by("alice"))


def key_of(held: PrincipalCredential) -> KeyPair:
    return KeyPair.read(held.private_key.get_secret_value())


def other(value: Any) -> Any:
    """Return another value of the same kind, one character away where there are any."""
    match value:
        case str() if value:
            return value[:-1] + ("a" if value[-1] != "a" else "b")
        case bool():
            return not value
        case int() | float():
            return value + 1
        case dict():
            return {**value, "x": 1}
        case list():
            return [*value, 1]
        case _:
            return "x"


def test_what_is_signed_and_whole_runs(siege: Siege, good: Message) -> None:
    siege.send(good)
    until(lambda: siege.ran(good["headers"]["id"]), "the positive of all that follows")


def test_every_header_that_is_sent_is_tried_here(captured: Message) -> None:
    assert set(captured["headers"]) == CELERYS_HEADERS | {HEADER, signing.HEADER}
    assert set(captured["headers"][HEADER]) == set(Envelope.model_fields)
    assert set(captured) == {"headers", "body", "content-type", "content-encoding", "properties"}


# --- one byte of something that is signed ---


@pytest.mark.parametrize("name", sorted(CELERYS_HEADERS))
def test_a_header_that_was_changed_is_refused(siege: Siege, good: Message, name: str) -> None:
    good["headers"][name] = other(good["headers"][name])
    refused(siege, good, {"not_trusted", "malformed"})


@pytest.mark.parametrize("name", [name for name in Envelope.model_fields if name != "v"])
def test_a_field_of_the_envelope_that_was_changed_is_refused(siege: Siege, good: Message, name: str) -> None:
    good["headers"][HEADER][name] = 4e9 if name.startswith("not_") else other(good["headers"][HEADER][name])
    refused(siege, good, {"not_trusted", "malformed"})


@pytest.mark.parametrize("name", ["body", "content-type", "content-encoding"])
def test_a_part_of_the_message_that_was_changed_is_refused(siege: Siege, good: Message, name: str) -> None:
    good[name] = good[name].replace("effects", "effectz") if name == "body" else other(good[name])
    siege.refuses(good, "not_trusted")


@pytest.mark.parametrize("name", ["credential", "signature"])
def test_a_byte_of_the_signature_itself_that_was_changed_is_refused(siege: Siege, good: Message, name: str) -> None:
    good["headers"][signing.HEADER][name] = other(good["headers"][signing.HEADER][name])
    siege.refuses(good, "not_trusted")


@pytest.mark.parametrize("name", ["added", "removed"])
def test_a_header_too_many_or_too_few_is_refused(siege: Siege, good: Message, name: str) -> None:
    if name == "added":
        good["headers"]["x"] = 1
    else:
        del good["headers"]["shadow"]
    siege.refuses(good, "not_trusted")


def test_what_is_not_signed_decides_nothing(siege: Siege, good: Message) -> None:
    good["properties"] = {
        "correlation_id": "h2:other",
        "reply_to": "somebody",
        "delivery_mode": 1,
        "delivery_info": {"exchange": "reply", "routing_key": "fleet:h:h2:q", "redelivered": True},
        "priority": 9,
        "body_encoding": "base64",
        "delivery_tag": "1",
    }
    siege.send({**good, "x": "y"})
    until(lambda: siege.ran(good["headers"]["id"]), "it runs as it was signed")


def test_the_task_cannot_be_swapped(siege: Siege, good: Message) -> None:
    good["headers"]["task"] = "fleet.host.ping"
    siege.refuses(good, "not_trusted")


@pytest.mark.parametrize("task", ["celery.backend_cleanup", "celery.chord", "fleet.beat.heartbeat", "os.system", ""])
def test_a_task_that_no_contract_offers_is_rejected_whoever_signs(siege: Siege, good: Message, task: str) -> None:
    good["headers"]["task"] = task
    siege.rejects(siege.signed(good, siege.held_by("alice")), "unknown_task")


# --- again, and elsewhere ---


def test_a_message_that_comes_again_runs_once_also_after_a_restart(siege: Siege, good: Message) -> None:
    run_id, before = good["headers"]["id"], siege.mark()
    siege.send(good)
    until(lambda: siege.ran(run_id), "it runs")
    siege.works()
    siege.send(good)
    siege.heard("message.refused", after=before, reason="repeated")
    assert siege.worker("h1").stop() == 0
    siege.send(good)  # for a minute it may be what the former session left there itself, and the audit says nothing
    siege.start_worker("h1")
    siege.works()
    assert siege.ran(run_id) == 1


def test_a_message_of_another_hosts_queue_is_refused(siege: Siege) -> None:
    pushed = siege.fleet.push(EFFECT, on="h2", arguments={"log": str(siege.effects)}, offline="queue").run_ids[0]
    [item] = siege.redis.lrange(names.queue("h2"), 0, -1)  # type: ignore[misc]
    siege.redis.delete(names.queue("h2"))
    siege.refuses(item.encode(), "misdirected")
    assert not siege.ran(pushed)


# --- signed by somebody else ---


def test_without_a_signature_it_is_refused(siege: Siege, good: Message) -> None:
    del good["headers"][signing.HEADER]
    siege.refuses(good, "not_trusted")


@pytest.mark.parametrize("signature", [None, "", [], {}, {"credential": "", "signature": ""}, 7], ids=repr)
def test_with_something_else_instead_of_a_signature_it_is_refused(siege: Siege, good: Message, signature: Any) -> None:
    good["headers"][signing.HEADER] = signature
    siege.refuses(good, "not_trusted")


def test_a_host_signs_nothing_that_others_carry_out(siege: Siege, good: Message) -> None:
    for host in ("h1", "h2"):
        siege.refuses(siege.signed(good, siege.held_by_host(host)), "not_trusted")


def test_a_host_that_shows_a_principals_credential_lacks_its_key(siege: Siege, good: Message) -> None:
    host, alice = siege.held_by_host("h2"), siege.held_by("alice")
    signing.sign_message(good, KeyPair.read(host.private_key.get_secret_value()), alice.credential)
    siege.refuses(good, "not_trusted")


def test_a_principal_of_another_fleet_is_nobody_here(siege: Siege, good: Message) -> None:
    alice, elsewhere = siege.held_by("alice"), KeyPair.generate()
    forged = identity.issue(known_as(siege, "alice", key=key_of(alice).public), elsewhere)
    siege.refuses(siege.signed(good, alice.model_copy(update={"credential": forged})), "not_trusted")


def test_another_principals_credential_needs_that_ones_key(siege: Siege, good: Message) -> None:
    bob, alice = siege.known("bob"), siege.held_by("alice")
    signing.sign_message(good, key_of(bob), alice.credential)
    siege.refuses(good, "not_trusted")


def test_nobody_pushes_in_anothers_name(siege: Siege, good: Message) -> None:
    siege.refuses(siege.signed(good, siege.known("bob")), "not_trusted")


def _none(claims: Message, _key: str) -> str:
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def _hmac_with_the_public_key(claims: Message, key: str) -> str:
    import hashlib
    import hmac

    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    return f"{text}.{encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())}"


def _with_a_key_in_the_header(claims: Message, _key: str) -> str:
    own = KeyPair.generate()
    head = {"alg": "Ed25519", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": own.public}}
    text = f"{part(head)}.{part(claims)}"
    return f"{text}.{encode(own._private.sign(text.encode()))}"


def part(value: Message) -> str:
    return encode(json.dumps(value).encode())


@pytest.mark.parametrize("forge", [_none, _hmac_with_the_public_key, _with_a_key_in_the_header])
def test_a_credential_by_another_algorithm_than_the_fleets_is_refused(
    siege: Siege, good: Message, forge: Callable[[Message, str], str]
) -> None:
    alice = siege.held_by("alice")
    claims = json.loads(base64.urlsafe_b64decode(alice.credential.split(".")[1] + "=="))
    with siege.control_plane() as (_session, _client, ring):
        forged = forge(claims, ring.newest.public)
    siege.refuses(siege.signed(good, alice.model_copy(update={"credential": forged})), "not_trusted")


# --- signed by somebody who may not ---


def known_as(siege: Siege, name: str, *, key: str, ends: timedelta = timedelta(days=1)) -> PrincipalIdentity:
    now = clock.now()
    return PrincipalIdentity(
        name=name,
        key=key,
        level=Level.AUTONOMOUS,
        serial=9,
        issued_at=now.timestamp(),
        expires_at=(now + ends).timestamp(),
    )


def pushed_by(siege: Siege, captured: Message, held: PrincipalCredential) -> Message:
    message = siege.fresh(captured)
    message["headers"][HEADER]["submitted_by"] = held.name
    return siege.signed(message, held)


def test_an_expired_credential_is_rejected(siege: Siege, captured: Message) -> None:
    carol = siege.known("carol")
    with siege.control_plane() as (_session, _client, ring):
        over = ring.issue(known_as(siege, "carol", key=key_of(carol).public, ends=timedelta(seconds=-1)))
    expired = carol.model_copy(update={"credential": over})
    siege.rejects(pushed_by(siege, captured, expired), "credential_expired")


def test_a_revoked_credential_is_rejected(siege: Siege, captured: Message) -> None:
    dave = siege.known("dave")
    assert siege.command("principal", "revoke", "dave", "--yes").returncode == 0
    message = pushed_by(siege, captured, dave)
    until(lambda: not siege.redis.lrange(names.control("h1"), 0, -1), "the host has read who counts no more")
    siege.rejects(message, "credential_revoked")


def test_a_level_that_is_too_low_is_rejected(siege: Siege, captured: Message) -> None:
    low = siege.known("low-student", Level.STUDENT)
    siege.rejects(pushed_by(siege, captured, low), "not_permitted")


@pytest.mark.parametrize("level", [Level.INTERN, Level.SUPERVISED])
def test_what_is_beyond_a_level_waits_for_somebody_else_and_has_no_effect(
    siege: Siege, captured: Message, level: Level
) -> None:
    low = siege.known(f"low-{level}", level)
    message = pushed_by(siege, captured, low)
    before = siege.mark()
    siege.send(message)
    siege.works("h1")
    found = siege.heard("run.awaiting_approval", after=before)
    assert found.run_id == message["headers"]["id"]
    assert not siege.ran(found.run_id)


def test_hosts_that_a_principal_may_not_address_reject_what_it_pushes(siege: Siege, captured: Message) -> None:
    staging = siege.known("staging", selectors={"env": "staging"})
    siege.rejects(pushed_by(siege, captured, staging), "not_permitted")


def test_under_anothers_run_nothing_can_be_slipped_in_or_taken_away(siege: Siege, captured: Message) -> None:
    """The id of a run is no secret: whoever watches the fleet reads it."""
    student = siege.known("low-student", Level.STUDENT)
    good = siege.signed(siege.fresh(captured), siege.held_by("alice"))
    run_id = good["headers"]["id"]
    siege.send(good)
    until(lambda: siege.ran(run_id), "alice's ran")
    theirs = pushed_by(siege, captured, student)
    theirs["headers"]["id"] = run_id
    siege.send(siege.signed(theirs, student))
    siege.works()
    assert "rejected" not in [event.event for event in siege.life(run_id)]
    assert siege.ran(run_id) == 1


# --- odd in form ---


def raw(message: Message, old: str, new: str) -> bytes:
    text = json.dumps(message)
    assert text.count(old) == 1, text
    return text.replace(old, new).encode()


ODD: dict[str, Callable[[Message], bytes]] = {
    "a key twice": lambda m: raw(m, '"lang": "py"', '"lang": "py", "lang": "py"'),
    "a signature twice": lambda m: raw(m, '"fleet-signature": {', '"fleet-signature": {}, "fleet-signature": {'),
    "a body twice": lambda m: raw(m, '"body":', '"body": "[[], {}, {}]", "body":'),
    "NaN": lambda m: raw(m, '"retries": 0', '"retries": NaN'),
    "infinite": lambda m: raw(m, '"retries": 0', '"retries": -Infinity'),
    "10,000 deep": lambda m: raw(m, '"retries": 0', '"retries": ' + "[" * 10_000 + "]" * 10_000),
    "10,000 deep, and nothing else": lambda _m: b"[" * 10_000,
    "no JSON": lambda _m: b"\x00\x01\xff",
    "nothing": lambda _m: b"",
    "a number": lambda _m: b"7",
    "a list": lambda _m: b"[]",
    "no headers": lambda _m: b'{"body": "", "properties": {}}',
    "odd headers": lambda _m: b'{"headers": [], "body": ""}',
    "pickle": lambda _m: pickle.dumps({"headers": {}}),
    "compressed as a whole": lambda m: gzip.compress(json.dumps(m).encode()),
    "UTF-16": lambda m: json.dumps(m).encode("utf-16"),
    "half a surrogate pair": lambda m: raw(m, '"lang": "py"', '"lang": "\\ud800"'),
    "cut off": lambda m: json.dumps(m).encode()[:-20],
    "a body that is no text": lambda m: json.dumps({**m, "body": {"log": 1}}).encode(),
    "a compressed body": lambda m: json.dumps({**m, "headers": {**m["headers"], "compression": "gzip"}}).encode(),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_read_in_one_way_alone_is_refused(siege: Siege, good: Message, name: str) -> None:
    before = siege.mark()
    siege.send(ODD[name](good))
    siege.works()
    found = siege.heard("message.refused", after=before)
    assert found.data["reason"] in {"malformed", "not_trusted"}
    assert not siege.ran(good["headers"]["id"])


SIGNED_AND_ODD: dict[str, tuple[Callable[[Message], None], str]] = {
    "a pickle body": (lambda m: m.update({"content-type": "application/x-python-serialize"}), "malformed"),
    "a yaml body": (lambda m: m.update({"content-type": "application/x-yaml"}), "malformed"),
    "no content type": (lambda m: m.update({"content-type": None}), "malformed"),
    "a body in base64": (lambda m: m.update({"content-encoding": "base64"}), "malformed"),
    "a binary body": (lambda m: m.update({"content-encoding": "binary"}), "malformed"),
    "an argument too many": (lambda m: arguments(m, more=1), "invalid_arguments"),
    "an argument of another type": (lambda m: arguments(m, seconds="x"), "invalid_arguments"),
    "an argument twice": (
        lambda m: m.update({"body": m["body"].replace('{"log"', '{"log": "/x", "log"')}),
        "malformed",
    ),
    "an argument that is NaN": (lambda m: m.update({"body": '[[], {"log": "/x", "seconds": NaN}, {}]'}), "malformed"),
    "arguments 10,000 deep": (lambda m: m.update({"body": "[" * 10_000 + "]" * 10_000}), "malformed"),
    "arguments by position": (lambda m: m.update({"body": '[["/x"], {}, {}]'}), "invalid_arguments"),
    "a link": (lambda m: embedded(m, callbacks=[{"task": "x"}]), "callbacks"),
    "a link for errors": (lambda m: embedded(m, errbacks=[{"task": "x"}]), "callbacks"),
    "a chain": (lambda m: embedded(m, chain=[{"task": "x"}]), "callbacks"),
    "a chord": (lambda m: embedded(m, chord={"task": "x"}), "callbacks"),
    "Celery's time": (lambda m: m["headers"].update(eta="2030-01-01T00:00:00+00:00"), "malformed"),
    "Celery's expiry": (lambda m: m["headers"].update(expires="2030-01-01T00:00:00+00:00"), "malformed"),
    "Celery's time limit": (lambda m: m["headers"].update(timelimit=[1, 1]), "malformed"),
    "from the future": (lambda m: moved(m, 3600), "from_the_future"),
    "from last quarter": (lambda m: moved(m, -LONGEST_WAY_SECONDS - 3600), "stale"),
    # SQLite takes what pydantic has written, and from 200 levels on pydantic does not read it any more
    "metadata 65 deep": (lambda m: m["headers"][HEADER].update(metadata=nested(65)), "malformed"),
    "metadata 220 deep": (lambda m: m["headers"][HEADER].update(metadata=nested(220)), "malformed"),
    "for next year": (lambda m: m["headers"][HEADER].update(not_before=4e9), "malformed"),
}


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = {"a": found}
    return found


def arguments(message: Message, **more: Any) -> None:
    args, given, embed = json.loads(message["body"])
    message["body"] = json.dumps([args, {**given, **more}, embed])


def embedded(message: Message, **more: Any) -> None:
    args, given, embed = json.loads(message["body"])
    message["body"] = json.dumps([args, given, {**embed, **more}])


def moved(message: Message, seconds: float) -> None:
    message["headers"][HEADER]["submitted_at"] += seconds


@pytest.mark.parametrize("name", SIGNED_AND_ODD)
def test_what_no_host_takes_is_rejected_also_where_it_is_signed(siege: Siege, captured: Message, name: str) -> None:
    change, reason = SIGNED_AND_ODD[name]
    message = siege.fresh(captured)
    change(message)
    siege.rejects(siege.signed(message, siege.held_by("alice")), reason)


@pytest.mark.parametrize("change", [{"x": 1}, {"v": 1}, {"v": 3}, {"v": None}, {"retry": {"x": 1}}], ids=repr)
def test_an_envelope_that_this_version_does_not_know_is_refused(
    siege: Siege, captured: Message, change: Message
) -> None:
    message = siege.fresh(captured)
    message["headers"][HEADER] |= change
    siege.refuses(siege.signed(message, siege.held_by("alice")), "malformed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("submitted_at", "not_before", "not_after") for value in ("nan", "inf", "-inf")),
        ("limits", {"hard_seconds": "nan"}),
        ("retry", {"backoff_seconds": "nan"}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_moments_that_nothing_can_be_reckoned_with_are_refused_and_the_host_goes_on(
    siege: Siege, captured: Message, field: str, value: Any
) -> None:
    message = siege.fresh(captured)
    message["headers"][HEADER][field] = value
    siege.refuses(siege.signed(message, siege.held_by("alice")), "malformed")


def test_what_comes_late_expires(siege: Siege, captured: Message) -> None:
    message = siege.fresh(captured)
    message["headers"][HEADER]["not_after"] = message["headers"][HEADER]["submitted_at"] - 1
    before = siege.mark()
    siege.send(siege.signed(message, siege.held_by("alice")))
    siege.works()
    assert siege.heard("run.expired", after=before).run_id == message["headers"]["id"]
    assert not siege.ran(message["headers"]["id"])


@pytest.mark.parametrize("filler", [b"[],", b'{"a":0},', b" "], ids=["lists", "objects", "nothing"])
def test_a_message_of_64_mebibytes_is_refused_unread(siege: Siege, filler: bytes) -> None:
    """Read as JSON the lists alone would take more than a gigabyte of the host's memory."""
    size = 64 * 2**20
    before, worker = siege.mark(), Path(f"/proc/{siege.worker('h1').process.pid}/status")
    siege.send(b"[" + filler * (size // len(filler)) + b"0]")
    siege.heard("message.refused", after=before, reason="too_large")
    siege.works()
    peak = next(line for line in worker.read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 700_000, peak


def test_a_signed_message_over_the_limit_is_refused(siege: Siege, captured: Message) -> None:
    message = siege.fresh(captured)
    arguments(message, log="x" * MAX_MESSAGE_BYTES)
    siege.refuses(siege.signed(message, siege.held_by("alice")), "too_large")


def refused(siege: Siege, message: Message, reasons: set[str]) -> None:
    before = siege.mark()
    siege.send(message)
    siege.works()
    assert siege.heard("message.refused", after=before).data["reason"] in reasons
    assert not siege.ran(message["headers"]["id"])
    assert not siege.life(message["headers"]["id"]), "nothing was said of the run that it names"


# --- refused where they are pushed ---


@pytest.fixture
def nothing_is_sent(siege: Siege) -> Iterator[None]:
    """Whatever a test tries: no list has an item more at its end, and no audit event says anything."""
    siege.works()
    until(lambda: not siege.redis.llen(names.reports("p:alice")), "all is taken in")
    inboxes = names.inbox("h1", 1).removesuffix("1") + "*"
    until(lambda: not list(siege.redis.scan_iter(match=inboxes)), "what has run has left the inbox")

    def lists() -> dict[str, int]:
        """Return what waits, but for what h1 and the control plane say to each other about the run before."""
        theirs = (names.reports("h1"), names.control("h1"))
        found = [str(key) for key in siege.redis.scan_iter(match="*", _type="LIST") if key not in theirs]
        return {key: length for key in found if (length := siege.redis.llen(key))}  # type: ignore[misc]

    before = lists()
    yield
    assert lists() == before
    siege.works()


def test_two_principals_of_one_process_push_each_in_their_own_name(siege: Siege) -> None:
    siege.works()
    siege.known("bob")
    with siege.fleet_of("bob") as fleet:
        bobs = fleet.push(EFFECT, on="h1", arguments={"log": str(siege.effects)}).results[0]
        alices = siege.works()
        assert bobs.get(timeout=AT_ONCE)
        assert siege.record(bobs.id, state="succeeded").submitted_by == "bob"
        assert siege.record(alices, state="succeeded").submitted_by == "alice"


@pytest.mark.parametrize("option", ["link", "link_error", "chain", "chord", "queue", "exchange", "routing_key"])
def test_an_option_that_leads_elsewhere_is_refused_where_it_is_pushed(
    siege: Siege, nothing_is_sent: None, option: str
) -> None:
    task = siege.fleet.dispatcher.task(EFFECT)
    with pytest.raises(errors.UsageError, match=option):
        task.apply_async(kwargs={"log": "/x"}, host="h1", **{option: task.s()})


def test_chains_and_chords_are_refused_where_they_are_pushed(siege: Siege, nothing_is_sent: None) -> None:
    task = siege.fleet.dispatcher.task(EFFECT)
    signature: Any = RunSignature(task, kwargs={"log": "/x"}, app=task.app, options={"host": "h1"})
    for made in (chain(signature.clone(), signature.clone()), chord([signature.clone()], signature.clone())):
        with pytest.raises(errors.UsageError):
            made.apply_async()


def test_celerys_own_send_task_is_refused_where_it_is_called(siege: Siege, nothing_is_sent: None) -> None:
    queue = kombu.Queue(names.queue("h1"), kombu.Exchange(""), names.queue("h1"), no_declare=True)
    app: Any = siege.fleet.dispatcher.app
    with pytest.raises(errors.UsageError, match="envelope"):
        app.send_task(EFFECT, (), {"log": "/x"}, task_id=names.new_run_id("h1"), queue=queue)


def test_an_app_without_a_credential_sends_nothing(siege: Siege, nothing_is_sent: None) -> None:
    app = broker_app.make(
        "thief",
        broker=address.parse(siege.held_by("alice").broker_url.get_secret_value()),
        transport="fleet.broker.channel:Transport",
        transport_options={},
    )
    queue = kombu.Queue(names.queue("h1"), kombu.Exchange(""), names.queue("h1"), no_declare=True)
    send: Any = app.send_task
    with pytest.raises(errors.CredentialUnusable):
        send(EFFECT, (), {"log": "/x"}, task_id=names.new_run_id("h1"), queue=queue)
    app.close()


def test_a_caller_without_a_file_gets_an_error_and_nothing_is_sent(siege: Siege, nothing_is_sent: None) -> None:
    with siege.fleet_of("nobody") as fleet, pytest.raises(errors.CredentialUnusable):
        fleet.push(EFFECT, on="h1", arguments={"log": "/x"})


def test_a_caller_whose_credential_is_over_gets_an_error_and_nothing_is_sent(
    siege: Siege, nothing_is_sent: None
) -> None:
    erin = siege.known("erin")
    with siege.control_plane() as (_session, client, ring):
        over = ring.issue(known_as(siege, "erin", key=key_of(erin).public, ends=timedelta(seconds=-1)))
        client.hset(names.PRINCIPALS, "erin", over)  # the newest word, which a caller goes by
    with siege.fleet_of("erin") as fleet, pytest.raises(errors.CredentialUnusable, match="expired"):
        fleet.push(EFFECT, on="h1", arguments={"log": "/x"})


@pytest.mark.parametrize(
    ("name", "wishes"),
    [("low-student", {"level": Level.STUDENT}), ("staging", {"selectors": {"env": "staging"}})],
    ids=["level", "hosts"],
)
def test_a_caller_who_may_not_gets_an_error_and_nothing_is_sent(
    siege: Siege, nothing_is_sent: None, name: str, wishes: dict[str, Any]
) -> None:
    siege.known(name, **wishes)
    with siege.fleet_of(name) as fleet, pytest.raises(errors.NotPermitted):
        fleet.push(EFFECT, on="h1", arguments={"log": "/x"})


# --- a host whose clock is wrong ---


@pytest.mark.parametrize("off", ["-5h", "+5h"])
def test_a_host_whose_clock_is_off_by_hours_goes_by_the_brokers(siege: Siege, captured: Message, off: str) -> None:
    host = "behind" if off.startswith("-") else "ahead"
    siege.enroll(host)
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    worker = siege.start_worker(host, LD_PRELOAD=str(library), FAKETIME=off, FAKETIME_DONT_FAKE_MONOTONIC="1")
    siege.works(host)
    valid = siege.fleet.push(EFFECT, on=host, arguments={"log": str(siege.effects)}, expires=60).results[0]
    assert valid.get(timeout=AT_ONCE)
    message = siege.fresh(siege.template(host))
    message["headers"][HEADER]["not_after"] = message["headers"][HEADER]["submitted_at"] - 60
    before = siege.mark()
    siege.send(siege.signed(message, siege.held_by("alice")), host=host)
    assert siege.heard("run.expired", after=before).run_id == message["headers"]["id"]
    ahead = siege.fresh(siege.template(host))
    moved(ahead, 3600)
    siege.rejects(siege.signed(ahead, siege.held_by("alice")), "from_the_future", host=host)
    worker.stop()  # whatever it says: libfaketime breaks time.sleep
