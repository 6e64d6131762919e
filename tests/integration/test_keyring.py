"""The keyring: the fleet's keys in a file and on record, made, changed and dropped without anybody noticing."""

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet import audit, credentials, db, errors, keyring, members, names, principals
from fleet.broker import results
from fleet.contracts.control import InventoryRequested
from fleet.keyring import Keyring, Keyrings
from fleet.security import signing, trust
from fleet.security.identity import Level
from fleet.security.trust import Statement, Trust
from tests import factories
from tests.services.broker import Broker
from workers.control.voice import Voice

RUN = names.new_run_id("edge-7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "signing-keys.json"


def obtain(engine: Engine, path: Path) -> Keyring:
    with db.session(engine) as session:
        return keyring.obtain(session, path)


def rotate(engine: Engine, path: Path) -> Keyring:
    with db.session(engine) as session:
        return keyring.rotate(session, path, by="alice")


def retire(engine: Engine, path: Path) -> Keyring:
    with db.session(engine) as session:
        return keyring.retire(session, path, by="alice")


def public(ring: Keyring) -> list[str]:
    return [key.public for key in ring.keys]


def said(engine: Engine, ring: Keyring) -> str:
    with db.session(engine, write=False) as session:
        return keyring.statement(session, ring)


def told(engine: Engine, ring: Keyring, *, to: Keyring) -> Statement:
    """Return what somebody believes who knows the keys of that ring."""
    return trust.read(said(engine, ring), public(to))


def numbers(engine: Engine) -> list[tuple[int, bool]]:
    with db.session(engine, write=False) as session:
        return [(row.number, row.retired_at is None) for row in keyring.everything(session)]


def test_the_first_use_makes_the_first_key_for_its_owner_alone(engine: Engine, path: Path) -> None:
    ring = obtain(engine, path)
    assert public(obtain(engine, path)) == public(ring)
    assert len(ring.keys) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ring.newest.secret().get_secret_value() in path.read_text()
    with db.session(engine, write=False) as session:
        kept = repr([row.model_dump() for row in keyring.everything(session)])
    assert ring.newest.public in kept
    assert ring.newest.secret().get_secret_value() not in kept + repr(ring.keys)


def test_processes_that_begin_at_the_same_time_make_one_key(engine: Engine, path: Path, migrated_url: str) -> None:
    code = (
        "import sys; from pathlib import Path; from fleet import db, keyring; engine = db.open_engine(sys.argv[1])\n"
        "with db.session(engine) as session: print(keyring.obtain(session, Path(sys.argv[2])).newest.public)"
    )
    command = [sys.executable, "-c", code, migrated_url, str(path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=60)[0].strip() for process in started}
    assert found == set(public(obtain(engine, path)))
    assert numbers(engine) == [(1, True)]


def test_a_file_that_lacks_the_fleets_key_is_refused_with_the_way_out(
    engine: Engine, path: Path, tmp_path: Path
) -> None:
    obtain(engine, path)
    elsewhere = tmp_path / "elsewhere.json"
    credentials.write_private(
        elsewhere,
        json.dumps({"keys": [factories.key("another").secret().get_secret_value()]}),
        what="keys",
        remedy="",
    )
    with pytest.raises(errors.LocalFault, match=r"the fleet's key .*… is not in it; copy the file") as caught:
        obtain(engine, elsewhere)
    assert factories.key("another").secret().get_secret_value() not in str(caught.value)


def test_without_its_file_a_fleet_gets_no_other_key(engine: Engine, path: Path) -> None:
    """It would be a fleet that no host believes; whoever has the file is to bring it."""
    obtain(engine, path)
    path.unlink()
    with pytest.raises(errors.FleetError) as caught:
        obtain(engine, path)
    assert "copy the file from the machine where the control plane has run" in str(caught.value)
    assert not path.exists()
    assert numbers(engine) == [(1, True)]


def test_a_beginning_or_a_change_that_was_cut_off_loses_no_key(engine: Engine, path: Path) -> None:
    done: list[Keyring] = []

    def cut_off(change: Callable[..., Keyring], **more: str) -> None:
        with db.session(engine) as session:
            done.append(change(session, path, **more))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        cut_off(keyring.obtain)
    assert numbers(engine) == []
    first = obtain(engine, path)
    assert public(first) == public(done[0])
    for change in (keyring.rotate, keyring.retire):
        with pytest.raises(InterruptedError):
            cut_off(change, by="alice")
        assert public(obtain(engine, path)) == public(first)
        second = rotate(engine, path)
        assert len(second.keys) == len(first.keys) + 1
        first = second


def test_an_empty_database_takes_the_file_as_it_is(engine: Engine, path: Path, tmp_path: Path) -> None:
    """The wrong one is easily named, and the file may be the only one there is."""
    obtain(engine, path)
    before = public(rotate(engine, path))
    content = path.read_bytes()
    empty = db.open_engine(f"sqlite:///{tmp_path / 'another.db'}")
    db.migrate(empty)
    assert public(obtain(empty, path)) == before[-1:]
    empty.dispose()
    assert path.read_bytes() == content
    assert public(obtain(engine, path)) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"keys": []}', '{"keys": ["x"]}', '{"keys": [1]}', "\x00"])
def test_a_file_of_something_else_is_refused(engine: Engine, path: Path, content: str) -> None:
    obtain(engine, path)
    path.write_text(content)
    with pytest.raises(errors.LocalFault, match="not a file of keys; restore it from its backup"):
        obtain(engine, path)


def test_a_file_that_others_can_read_is_refused(engine: Engine, path: Path) -> None:
    obtain(engine, path)
    path.chmod(0o640)
    with pytest.raises(errors.CredentialUnusable, match=f"others can read it .* chmod 600 {path}"):
        obtain(engine, path)


def test_a_new_key_signs_credentials_and_what_is_said_now_is_believed_by_everybody(engine: Engine, path: Path) -> None:
    before = obtain(engine, path)
    after = rotate(engine, path)
    assert public(after) == public(obtain(engine, path)) == [before.newest.public, after.newest.public]
    old, new = before.newest.public, after.newest.public
    credential = after.issue(factories.principal("alice"))
    assert Trust.in_keys([new]).principal(credential)
    assert after.has_issued(credential)
    assert not after.has_issued(before.issue(factories.principal("alice")))
    knows_old = Trust.in_keys([old])
    word = after.word("k" * 43, InventoryRequested())
    assert signing.check_control(word, ["k" * 43], trust=knows_old)[1] is None
    assert told(engine, after, to=before).keys == (old, new)
    [event] = events(engine, "key.added")
    assert (event.actor, event.data) == ("p:alice", {"key": new})


def events(engine: Engine, name: str) -> list[audit.AuditEvent]:
    with db.session(engine, write=False) as session:
        return audit.events(session, event=name, after_id=0)


def test_a_retired_key_is_believed_no_more_and_is_gone_from_the_file(engine: Engine, path: Path) -> None:
    first = obtain(engine, path)
    second = rotate(engine, path)
    known = Trust.in_keys(public(first))
    known.learn(said(engine, second))
    last = retire(engine, path)
    assert public(last) == public(obtain(engine, path)) == [second.newest.public]
    assert first.newest.secret().get_secret_value() in path.read_text(), "until it is certain that it counts no more"
    for _ in range(2):
        with db.session(engine) as session:
            keyring.prune(session, path)
    assert public(obtain(engine, path)) == [second.newest.public]
    assert first.newest.secret().get_secret_value() not in path.read_text()
    assert known.learn(said(engine, last))
    assert known.keys == (second.newest.public,)
    assert numbers(engine) == [(1, False), (2, True)]
    [event] = events(engine, "key.retired")
    assert event.data == {"key": first.newest.public}
    assert public(retire(engine, path)) == [second.newest.public], "the last one stays"


def test_the_statements_version_grows_with_every_change(engine: Engine, path: Path) -> None:
    ring = obtain(engine, path)
    versions = [told(engine, ring, to=ring).version]

    def noted(now: Keyring) -> None:
        found = Statement.model_validate_json(json.loads(said(engine, now))["text"])
        assert found.version > versions[-1]
        versions.append(found.version)

    with db.session(engine) as session:
        principals.create(session, ring=ring, name="bob", level=Level.STUDENT, by="alice", broker_url="redis://x")
        principals.set_level(session, "bob", Level.INTERN, ring=ring, by="alice")
    noted(ring)
    noted(rotate(engine, path))
    noted(retire(engine, path))
    with db.session(engine) as session:
        principals.revoke(session, "bob", by="alice")
    noted(obtain(engine, path))
    assert told(engine, obtain(engine, path), to=obtain(engine, path)).version == versions[-1]


def test_nobody_states_other_keys_than_those_that_count(engine: Engine, path: Path) -> None:
    """Whoever heard it under the version of the true word would never believe that one."""
    first = obtain(engine, path)
    second = rotate(engine, path)
    last = Keyring([second.newest])
    for other in (first, last):
        with pytest.raises(errors.LocalFault, match="the fleet's signing keys have just been changed; try again"):
            said(engine, other)
    assert told(engine, second, to=first).keys == tuple(public(second))
    retire(engine, path)
    with pytest.raises(errors.LocalFault, match="have just been changed"):
        said(engine, second)
    assert told(engine, last, to=last).keys == tuple(public(last))


def test_the_control_plane_believes_all_keys_also_those_on_another_machine(engine: Engine, path: Path) -> None:
    first, second = obtain(engine, path), rotate(engine, path)
    path.unlink()
    with db.session(engine, write=False) as session:
        found = keyring.believed(session)
    assert found.keys == tuple(public(second))
    for ring in (first, second):
        assert found.principal(ring.issue(factories.principal("alice"))).name == "alice"


def test_a_host_is_not_announced_by_less_than_all_keys_and_nothing_else_waits_for_it(
    engine: Engine, path: Path, any_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    voice = Voice(engine, Keyrings(path, lambda: db.session(engine)))
    before = path.read_text()
    with db.session(engine) as session:
        factories.enroll(session, "edge-7").credential = None
    rotate(engine, path)
    after = path.read_text()
    path.write_text(before)
    with any_broker.connect() as client:
        voice.announce("edge-7", client)
        assert not client.exists(names.control("edge-7"))
        assert "host.unannounced" in caplog.text
        with db.session(engine, write=False) as session:
            assert members.unannounced(session) == ["edge-7"]
        path.write_text(after)
        voice.announce("edge-7", client)
        assert client.llen(names.control("edge-7")) == 2


def test_a_process_hears_of_the_key_that_another_one_made(engine: Engine, path: Path) -> None:
    rings = Keyrings(path, lambda: db.session(engine))
    first = rings.ring.newest.public
    second = rotate(engine, path).newest.public
    assert public(rings.ring) == [first], "until it looks"
    assert public(rings.refresh()) == public(rings.ring) == [first, second]


def test_what_hosts_are_told_is_signed_by_a_key_that_counts_at_that_moment(engine: Engine, path: Path) -> None:
    """The CLI retires a key and tells the hosts; what the control worker says after that must not be by that key."""
    voice = Voice(engine, Keyrings(path, lambda: db.session(engine)))
    with db.session(engine) as session:
        factories.enroll(session, "edge-7")

    def signed_by(*keys: str) -> bool:
        [(_, word)] = voice.words([("edge-7", InventoryRequested())])
        [result] = voice.results([results.success_meta(RUN, {}, date_done="2026-01-02T03:04:05+00:00")])
        try:
            signing.check_control(word, [factories.key("edge-7").public], trust=Trust.in_keys(keys))
            signing.check_result(json.loads(result), RUN, trust=Trust.in_keys(keys))
        except errors.NotTrusted:
            return False
        return True

    first, second = public(rotate(engine, path))
    assert signed_by(first), "hosts may not have heard of the second yet"
    retire(engine, path)
    assert signed_by(second)
    assert not signed_by(first)

    rotate(engine, path)
    retire(engine, path)
    path.unlink()
    assert signed_by(second), "of a key that was made elsewhere nothing can be signed here"


def test_what_is_sealed_for_a_key_opens_by_it_alone(engine: Engine, path: Path) -> None:
    ring = rotate(engine, path) if obtain(engine, path) else None
    assert ring is not None
    first, second = (ring.opener(key.public).public for key in ring.keys)
    assert first != second
    with pytest.raises(ValueError, match="sealed for a key that is not held here"):
        ring.opener(factories.key("another").public)
