"""`fleet principal`, `fleet key` and `fleet host label | rotate | revoke`, with a broker and a database alone."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import audit, credentials, db, inventory, keyring, names, runs
from fleet.models import Principal
from fleet.security import signing
from fleet.security.trust import Trust
from tests import factories
from tests.integration.cli.conftest import Cli


@pytest.fixture
def edge(ledger: Engine, client: "redis.Redis") -> str:
    """A member of the fleet, which the registry knows."""
    with db.session(ledger) as session:
        factories.enroll(session, "edge-7", labels={"env": "prod"}).broker_hashes = ["ab" * 32]
    with db.session(ledger, write=False) as session:
        inventory.publish_hosts(session, client)
    return "edge-7"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def users(client: "redis.Redis") -> set[str]:
    command: Any = client.execute_command
    return {user for user in command("ACL USERS") if user.startswith(("h-", "p-", "join-"))}


def fleets_word(client: "redis.Redis") -> Trust:
    """Return what everybody believes who knows the fleet's first key."""
    known = Trust.in_keys([factories.key("fleet").public])
    known.learn(str(client.get(names.TRUST)))
    return known


def published(client: "redis.Redis", name: str) -> Any:
    return fleets_word(client).principal(str(client.hget(names.PRINCIPALS, name)))


def recorded(ledger: Engine, event: str) -> list[dict[str, Any]]:
    with db.session(ledger, write=False) as session:
        return [found.data for found in audit.events(session, event=event, after_id=0)]


def test_a_principal_is_made_with_a_file_that_pushes(cli: Cli, client: "redis.Redis", edge: str, state: Path) -> None:
    made = cli("principal", "create", "bob", "--level", "supervised", "-l", "env=prod", "--ttl", "30d", "--json")
    assert made.code == 0
    path = Path(made.json["file"])
    assert path == state / "principals" / "bob.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    held = credentials.load_principal(path, name="bob")
    for secret in (held.private_key.get_secret_value(), held.broker_url.get_secret_value().split(":")[2]):
        assert secret not in made.out + made.err
    assert "p-bob" in users(client)
    assert published(client, "bob").selectors == {"env": "prod"}
    pushed = cli(
        "push-task", "fleet.host.ping", "--host", edge, "--offline", "queue", "-o", "id", FLEET_PRINCIPAL="bob"
    )
    assert pushed.code == 0, pushed.err
    [message] = (json.loads(item) for item in client.lrange(names.queue(edge), 0, -1))
    form = (message["content-type"], message["content-encoding"])
    who = signing.check_message(message["headers"], message["body"], form=form, trust=fleets_word(client))
    assert (who.name, who.level) == ("bob", "supervised")
    [listed] = (row for row in cli("principal", "list", "--json").json if row["id"] == "bob")
    assert (listed["level"], listed["state"], listed["selectors"]) == ("supervised", "valid", {"env": "prod"})
    assert "bob" in cli("principal", "list").out


def test_a_principal_is_not_made_twice_and_no_file_is_written_over(cli: Cli, state: Path) -> None:
    assert cli("principal", "create", "bob", "--level", "student").code == 0
    content = (state / "principals" / "bob.json").read_bytes()
    again = cli("principal", "create", "bob", "--level", "autonomous")
    assert again.code == 4
    assert "bob.json exists already; name another place: --file FILE" in again.error
    elsewhere = cli("principal", "create", "bob", "--level", "autonomous", "--file", str(state / "new.json"))
    assert elsewhere.code == 4
    assert "there is a principal 'bob' already; `fleet principal rotate bob`" in elsewhere.error
    assert not (state / "new.json").exists()
    assert (state / "principals" / "bob.json").read_bytes() == content


def test_a_level_is_changed_without_a_new_file(cli: Cli, client: "redis.Redis", edge: str, state: Path) -> None:
    cli("principal", "create", "bob", "--level", "student")
    restart = ("push-task", "fleet.containers.restart", "--host", edge, "--arg", "container=web", "--offline", "queue")
    refused = cli(*restart, FLEET_PRINCIPAL="bob")
    assert refused.code == 4
    assert "principal 'bob' is student, and fleet.containers.restart changes" in refused.error
    assert client.llen(names.queue(edge)) == 0
    assert cli("principal", "set-level", "bob", "supervised").code == 0
    assert cli(*restart, FLEET_PRINCIPAL="bob").code == 0
    assert published(client, "bob").level == "supervised"
    [word] = [word for word in factories.heard(client, edge) if word["kind"] == "trust.updated"][-1:]
    assert "bob" in word["statement"], "hosts are told which credential counts no more"
    unknown = cli("principal", "set-level", "bpb", "student")
    assert unknown.code == 2
    assert "no principal named 'bpb'; did you mean 'bob'" in unknown.error


def test_a_new_file_replaces_the_former_which_works_for_the_overlap(cli: Cli, client: "redis.Redis", edge: str) -> None:
    first = cli("principal", "create", "bob", "--level", "student", "--json").json["file"]
    former = Path(first).read_text()
    rotated = cli("principal", "rotate", "bob", "--overlap", "10m", "--json")
    assert rotated.code == 0
    assert rotated.json["file"] == first
    assert Path(first).read_text() != former
    kept = Path(first).with_name("former.json")
    credentials.write_private(kept, former, what="", remedy="")
    ping = ("push-task", "fleet.host.ping", "--host", edge, "--offline", "queue")
    assert cli(*ping, FLEET_PRINCIPAL="bob").code == 0
    assert cli(*ping, FLEET_PRINCIPAL="bob", FLEET_PRINCIPAL_FILE=str(kept)).code == 0
    cli("principal", "rotate", "bob")
    ended = cli(*ping, FLEET_PRINCIPAL="bob", FLEET_PRINCIPAL_FILE=str(kept))
    assert ended.code in {4, 5}, "of three files the oldest ends at once"
    assert client.llen(names.queue(edge)) == 2


def test_a_revoked_principal_pushes_nothing_more(cli: Cli, client: "redis.Redis", edge: str) -> None:
    cli("principal", "create", "bob", "--level", "student")
    assert cli("principal", "revoke", "bob").code == 0
    assert "p-bob" not in users(client)
    assert client.hget(names.PRINCIPALS, "bob") is None
    refused = cli("push-task", "fleet.host.ping", "--host", edge, "--offline", "queue", FLEET_PRINCIPAL="bob")
    assert refused.code in {4, 5}
    assert client.llen(names.queue(edge)) == 0
    [listed] = (row for row in cli("principal", "list", "--json").json if row["id"] == "bob")
    assert listed["state"] == "revoked"
    assert cli("principal", "revoke", "bob").code == 2


def test_without_a_file_nothing_is_pushed_and_it_says_how_to_get_one(cli: Cli, edge: str) -> None:
    done = cli("push-task", "fleet.host.ping", "--host", edge, FLEET_PRINCIPAL="carol")
    assert done.code == 4
    assert "principal 'carol' has no credential at" in done.error
    assert "`fleet principal create carol --level supervised`" in done.error


def test_the_fleets_key_is_changed_in_three_steps(
    cli: Cli, client: "redis.Redis", ledger: Engine, edge: str, state: Path
) -> None:
    first = factories.key("fleet").public
    [listed] = cli("key", "list", "--json").json
    assert (listed["number"], listed["key"], listed["state"]) == (1, first, "signs")

    rotated = cli("key", "rotate")
    assert rotated.code == 0
    old, new = cli("key", "list", "--json").json
    assert (old["key"], old["state"], new["state"]) == (first, "counts", "signs")
    assert fleets_word(client).keys == (first, new["key"])
    assert [word["kind"] for word in factories.heard(client, edge)] == ["trust.updated"]

    unheard = cli("key", "retire")
    assert unheard.code == 4
    assert "These hosts have not been online since it was made: edge-7" in unheard.error
    assert len(fleets_word(client).keys) == 2

    assert cli("key", "retire", "--yes").code == 0
    assert [row["state"] for row in cli("key", "list", "--json").json] == ["retired", "signs"]
    assert fleets_word_by(client, new["key"]).keys == (new["key"],)
    file = (state / "signing-keys.json").read_text()
    assert factories.key("fleet").secret().get_secret_value() not in file
    with db.session(ledger, write=False) as session:
        credential = inventory.host(session, edge).credential
    assert Trust.in_keys([new["key"]]).host(str(credential)).host == edge, "it was issued anew"
    assert Trust.in_keys([new["key"]]).principal(str(client.hget(names.PRINCIPALS, "alice"))).name == "alice"
    assert len(recorded(ledger, "key.added")) == len(recorded(ledger, "key.retired")) == 1
    # alice heard of the new key in none of these steps: her file is to be made anew, which her own command says
    late = cli("push-task", "fleet.host.ping", "--host", edge, "--offline", "queue")
    assert late.code == 4
    assert "`fleet principal rotate alice` makes a new file" in late.err


def fleets_word_by(client: "redis.Redis", key: str) -> Trust:
    known = Trust.in_keys([key])
    known.learn(str(client.get(names.TRUST)))
    return known


def test_without_the_keys_file_the_control_plane_says_where_to_get_it(cli: Cli, state: Path) -> None:
    (state / "signing-keys.json").unlink()
    for words in (("key", "rotate"), ("principal", "create", "bob", "--level", "student"), ("token", "create")):
        done = cli(*words)
        assert done.code == 1
        assert "copy the file from the machine where the control plane has run" in done.error
    assert not (state / "signing-keys.json").exists()


def test_labels_are_the_fleets_word_and_reach_the_host(cli: Cli, client: "redis.Redis", edge: str) -> None:
    assert cli("host", "label", edge, "env=test", "site=basel").code == 0
    assert factories.labels(client, edge) == {"env": "test", "site": "basel"}
    trust, word = factories.heard(client, edge)
    assert (trust["kind"], word["kind"]) == ("trust.updated", "credential.issued")
    trusted = Trust.in_keys([factories.key("fleet").public])
    assert trusted.host(word["credential"]).labels == {"env": "test", "site": "basel"}


def test_a_host_is_asked_to_change_its_key(cli: Cli, client: "redis.Redis", ledger: Engine, edge: str) -> None:
    assert cli("host", "rotate", edge).code == 0
    assert [word["kind"] for word in factories.heard(client, edge)] == ["key.rotation_requested"]
    assert recorded(ledger, "host.rotation_requested") == [{}]
    unknown = cli("host", "rotate", "edge-8")
    assert unknown.code == 2
    assert "did you mean 'edge-7'" in unknown.error


def test_a_host_is_put_out_with_all_that_waits_for_it(
    cli: Cli, client: "redis.Redis", ledger: Engine, edge: str
) -> None:
    cli("push-task", "fleet.host.ping", "--host", edge, "--offline", "queue")
    asked = cli("host", "revoke", edge)
    assert asked.code == 4
    assert "Put host edge-7 out of the fleet, with all that waits for it?" in asked.error
    assert client.llen(names.queue(edge)) == 1
    assert cli("host", "revoke", edge, "--yes").code == 0
    assert client.keys("fleet:h:edge-7:*") == []
    assert client.hkeys(names.HOSTS) == []
    [listed] = cli("host", "list", "--json").json
    assert listed["membership"] == "revoked"
    gone = cli("push-task", "fleet.host.ping", "--host", edge, "--offline", "queue")
    assert gone.code == 5
    with db.session(ledger, write=False) as session:
        assert len(audit.events(session, event="host.revoked", after_id=0)) == 1
        assert keyring.everything(session)


def test_what_a_principal_may_approve_is_said_when_it_is_made_and_changed_later(
    cli: Cli, client: "redis.Redis", ledger: Engine
) -> None:
    made = cli("principal", "create", "bob", "--level", "student", "--approves", "executes,reads", "--json")
    assert made.json["approves"] == ["reads", "executes"]
    assert published(client, "bob").approves == {"reads", "executes"}
    assert cli("principal", "show", "bob", "--json").json["approves"] == ["reads", "executes"]
    assert "reads,executes" in cli("principal", "list").out
    changed = cli("principal", "set-approves", "bob", "all", "--json")
    assert changed.json["approves"] == ["reads", "changes", "destroys", "executes"]
    assert len(published(client, "bob").approves) == 4
    none = cli("principal", "set-approves", "bob", "none")
    assert "bob may approve nothing from now on" in none.err
    cli("principal", "set-level", "bob", "intern", "--approves", "reads")
    assert (published(client, "bob").level, published(client, "bob").approves) == ("intern", {"reads"})
    assert cli("principal", "create", "eve", "--level", "autonomous", "--json").json["approves"] == []
    wrong = cli("principal", "set-approves", "bob", "reads,looks")
    assert wrong.code == 2
    assert "'looks' is no risk; write some of reads, changes, destroys, executes with commas" in wrong.error


def test_the_record_of_a_principal_stands_beside_its_level(cli: Cli, ledger: Engine) -> None:
    cli("principal", "create", "bob", "--level", "student")
    assert "it has pushed nothing yet" in cli("principal", "show", "bob").out
    run = names.new_run_id("edge-1")
    with db.session(ledger) as session:
        runs.apply_many(session, [factories.queued(run, by="bob"), *factories.life(run)])
    shown = cli("principal", "show", "bob").out
    assert "1 (1 succeeded)" in shown
    raised = cli("principal", "set-level", "bob", "intern")
    assert "1 (1 succeeded)" in raised.out
    assert "bob is intern from now on" in raised.err
    assert cli("principal", "show", "bob", "--json").json["record"]["succeeded"] == 1


def test_the_first_admin_of_a_fleet_may_approve_everything(cli: Cli, ledger: Engine) -> None:
    with db.session(ledger) as session:
        session.delete(session.get_one(Principal, "alice"))
    first = cli("principal", "create", "root", "--level", "autonomous", "--json")
    assert first.json["approves"] == ["reads", "changes", "destroys", "executes"]
    assert cli("principal", "create", "other", "--level", "autonomous", "--json").json["approves"] == []
