"""Words of an attacker: on the control list, in report lists and in results, only who may say so is believed."""

import contextlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from fleet import clock, errors, names
from fleet.contracts.control import (
    CancelRun,
    ControlMessage,
    CredentialIssued,
    InventoryRequested,
    KeyRotationRequested,
    MembershipRevoked,
    ReportsAcknowledged,
    SetAvailability,
    TrustUpdated,
)
from fleet.contracts.credentials import HostCredential, PrincipalCredential
from fleet.contracts.hosts import Availability
from fleet.contracts.reports import Kind, Report
from fleet.keyring import Keyring
from fleet.models import AuditEvent
from fleet.security import signing
from fleet.security.identity import Level
from fleet.security.keys import KeyPair
from tests.hostile.siege import EFFECT, Siege
from tests.services.waiting import until

LONG = 60.0


def key_of(held: PrincipalCredential | HostCredential) -> KeyPair:
    return KeyPair.read(held.private_key.get_secret_value())


def key_of_host(siege: Siege, host: str) -> str:
    return key_of(siege.held_by_host(host)).public


def say(siege: Siege, item: str | bytes, *, host: str = "h1") -> None:
    """Put something on a host's control list, as any principal can."""
    with siege.thief(siege.held_by("alice")) as client:
        client.lpush(names.control(host), item)  # type: ignore[arg-type]


def unheard(siege: Siege, item: str | bytes, reason: str) -> AuditEvent:
    """Say something that h1 refuses for that reason; it goes on as before."""
    before = siege.mark()
    say(siege, item)
    found = siege.heard("message.refused", after=before, reason=reason)
    siege.works()
    beat = siege.heartbeat("h1")
    assert beat
    assert beat.availability == "active"
    return found


@pytest.fixture(scope="module")
def fleets(siege: Siege) -> Keyring:
    """The fleet's keys, by which the control plane speaks."""
    with siege.control_plane() as (_session, _client, ring):
        return ring


@pytest.fixture
def running(siege: Siege) -> str:
    """A run of alice on h1 that goes on for a minute."""
    wishes = {"log": str(siege.effects), "seconds": LONG}
    run_id = siege.fleet.push(EFFECT, on="h1", arguments=wishes).run_ids[0]
    siege.record(run_id, state="running")
    return run_id


# --- the control list ---

WORDS: tuple[ControlMessage, ...] = (
    SetAvailability(availability=Availability.PAUSED, by="alice", decided_at=4e9),
    MembershipRevoked(by="alice"),
    TrustUpdated(statement="{}"),
    CredentialIssued(credential="x"),
    ReportsAcknowledged(epoch=1, seq=10_000),
    InventoryRequested(),
    KeyRotationRequested(),
    CancelRun(run=names.new_run_id("h1"), by="alice"),
)


@pytest.mark.parametrize("message", WORDS, ids=lambda message: str(message.kind))
def test_a_word_that_nobody_has_signed_who_may_is_refused(siege: Siege, message: ControlMessage) -> None:
    to, text = key_of_host(siege, "h1"), message.model_dump_json()
    for signer in (KeyPair.generate(), key_of(siege.held_by("alice")), key_of(siege.held_by_host("h1"))):
        unheard(siege, signing.sign_control(to, text, signer), "not_trusted")
    host = siege.held_by_host("h1")
    unheard(siege, signing.sign_control(to, text, key_of(host), host.credential), "not_trusted")


@pytest.mark.parametrize("message", WORDS[:-1], ids=lambda message: str(message.kind))
def test_what_is_the_fleets_to_say_no_principal_says(siege: Siege, message: ControlMessage) -> None:
    alice = siege.held_by("alice")
    said = signing.sign_control(key_of_host(siege, "h1"), message.model_dump_json(), key_of(alice), alice.credential)
    unheard(siege, said, "not_permitted")


@pytest.mark.parametrize("message", WORDS, ids=lambda message: str(message.kind))
def test_a_word_to_another_host_means_nothing_here(siege: Siege, fleets: Keyring, message: ControlMessage) -> None:
    unheard(siege, fleets.word(key_of_host(siege, "h2"), message), "not_trusted")


@pytest.mark.parametrize("change", ["message", "signature", "credential"])
def test_a_word_of_which_a_byte_was_changed_is_refused(siege: Siege, fleets: Keyring, change: str) -> None:
    paused = SetAvailability(availability=Availability.PAUSED, by="alice", decided_at=4e9)
    item = json.loads(fleets.word(key_of_host(siege, "h1"), paused))
    item[change] = item[change].replace("paused", "Paused") if change == "message" else f"{item[change]}A"
    unheard(siege, json.dumps(item), "not_trusted")


@pytest.mark.parametrize(
    "item",
    [b"", b"\xff", b"{}", b"[]", b"null", b"[" * 10_000, b'{"message": 7, "signature": ""}', b"x" * 5 * 2**20],
    ids=lambda item: repr(item[:20]),
)
def test_what_is_no_word_at_all_is_refused(siege: Siege, item: bytes) -> None:
    unheard(siege, item, "not_trusted")


def test_what_the_fleet_said_of_availability_yesterday_does_not_count_again(siege: Siege) -> None:
    with siege.wire() as wire:
        for word in ("pause", "resume"):
            assert siege.command("host", word, "h1").returncode == 0
        told = wire.sent_to(names.control("h1"))
    paused = next(item for item in told if b"paused" in item)
    until(lambda: (beat := siege.heartbeat("h1")) and beat.availability == "active", "it is active again")
    say(siege, paused)
    until(lambda: not siege.redis.llen(names.control("h1")), "it is read")
    siege.works()


def test_an_older_word_that_was_held_back_does_not_count_after_a_newer_one(siege: Siege, fleets: Keyring) -> None:
    """Whoever owns the broker can keep a word, and let it go later: the newest decision counts, also one that changes
    nothing."""
    to, now = key_of_host(siege, "h1"), siege.time()[0]
    kept = fleets.word(to, SetAvailability(availability=Availability.PAUSED, by="alice", decided_at=now + 1.0))
    newer = fleets.word(to, SetAvailability(availability=Availability.ACTIVE, by="alice", decided_at=now + 2.0))
    for word in (newer, kept):  # the fleet's own words, out of order
        say(siege, word)
    until(lambda: not siege.redis.llen(names.control("h1")), "both are read")
    siege.works()


def test_nobody_cancels_in_anothers_name(siege: Siege, running: str) -> None:
    bob = siege.known("bob")
    message = CancelRun(run=running, by="alice").model_dump_json()
    unheard(
        siege, signing.sign_control(key_of_host(siege, "h1"), message, key_of(bob), bob.credential), "not_permitted"
    )
    goes_on(siege, running)


@pytest.mark.parametrize(
    ("name", "wishes"),
    [("staging", {"selectors": {"env": "staging"}}), ("student", {"level": Level.STUDENT})],
    ids=["hosts", "level"],
)
def test_who_may_not_cancel_is_refused_by_the_host(
    siege: Siege, running: str, name: str, wishes: dict[str, Any]
) -> None:
    held = siege.known(name, **wishes)
    message = CancelRun(run=running, by=name).model_dump_json()
    said = signing.sign_control(key_of_host(siege, "h1"), message, key_of(held), held.credential)
    unheard(siege, said, "not_permitted")
    goes_on(siege, running)


@pytest.mark.parametrize(
    ("name", "wishes"),
    [("staging", {"selectors": {"env": "staging"}}), ("student", {"level": Level.STUDENT})],
    ids=["hosts", "level"],
)
def test_who_may_not_cancel_does_not_get_the_control_plane_to_do_it(
    siege: Siege, name: str, wishes: dict[str, Any]
) -> None:
    """Else it would take the message out of the queue, or tell the host in the fleet's own name."""
    held = siege.known(name, **wishes)
    waiting = siege.fleet.push(EFFECT, on="h2", arguments={"log": "/x"}, offline="queue").run_ids[0]
    siege.record(waiting, state="queued")
    before = siege.mark()
    report(
        siege, held, Report(sender=f"p:{name}", kind=Kind.RUN_CANCEL_REQUESTED, run=waiting, at=clock.now().timestamp())
    )
    siege.heard("report.refused", after=before, reason="not permitted")
    siege.works()
    assert siege.redis.llen(names.queue("h2"))
    assert siege.record(waiting, state="queued").cancel_requested_by is None
    siege.fleet.cancel(waiting)  # alice may
    siege.record(waiting, state="cancelled")


def test_a_student_ends_what_is_the_students_own(siege: Siege) -> None:
    siege.known("student", Level.STUDENT)
    with siege.fleet_of("student") as fleet:
        own = fleet.push("fleet.host.ping", on="h2", offline="queue").run_ids[0]
        siege.record(own, state="queued")
        fleet.cancel(own)
    siege.record(own, state="cancelled")


def goes_on(siege: Siege, run_id: str) -> None:
    assert siege.record(run_id, state="running")
    siege.fleet.cancel(run_id)
    siege.record(run_id, state="cancelled")


# --- reports ---


def report(siege: Siege, held: PrincipalCredential, *said: Report) -> None:
    """Report as somebody does who has a principal's file."""
    item = signing.sign_reports(said[0].sender, [each.model_dump_json() for each in said], key_of(held))
    with siege.thief(held) as client:
        client.lpush(names.reports(said[0].sender), item)
        client.sadd(names.REPORTS_DIRTY, said[0].sender)


def of_h2(kind: Kind, *, seq: int, **more: Any) -> Report:
    return Report(sender="h2", kind=kind, epoch=1, seq=seq, at=clock.now().timestamp(), **more)


def put(siege: Siege, item: str | bytes, *, sender: str = "h2") -> None:
    """Put something into a list of reports, as somebody who owns the broker."""
    siege.redis.lpush(names.reports(sender), item)  # type: ignore[arg-type]
    siege.redis.sadd(names.REPORTS_DIRTY, sender)


def signed(said: Report, key: KeyPair, *, sender: str = "") -> str:
    return signing.sign_reports(sender or said.sender, [said.model_dump_json()], key)


SUCCEEDED: dict[str, Any] = {"reply": {"said": "done"}, "duration_seconds": 1.0}


@pytest.mark.parametrize("how", ["unsigned", "by nobody", "by another host", "by a principal", "garbage", "changed"])
def test_a_report_that_is_not_its_senders_changes_nothing(siege: Siege, how: str) -> None:
    run_id = siege.fleet.push(EFFECT, on="h2", arguments={"log": "/x"}, offline="queue").run_ids[0]
    siege.record(run_id, state="queued")
    said = of_h2(Kind.RUN_SUCCEEDED, seq=1, run=run_id, attempt=1, data=SUCCEEDED)
    own = key_of(siege.held_by_host("h2"))
    items = {
        "unsigned": said.model_dump_json(),
        "by nobody": signed(said, KeyPair.generate()),
        "by another host": signed(said, key_of(siege.held_by_host("h1"))),
        "by a principal": signed(said, key_of(siege.held_by("alice"))),
        "garbage": "\ud800".encode("utf-8", "surrogatepass"),
        "changed": signed(of_h2(Kind.RUN_FAILED, seq=1, run=run_id, attempt=1), own).replace("failed", "succeeded"),
    }
    before = siege.mark()
    put(siege, items[how])
    siege.heard("report.refused", after=before)
    siege.works()
    siege.fleet.cancel(run_id)
    siege.record(run_id, state="cancelled")


def test_a_host_says_nothing_of_anothers_runs(siege: Siege) -> None:
    thief, before = key_of(siege.held_by_host("h2")), siege.mark()
    theirs = siege.works()
    record = siege.record(theirs, state="succeeded")
    lie = of_h2(Kind.RUN_FAILED, seq=1, run=theirs, attempt=2, data={"kind": "x", "message": "x"})
    put(siege, signed(lie, thief))
    siege.heard("report.refused", after=before)
    assert siege.record(theirs, state="succeeded").attempt == record.attempt


def test_reports_that_come_again_change_nothing(siege: Siege) -> None:
    with siege.wire() as wire:
        run_id = siege.works()
        siege.record(run_id, state="succeeded")
        heard = wire.sent_to(names.reports("h1"))
    life = [event.event for event in siege.life(run_id)]
    for item in heard:
        put(siege, item, sender="h1")
    until(lambda: not siege.redis.llen(names.reports("h1")), "all is taken in")
    siege.works()
    assert [event.event for event in siege.life(run_id)] == life


def test_what_is_missing_between_reports_is_asked_for(siege: Siege) -> None:
    thief = key_of(siege.held_by_host("h2"))
    with siege.wire() as wire:
        put(siege, signed(of_h2(Kind.HOST_DEREGISTERED, seq=900), thief))
        told = wire.sent_to(names.control("h2"))
    assert any(b"reports.missing" in item for item in told)
    siege.works()


# --- results ---


def meta(run_id: str, **more: Any) -> dict[str, Any]:
    found = {"status": "SUCCESS", "result": {"said": "a lie"}, "traceback": None, "children": [], "task_id": run_id}
    return {**found, "date_done": "2030-01-01T00:00:00+00:00", **more}


def exits(name: str, module: str = "builtins") -> dict[str, Any]:
    """Return what Celery would make an exception of, and raise."""
    return {"exc_type": name, "exc_module": module, "exc_message": ["1"]}


FORGED: dict[str, Callable[[Siege, str], str]] = {
    "unsigned": lambda _s, run: json.dumps(meta(run)),
    "by another host": lambda s, run: by(s, meta(run), s.held_by_host("h2")),
    "by a principal": lambda s, run: by(s, meta(run), s.held_by("alice")),
    "in the fleet's name": lambda _s, run: signing.sign_result(meta(run), KeyPair.generate(), ""),
    "SystemExit": lambda _s, run: json.dumps(meta(run, status="FAILURE", result=exits("SystemExit"))),
    "KeyboardInterrupt": lambda _s, run: json.dumps(meta(run, status="FAILURE", result=exits("KeyboardInterrupt"))),
    "os.system": lambda _s, run: json.dumps(meta(run, status="FAILURE", result=exits("system", "os"))),
    "of another run": lambda s, run: by(s, meta(names.new_run_id("h1")), s.held_by_host("h1")),
    "garbage": lambda _s, _run: "\x80garbage",
    "no object": lambda _s, _run: "[1]",
    "deep": lambda _s, _run: "[" * 10_000,
    "an odd status": lambda _s, run: json.dumps(meta(run, status={"x": 1})),
    "an odd id": lambda _s, run: json.dumps(meta(run, task_id=[run])),
    "an unknown status": lambda _s, run: json.dumps(meta(run, status="WON")),
}


def by(_siege: Siege, found: dict[str, Any], held: HostCredential | PrincipalCredential) -> str:
    return signing.sign_result(found, key_of(held), held.credential)


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_result_raises_nothing_but_fleets_errors_and_others_are_awaited(siege: Siege, how: str) -> None:
    """By somebody who owns the broker: the result lies there, and is published on its channel and on another's."""
    wishes = {"log": str(siege.effects), "seconds": 0.3}
    attacked, other = (siege.fleet.push(EFFECT, on="h1", arguments=wishes).results[0] for _ in range(2))
    forged = FORGED[how](siege, attacked.id)
    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(other.get, timeout=30)
        awaited = pool.submit(attacked.get, timeout=30)
        for channel in (names.result(other.id), names.result(attacked.id)):
            siege.redis.publish(channel, forged)
        siege.redis.set(names.result(attacked.id), forged)
        siege.redis.publish(names.result(attacked.id), forged)
        assert waits.result() == {"said": "done"}
        with contextlib.suppress(errors.ResultForged):
            assert awaited.result() == {"said": "done"}, "the host's own word came after it"
    siege.works()


def test_a_batch_of_which_one_result_is_forged_gets_all_others(siege: Siege) -> None:
    wishes = {"log": str(siege.effects), "seconds": 0.3}
    batch = siege.fleet.push(EFFECT, on="h1", arguments=wishes)
    forged = by(siege, meta(batch.run_ids[0]), siege.held_by_host("h2"))
    siege.redis.set(names.result(batch.run_ids[0]), forged)
    siege.redis.publish(names.result(batch.run_ids[0]), forged)
    (outcome,) = batch.wait(timeout=30)
    assert outcome.reply != {"said": "a lie"}
    siege.works()


def test_another_host_cannot_even_write_there(siege: Siege) -> None:
    run_id = siege.works()
    with siege.thief(siege.held_by_host("h2")) as thief:
        for attempt in (
            lambda: thief.set(names.result(run_id), "x"),
            lambda: thief.publish(names.result(run_id), "x"),
            lambda: thief.lpush(names.reports("h1"), "x"),
            lambda: thief.lpush(names.control("h1"), "x"),
            lambda: thief.lpush(names.queue("h1"), "x"),
            lambda: thief.set(names.presence("h1"), "x"),
        ):
            with pytest.raises(NoPermissionError):
                attempt()


def test_the_registry_of_another_fleet_is_not_believed(siege: Siege) -> None:
    """Whoever owns the broker can write whom it likes into the registry: callers go by the fleet's signature."""
    entry: Any = siege.redis.hget(names.HOSTS, "h1")
    try:
        siege.redis.hset(names.HOSTS, "h1", siege.redis.hget(names.HOSTS, "h2"))  # type: ignore[arg-type]
        with pytest.raises(errors.FleetError), siege.fleet_of("alice") as fleet:
            fleet.push(EFFECT, on="h1", arguments={"log": "/x"})
    finally:
        siege.redis.hset(names.HOSTS, "h1", entry)
    siege.works()
