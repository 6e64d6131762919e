"""Output of runs: said by a host, bounded on a real broker, and read by principals who see what they missed."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import configuration, credentials, errors, names
from fleet.broker import results
from fleet.broker.connection import connect
from fleet.client import Fleet, Said
from fleet.clock import BrokerClock
from fleet.contracts.output import ENDED_TTL_SECONDS, LARGEST_ENTRY_BYTES, MOST_ENTRIES
from fleet.security import signing
from tests import factories
from tests.services.broker import Broker
from tests.services.waiting import until
from workers.host import stream as stream_module
from workers.host import streams as streams_module
from workers.host.stream import Stream
from workers.host.streams import Streams

HOST = "h1"


class Speaker:
    """A host whose runs say something."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self.client = connect(broker.address, name="speaker")
        # One of their own: they let go of its connections where nobody says anything.
        self._said = connect(broker.address, name="streams")
        self.streams = Streams(self._said, factories.own(directory / "own.json", HOST), clock=BrokerClock())
        self.streams.start()

    def open(self, run_id: str, attempt: int = 1) -> Stream:
        return self.streams.open(run_id, attempt)

    def end(self, run_id: str) -> None:
        """Write the run's result, as its worker does after the last word."""
        reply: dict[str, Any] = {}
        meta = results.success_meta(run_id, reply, date_done="2026-01-01T00:00:00+00:00")
        signed = signing.sign_result(meta, factories.key(HOST), factories.ring().issue(factories.identity(HOST)))
        self.client.set(names.result(run_id), signed)
        self.client.publish(names.result(run_id), signed)

    def close(self) -> None:
        self.streams.stop()
        for client in (self.client, self._said):
            client.connection_pool.disconnect()


@pytest.fixture
def speaker(any_broker: Broker, tmp_path: Path) -> Iterator[Speaker]:
    made = Speaker(any_broker, tmp_path)
    yield made
    made.close()


@pytest.fixture
def fleet(any_broker: Broker, tmp_path: Path) -> Iterator[Fleet]:
    """The door of a principal, who may read what runs say."""
    own = configuration.load(state_dir=tmp_path / "state", principal="alice")
    held = factories.principal_credential("alice", broker_url=any_broker.url)
    credentials.save_principal(own.principal_path("alice"), held)
    with any_broker.connect() as admin:
        admin.set(names.TRUST, factories.statement())
    with Fleet(own) as opened:
        yield opened


@pytest.fixture
def run_id() -> str:
    return names.new_run_id(HOST)


class Listener:
    """Somebody who follows in a thread."""

    def __init__(self, fleet: Fleet, *run_ids: str) -> None:
        self.heard: list[Said] = []
        self._output = fleet.output(*run_ids, timeout=30)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        for said in self._output:
            self.heard.append(said)

    @property
    def text(self) -> str:
        return text(self.heard)


def text(heard: list[Said]) -> str:
    return "".join(piece for said in heard for _name, piece in said.data.get("pieces", ()))


def test_a_follower_hears_what_a_run_says_in_order_until_the_run_ends(
    speaker: Speaker, fleet: Fleet, run_id: str
) -> None:
    listener = Listener(fleet, run_id)
    stream = speaker.open(run_id)
    stream.say("stdout", "one\ntw")
    stream.say("stdout", "o\n")
    stream.say("stderr", "oh\n")
    stream.write("layers", {"percent": 50.0})
    until(lambda: len(listener.heard) == 2, "both entries")
    stream.say("stdout", "last words\n")
    assert stream.close(30)
    speaker.end(run_id)
    listener.thread.join(30)
    assert [said.kind for said in listener.heard] == ["text", "layers", "text"]
    assert listener.heard[0].data == {"pieces": [["stdout", "one\ntwo\n"], ["stderr", "oh\n"]]}
    assert listener.text == "one\ntwo\noh\nlast words\n"
    assert {(said.host, said.run_id, said.missed) for said in listener.heard} == {(HOST, run_id, 0)}


def test_one_reader_follows_many_runs(speaker: Speaker, fleet: Fleet) -> None:
    run_ids = [names.new_run_id(HOST) for _ in range(40)]
    listener = Listener(fleet, *run_ids)
    for number, run_id in enumerate(run_ids):
        stream = speaker.open(run_id)
        stream.say("stdout", f"{number}\n")
        assert stream.close(30)
        speaker.end(run_id)
    listener.thread.join(30)
    assert {said.run_id: text([said]) for said in listener.heard} == {
        run_id: f"{number}\n" for number, run_id in enumerate(run_ids)
    }


def test_whoever_comes_late_reads_what_is_there_and_without_following_does_not_wait(
    speaker: Speaker, fleet: Fleet, run_id: str
) -> None:
    stream = speaker.open(run_id)
    stream.say("stdout", "one\n")
    assert stream.close(30)
    assert text(list(fleet.output(run_id, follow=False))) == "one\n"
    with pytest.raises(errors.TimedOut):
        list(fleet.output(run_id, timeout=0.1))
    assert 0 < speaker.client.ttl(names.output(run_id)) <= 600


def test_a_stream_stays_for_a_minute_after_its_end_and_for_ten_while_it_goes_on(speaker: Speaker, run_id: str) -> None:
    key = names.output(run_id)
    stream = speaker.open(run_id)
    stream.say("stdout", "one\n")
    until(lambda: speaker.client.xlen(key) == 1, "it is there")
    until(lambda: speaker.client.ttl(key) > ENDED_TTL_SECONDS, "it goes on")
    assert stream.close(30)
    until(lambda: 0 < speaker.client.ttl(key) <= ENDED_TTL_SECONDS, "it has ended")
    again = speaker.open(run_id, attempt=2)
    again.say("stdout", "two\n")
    until(lambda: speaker.client.ttl(key) > ENDED_TTL_SECONDS, "the next attempt goes on")
    assert again.close(30)
    until(lambda: 0 < speaker.client.ttl(key) <= ENDED_TTL_SECONDS, "that has ended, too")
    assert speaker.client.xlen(key) == 2


def test_the_ended_streams_of_a_host_take_so_much_of_the_broker_and_the_oldest_go(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "MOST_ENDED_BYTES", 128 * 1024)
    run_ids = [names.new_run_id(HOST) for _ in range(12)]

    def there() -> list[str]:
        return [run_id for run_id in run_ids if speaker.client.exists(names.output(run_id))]

    going_on = speaker.open(run_ids[0])
    assert going_on.close(30)
    going_on = speaker.open(run_ids[0], attempt=2)  # ended once, and is not to go
    for run_id in run_ids:
        stream = going_on if run_id == run_ids[0] else speaker.open(run_id)
        stream.say("stdout", "x" * 40_000)
        if stream is going_on:
            until(lambda: there() == run_ids[:1], "the one that goes on")
        else:
            assert stream.close(30)
            until(lambda: not stream.waits() and stream not in speaker.streams._open(), "its end")  # noqa: B023
    assert there() == [run_ids[0], *run_ids[-2:]] or there() == [run_ids[0], *run_ids[-3:]]
    taken = sum(sum(stream_sizes(speaker, run_id)) for run_id in there()[1:])
    assert taken <= 128 * 1024
    assert going_on.close(30)
    until(lambda: speaker.client.ttl(names.output(run_ids[0])) <= ENDED_TTL_SECONDS, "its end")
    assert there()[0] == run_ids[0], "the newest of them now"


def stream_sizes(speaker: Speaker, run_id: str) -> list[int]:
    """Return the bytes of each entry that the broker holds."""
    entries: Any = speaker.client.xrange(names.output(run_id))
    return [sum(len(value.encode()) for value in fields.values()) for _id, fields in entries]


def test_a_stream_holds_so_many_entries_and_each_is_so_long_whatever_is_said(
    speaker: Speaker, fleet: Fleet, run_id: str
) -> None:
    stream = speaker.open(run_id)
    for number in range(MOST_ENTRIES + 40):
        stream.write("sample", {"number": number})
    for text_ in ("\x1b" * 10_000, "ä" * 10_000, "\U0001f600" * 10_000, "half \ud800 a pair", "x\n" * 10_000):
        stream.say("stdout", text_)
    assert stream.close(30)
    key = names.output(run_id)
    assert speaker.client.xlen(key) == MOST_ENTRIES
    entries: Any = speaker.client.xrange(key)
    assert max(len(fields["entry"].encode()) for _id, fields in entries) <= LARGEST_ENTRY_BYTES
    said = text(list(fleet.output(run_id, follow=False)))
    assert said == "\x1b" * 10_000 + "ä" * 10_000 + "\U0001f600" * 10_000 + "half ? a pair" + "x\n" * 10_000
    with pytest.raises(ValueError, match="an entry holds"):
        stream.write("sample", {"text": "x" * LARGEST_ENTRY_BYTES})


def test_a_reader_who_was_too_slow_is_told_how_many_lines_it_missed(
    speaker: Speaker, fleet: Fleet, run_id: str
) -> None:
    stream = speaker.open(run_id)
    stream.say("stdout", "first\n")
    until(lambda: speaker.client.xlen(names.output(run_id)) == 1, "the first entry")
    heard = iter(fleet.output(run_id, timeout=30))
    assert text([next(heard)]) == "first\n"
    for _ in range(MOST_ENTRIES):  # each a line of its own
        stream.say("stdout", "missed\n")
        stream.write("sample", {})
    assert stream.close(30)
    speaker.end(run_id)
    rest = list(heard)
    lines = text(rest).count("\n")
    assert rest[0].missed == MOST_ENTRIES - lines > 0
    assert sum(said.missed for said in rest) == rest[0].missed


def test_what_is_said_faster_than_it_may_be_sent_is_dropped_and_counted_and_nobody_waits(
    speaker: Speaker, fleet: Fleet, run_id: str
) -> None:
    stream = speaker.open(run_id)
    lines = 20_000
    for number in range(lines):
        stream.say("stdout", f"{number:099}\n")
    assert stream._bytes <= stream_module.MOST_WAITING_BYTES
    assert stream.close(30)
    heard = list(fleet.output(run_id, follow=False))
    assert text(heard).count("\n") + sum(said.missed for said in heard) == lines
    assert text(heard).endswith(f"{lines - 1:099}\n")
    assert speaker.client.xlen(names.output(run_id)) < MOST_ENTRIES


def test_nothing_is_dropped_that_is_said_patiently(speaker: Speaker, fleet: Fleet, run_id: str) -> None:
    stream = speaker.open(run_id)
    listener = Listener(fleet, run_id)
    for number in range(10_000):
        assert stream.wait_for_room(30)
        stream.say("stdout", f"{number:099}\n")
    assert stream.close(30)
    speaker.end(run_id)
    listener.thread.join(30)
    assert listener.text.count("\n") == 10_000
    assert not any(said.missed for said in listener.heard)


def test_another_attempt_begins_anew(speaker: Speaker, fleet: Fleet, run_id: str) -> None:
    for attempt in (1, 2):
        stream = speaker.open(run_id, attempt)
        stream.say("stdout", f"attempt {attempt}\n")
        assert stream.close(30)
    heard = list(fleet.output(run_id, follow=False))
    assert [(said.attempt, text([said]), said.missed) for said in heard] == [
        (1, "attempt 1\n", 0),
        (2, "attempt 2\n", 0),
    ]


def test_a_stream_is_unfollowed_when_nobody_has_listened_for_a_while(
    speaker: Speaker, fleet: Fleet, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.stream.UNFOLLOWED_SECONDS", 3.0)
    monkeypatch.setattr("workers.host.streams._ASK_SECONDS", 0.2)
    reading = iter(fleet.output(run_id))
    speaker.open(run_id, 1).say("stdout", "hello\n")
    next(reading)
    followed, left_alone = speaker.open(run_id, 2), speaker.open(names.new_run_id(HOST))
    told: list[str] = []
    followed.when_unfollowed(lambda: told.append("followed"))
    left_alone.when_unfollowed(lambda: told.append("left alone"))
    until(lambda: left_alone.unfollowed, "nobody listens")
    until(lambda: told == ["left alone"], "it is told")
    assert not followed.unfollowed
    reading.close()  # type: ignore[attr-defined]
    until(lambda: followed.unfollowed, "the listener has gone")
    late: list[str] = []
    followed.when_unfollowed(lambda: late.append("told at once"))
    assert late == ["told at once"]


def test_output_waits_for_a_broker_that_is_away_and_its_reader_goes_on(
    speaker: Speaker, fleet: Fleet, run_id: str, any_broker: Broker
) -> None:
    listener = Listener(fleet, run_id)
    stream = speaker.open(run_id)
    stream.say("stdout", "before\n")
    until(lambda: listener.heard, "the first word")
    any_broker.stop()
    stream.say("stdout", "meanwhile\n")
    any_broker.start()
    assert stream.close(30)
    speaker.end(run_id)
    listener.thread.join(30)
    assert listener.text == "before\nmeanwhile\n"


def test_what_is_not_its_hosts_word_is_left_out(speaker: Speaker, fleet: Fleet, run_id: str) -> None:
    """By somebody who writes into the broker what they like."""
    stream = speaker.open(run_id)
    stream.say("stdout", "true\n")
    until(lambda: speaker.client.xlen(names.output(run_id)) == 1, "it is there")
    key, client = names.output(run_id), speaker.client
    [(_, genuine)] = client.xrange(key)
    forged = json.dumps({**json.loads(genuine["entry"]), "number": 2, "data": {"pieces": [["stdout", "forged\n"]]}})
    other = factories.key("h2")
    other_credential = factories.ring().issue(factories.identity("h2"))
    stranger = factories.credential(HOST, fleet="another fleet").credential
    client.xadd(key, genuine)  # once more
    client.xadd(key, {**genuine, "entry": forged})
    client.xadd(key, signing.sign_output(run_id, forged, other, other_credential))
    client.xadd(key, signing.sign_output(names.new_run_id(HOST), forged, factories.key(HOST), genuine["credential"]))
    client.xadd(key, signing.sign_output(run_id, forged, factories.key(HOST), stranger))
    client.xadd(key, signing.sign_output(run_id, "no entry", factories.key(HOST), genuine["credential"]))
    client.xadd(key, {"entry": "x"})
    client.xadd(key, {b"\xff": b"\xff"})
    mine = json.dumps({**json.loads(genuine["entry"]), "number": 3, "before": 1})
    client.xadd(key, signing.sign_output(run_id, mine, factories.key(HOST), genuine["credential"]))
    client.publish(key, b"\xff")  # type: ignore[arg-type]
    assert text(list(fleet.output(run_id, follow=False))) == "true\ntrue\n"


def test_a_reader_hears_that_the_fleet_has_changed_its_key(speaker: Speaker, fleet: Fleet, run_id: str) -> None:
    """The host is vouched for by a key that the principal has not heard of."""
    credential = factories.credential(HOST, fleet="next").credential
    stream_fields = signing.sign_output(
        run_id,
        json.dumps({"attempt": 1, "number": 1, "at": 1.0, "kind": "text", "data": {"pieces": [["stdout", "new\n"]]}}),
        factories.key(HOST),
        credential,
    )
    speaker.client.xadd(names.output(run_id), stream_fields)
    assert text(list(fleet.output(run_id, follow=False))) == ""
    speaker.client.set(names.TRUST, factories.statement("fleet", "next", version=2))
    assert text(list(fleet.output(run_id, follow=False))) == "new\n"


def test_no_run_id_no_output(fleet: Fleet) -> None:
    with pytest.raises(errors.InvalidValue, match="is not a task id"):
        fleet.output("web")
