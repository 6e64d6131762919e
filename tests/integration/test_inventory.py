"""Inventory: hosts, labels, containers, and the registry hash."""

from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from fleet import db, enrollment, errors, inventory, labeling, names
from fleet.dispatch import membership
from fleet.models import Membership
from fleet.security.trust import Trust
from tests import factories

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def enrolled(engine: Engine) -> Engine:
    with db.session(engine) as session:
        factories.enroll(session, "edge-1", labels={"env": "prod", "tier": "edge"})
        factories.enroll(session, "edge-2", labels={"env": "prod"})
    return engine


def test_a_selector_means_hosts_with_all_its_labels(enrolled: Engine) -> None:
    with db.session(enrolled, write=False) as session:
        assert [host.id for host in inventory.hosts(session)] == ["edge-1", "edge-2"]
        assert [host.id for host in inventory.hosts(session, selector={"env": "prod", "tier": "edge"})] == ["edge-1"]
        assert inventory.hosts(session, selector={"env": "test"}) == []


@pytest.mark.parametrize(
    "selector",
    [
        {"a.b/c": "4"},
        {"a.b/c": "4", "mark": ""},
        {"a.b/c": ""},
        {"a.b/c": "04"},
        {"a": "4"},
        {"mark": "x"},
        {'a"b': "4"},
        {"$": "4"},
        {"": ""},
        {"a.b/c": "4' OR 1=1 --"},
        {"a.b/c": "\ud800"},
        {"a.b/c": "\0"},
    ],
    ids=ascii,
)
def test_the_database_finds_by_labels_what_a_comparison_does(engine: Engine, selector: dict[str, str]) -> None:
    labels: list[dict[str, str]] = [{"a.b/c": "4"}, {"a.b/c": "4", "mark": ""}, {"a": "b"}, {}]
    with db.session(engine) as session:
        for number, each in enumerate(labels):
            factories.enroll(session, f"edge-{number}", labels=each)
    wanted = [f"edge-{number}" for number, each in enumerate(labels) if labeling.matches(each, selector)]
    with db.session(engine, write=False) as session:
        assert [host.id for host in inventory.hosts(session, selector=selector)] == wanted


def test_pages_of_hosts_and_of_containers_follow_each_other_also_where_the_last_one_is_gone(enrolled: Engine) -> None:
    with db.session(enrolled) as session:
        for host, container in (("edge-1", "a"), ("edge-1", "b"), ("edge-2", "a"), ("edge-2", "b")):
            inventory.change_containers(session, host, [factories.container(container)])
    with db.session(enrolled, write=False) as session:

        def found(**wishes: Any) -> list[tuple[str, str]]:
            return [(row.host_id, row.name) for row in inventory.containers(session, **wishes)]

        assert [host.id for host in inventory.hosts(session, limit=1)] == ["edge-1"]
        assert [host.id for host in inventory.hosts(session, after="edge-1", limit=1)] == ["edge-2"]
        assert [host.id for host in inventory.hosts(session, after="edge-0", limit=1)] == ["edge-1"]
        assert found(limit=2) == [("edge-1", "a"), ("edge-1", "b")]
        assert found(limit=2, after=("edge-1", "aa")) == [("edge-1", "b"), ("edge-2", "a")]
        assert found(limit=2, after=("edge-1", "b"), selector={"env": "prod"}) == [("edge-2", "a"), ("edge-2", "b")]
        assert found(selector={"tier": "edge"}) == [("edge-1", "a"), ("edge-1", "b")]


def test_a_host_that_is_not_there_comes_with_a_suggestion(enrolled: Engine) -> None:
    with db.session(enrolled, write=False) as session:
        with pytest.raises(errors.NotFound, match="no host named 'edge-l'; did you mean 'edge-"):
            inventory.host(session, "edge-l")
        with pytest.raises(errors.InvalidValue, match="is not a host id"):
            inventory.host(session, "Edge_1")


def test_labels_are_set_and_removed(enrolled: Engine) -> None:
    with db.session(enrolled) as session:
        inventory.set_labels(session, "edge-1", {"env": "test", "mark": ""}, ["tier", "absent"])
    with db.session(enrolled, write=False) as session:
        assert inventory.host(session, "edge-1").labels == {"env": "test", "mark": ""}


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"a b": "x"}, "label: 'a b' cannot be used"),
        ({"": "x"}, "label: '' cannot be used"),
        ({"env": "pröd"}, "value of label 'env': 'pröd' cannot be used"),
        ({"env": "x" * 64}, "use 1 to 63 letters"),
        ({"-env": "x"}, "label: '-env'"),
        ({f"k{index}": "" for index in range(65)}, "labels: 65 are too many; a host may have 64"),
    ],
)
def test_labels_that_cannot_be_used_are_named(labels: dict[str, str], says: str) -> None:
    with pytest.raises(errors.InvalidValue, match=says):
        labeling.check(labels)


def test_a_second_enrollment_keeps_labels_and_a_revoked_name_inherits_nothing(enrolled: Engine) -> None:
    with db.session(enrolled) as session:
        inventory.register(session, "edge-1", facts=factories.facts(), at=AT)
        inventory.sync_containers(session, "edge-1", [factories.container("web")], at=AT)
        again = factories.enroll(session, "edge-1", labels={"tier": "core"})
        assert again.labels == {"env": "prod", "tier": "core"}
        assert again.facts["kernel"] == "6.1.0"
        again.membership = Membership.REVOKED.value
        assert inventory.accepted(session, ["edge-1", "edge-2", "edge-3"]) == {
            "edge-2": (factories.key("edge-2").public,)
        }
        anew = factories.enroll(session, "edge-1", labels={"env": "test"})
        assert (anew.labels, anew.facts, anew.registered_at) == ({"env": "test"}, {}, None)
        assert inventory.containers(session, host="edge-1") == []


def test_a_sync_replaces_what_was_known(enrolled: Engine) -> None:
    web, db_, old = (factories.container(name) for name in ("web", "db", "old"))
    with db.session(enrolled) as session:
        inventory.sync_containers(session, "edge-2", [old], at=AT)
        first = inventory.sync_containers(session, "edge-1", [web, old], at=AT)
        assert (first.added, first.changed, first.removed) == (("old", "web"), (), ())
    stopped = web.model_copy(update={"state": "exited", "status": "Exited (0)", "health": "unhealthy"})
    with db.session(enrolled) as session:
        second = inventory.sync_containers(session, "edge-1", [stopped, db_], at=AT)
        assert (second.added, second.changed, second.removed) == (("db",), ("web",), ("old",))
    with db.session(enrolled, write=False) as session:
        found = inventory.containers(session, host="edge-1")
        assert [(each.name, each.state, each.health) for each in found] == [
            ("db", "running", None),
            ("web", "exited", "unhealthy"),
        ]
        assert found[1].ports == [{"container_port": 80, "protocol": "tcp", "host_ip": "0.0.0.0", "host_port": 8080}]
        assert found[1].created == web.created
        assert [each.host_id for each in inventory.containers(session)] == ["edge-1", "edge-1", "edge-2"]
        assert [each.name for each in inventory.containers(session, host="edge-1", all=False)] == ["db"]
        assert inventory.host(session, "edge-1").inventory_at == AT


def test_a_sync_that_finds_nothing_new_is_no_difference(enrolled: Engine) -> None:
    web = factories.container("web")
    later = web.model_copy(update={"status": "Up 4 minutes"})
    with db.session(enrolled) as session:
        inventory.sync_containers(session, "edge-1", [web], at=AT)
        assert not inventory.sync_containers(session, "edge-1", [later], at=AT)
        assert inventory.containers(session)[0].status == "Up 4 minutes"


def test_changes_touch_only_what_they_name(enrolled: Engine) -> None:
    with db.session(enrolled) as session:
        inventory.sync_containers(session, "edge-1", [factories.container("web"), factories.container("db")], at=AT)
        gone = factories.container("db").docker_id
        difference = inventory.change_containers(session, "edge-1", [factories.container("new")], [gone, "unknown"])
        assert (difference.added, difference.removed) == (("new",), ("db",))
        assert [each.name for each in inventory.containers(session)] == ["new", "web"]


def test_registration_and_a_clean_stop_are_noted(enrolled: Engine) -> None:
    with db.session(enrolled) as session:
        inventory.deregister(session, "edge-1", at=AT)
        assert inventory.host(session, "edge-1").signed_off_at == AT
        inventory.register(session, "edge-1", facts=factories.facts(cpus=8), at=AT)
    with db.session(enrolled, write=False) as session:
        found = inventory.host(session, "edge-1")
        assert (found.facts["cpus"], found.registered_at, found.signed_off_at) == (8, AT, None)


def test_the_registry_hash_holds_the_members_and_nobody_else(enrolled: Engine, client: "redis.Redis") -> None:
    client.hset(names.HOSTS, "ghost", "{}")
    with db.session(enrolled) as session:
        inventory.publish_hosts(session, client)
        assert published(client) == {
            "edge-1": ({"env": "prod", "tier": "edge"}, "active"),
            "edge-2": ({"env": "prod"}, "active"),
        }
        inventory.revoke_host(session, inventory.host(session, "edge-1"))
        changed = inventory.set_labels(session, "edge-2", {"env": "test"})
        assert changed.credential is None, "the fleet is yet to say so"
        enrollment.identify(changed, factories.ring())
        inventory.publish_hosts(session, client, "edge-1")
        inventory.publish_hosts(session, client, "edge-2")
        assert published(client) == {"edge-2": ({"env": "test"}, "active")}


def published(client: "redis.Redis") -> dict[str, tuple[dict[str, str], str]]:
    """Return labels and availability of the hosts in the registry, by the fleet's word about them."""
    entries: Any = client.hgetall(names.HOSTS)
    trusted = Trust.in_keys([factories.key("fleet").public])
    members = {host: membership.read(host, entry, trust=trusted) for host, entry in entries.items()}
    return {host: (dict(member.labels), member.availability) for host, member in members.items()}


def test_a_host_whose_credential_is_yet_to_be_issued_is_not_in_the_registry(
    engine: Engine, client: "redis.Redis"
) -> None:
    with db.session(engine) as session:
        inventory.enroll_host(session, "edge-1", key=factories.key("edge-1").public)
        inventory.publish_hosts(session, client)
        assert published(client) == {}


def test_a_key_that_is_offered_counts_beside_the_former_until_it_is_taken(enrolled: Engine) -> None:
    first, second = factories.key("edge-1").public, factories.key("the next").public
    with db.session(enrolled) as session:
        host = inventory.host(session, "edge-1")
        host.broker_hashes = ["a" * 64]
        assert not inventory.settle_key(session, "edge-1", key=first), "nothing was offered"
        for _ in range(2):  # the report may come twice
            inventory.offer_key(session, "edge-1", key=second, broker_hash="b" * 64)
        assert (host.keys, host.broker_hashes) == ([first, second], ["a" * 64, "b" * 64])
        assert host.credential is None
        assert not inventory.settle_key(session, "edge-1", key=first)
        assert inventory.settle_key(session, "edge-1", key=second)
        assert (host.keys, host.broker_hashes) == ([second], ["b" * 64])
        assert not inventory.settle_key(session, "edge-1", key=second)


def test_of_a_host_that_is_put_out_nothing_counts(enrolled: Engine) -> None:
    with db.session(enrolled) as session:
        host = inventory.host(session, "edge-1")
        inventory.revoke_host(session, host)
        assert (host.keys, host.broker_hashes, host.credential) == ([], [], None)
        assert inventory.accepted(session, ["edge-1"]) == {}
