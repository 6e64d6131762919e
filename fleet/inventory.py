"""Inventory: the lasting record of hosts, their labels and facts, and their containers.

Labels are the fleet's word about a host: they come from a token or an admin. Facts are the host's own word: nothing is
ever decided by them. Whether a host is alive now is `fleet.presence`'s to say. Who changes something here records it in
the audit as well.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from fleet import clock, errors, labeling, names
from fleet.contracts.containers import Container, Label
from fleet.contracts.hosts import UNLISTED, Availability, Facts
from fleet.models import ContainerRecord, Host, Membership

if TYPE_CHECKING:
    import redis

#: What sessions of a host left in its row; another host of the same name has none of it.
_OF_A_SESSION = ("registered_at", "last_seen_at", "signed_off_at", "inventory_at", "journal")


def host(session: Session, host_id: str) -> Host:
    """Return a host; raise `errors.NotFound` with the nearest name."""
    found = session.get(Host, names.host_id(host_id))
    if found is None:
        known = [str(name) for name in session.exec(select(Host.id)).all()]
        raise errors.NotFound(
            f"no host named {host_id!r}",
            remedy=errors.did_you_mean(host_id, known) or "`fleet host list` shows those there are",
        )
    return found


def held(session: Session, host_id: str) -> Host | None:
    """Return a host as it is now, which nobody else changes until this transaction ends; None where there is none.

    For whoever writes what follows from what he read: his word would undo another's that came in between.
    """
    session.flush()  # it is read anew
    return session.get(Host, names.host_id(host_id), with_for_update=True, populate_existing=True)


def kept_still(session: Session, host_id: str) -> Host:
    """Return what `held` does; raise `errors.NotFound` where there is no such host."""
    return held(session, host_id) or host(session, host_id)


def hosts(
    session: Session,
    *,
    selector: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> list[Host]:
    """Return the hosts that have all labels of the selector, by name; without one every host.

    With `after` only those that follow that name, whether there is such a host or not.
    """
    query = select(Host).where(*labeling.having(Host.labels, selector or {})).order_by(col(Host.id)).limit(limit)
    return list(session.exec(query if after is None else query.where(col(Host.id) > after)).all())


def set_labels(session: Session, host_id: str, set: Mapping[str, str], unset: Iterable[str] = ()) -> Host:  # noqa: A002
    """Set labels of a host, then remove others, and return it. A label that is not there is removed already."""
    found = kept_still(session, host_id)
    gone = frozenset(unset)
    labels = labeling.check({key: value for key, value in {**found.labels, **set}.items() if key not in gone})
    if labels != found.labels:
        found.labels, found.credential = labels, None  # a new one says so
    session.add(found)
    return found


def set_availability(
    session: Session, host_id: str, availability: Availability, *, at: datetime, deadline: datetime | None = None
) -> None:
    """Note whether a host is to take new work, decided now. See `fleet.availability`.

    A decision is later than the one before it, also where two are made at once, or the broker's clock went back: hosts
    go by these moments, and one that has obeyed the later never obeys the earlier.
    """
    found = kept_still(session, host_id)
    found.availability = availability.value
    before = found.availability_at
    found.availability_at = at if before is None else max(at, before + timedelta(microseconds=1))
    found.drain_deadline = deadline
    session.add(found)


def enroll_host(
    session: Session, host_id: str, *, key: str, labels: Mapping[str, str] | None = None, at: datetime | None = None
) -> Host:
    """Take a host into the fleet by its public key and return it; its credential is yet to be issued.

    One that is a member already keeps its labels, the new ones laid over; the name of a revoked one inherits nothing.
    """
    found = held(session, host_id)
    kept = found.labels if found and found.membership == Membership.ACCEPTED else {}
    moment = at or clock.now()
    if found is None:
        found = Host(id=host_id, enrolled_at=moment)
    elif found.membership != Membership.ACCEPTED:
        forget_containers(session, host_id)
        found.sqlmodel_update(dict.fromkeys(_OF_A_SESSION), update={"facts": {}, "availability": Availability.ACTIVE})
    found.membership = Membership.ACCEPTED.value
    found.labels = labeling.check({**kept, **(labels or {})})
    found.enrolled_at = moment
    found.keys, found.credential = [key], None
    session.add(found)
    session.flush()
    return found


def offer_key(session: Session, host_id: str, *, key: str, broker_hash: str) -> None:
    """Note the key and the password that a host is about to change to; until it has, both of each count."""
    found = kept_still(session, host_id)
    if found.membership == Membership.ACCEPTED and key not in found.keys:
        found.keys = [*found.keys[-1:], key]
        found.broker_hashes = [*found.broker_hashes[-1:], broker_hash]
        found.credential = None  # the next one is for that key
        session.add(found)
        session.flush()


def settle_key(session: Session, host_id: str, *, key: str) -> bool:
    """Let only the newest key and password of a host count, once it goes by them; return whether that is new."""
    found = kept_still(session, host_id)
    if len(found.keys) < 2 or found.keys[-1] != key:
        return False
    found.keys, found.broker_hashes = found.keys[-1:], found.broker_hashes[-1:]
    session.add(found)
    session.flush()
    return True


def revoke_host(session: Session, found: Host) -> None:
    """Put a host out: its keys and passwords count no more, and its reports are not taken in."""
    found.membership = Membership.REVOKED.value
    found.keys, found.broker_hashes, found.credential = [], [], None
    session.add(found)
    session.flush()


def accepted(session: Session, host_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the public keys of those of these that are members of the fleet, the newest last."""
    query = select(Host.id, Host.keys).where(col(Host.id).in_(list(host_ids)), Host.membership == Membership.ACCEPTED)
    return {host: tuple(keys) for host, keys in session.exec(query).all()}


def register(session: Session, host_id: str, *, facts: Facts | None, at: datetime, unlisted: bool = False) -> None:
    """Note that a worker session of the host began, with what the host says about itself; an unlisted one says nothing
    more, and what was known of its containers is known no longer."""
    found = host(session, host_id)
    found.facts = {UNLISTED: True} if facts is None or unlisted else facts.model_dump(mode="json")
    if unlisted:
        sync_containers(session, host_id, (), at=at)
        found.inventory_at = None
    found.registered_at = at
    found.signed_off_at = None
    session.add(found)


def deregister(session: Session, host_id: str, *, at: datetime) -> None:
    """Note that the host's worker ended cleanly."""
    found = host(session, host_id)
    found.signed_off_at = at
    session.add(found)


def containers(
    session: Session,
    *,
    host: str | None = None,
    all: bool = True,  # noqa: A002
    managed: bool = False,
    selector: Mapping[str, str] | None = None,
    after: tuple[str, str] | None = None,
    limit: int | None = None,
) -> list[ContainerRecord]:
    """Return containers as last reported, by host and name.

    Without `all` only those that run, with `managed` those that Fleet made, with `selector` those of the hosts that
    have all these labels, and with `after` those that follow that host and name, whether they are there or not.
    """
    record = ContainerRecord
    place = (col(record.host_id), col(record.name))
    query = select(record).order_by(*place, col(record.docker_id)).limit(limit)
    if host is not None:
        query = query.where(record.host_id == names.host_id(host))
    if not all:
        query = query.where(record.state == "running")
    if managed:
        query = query.where(*labeling.having(record.labels, {Label.MANAGED: "true"}))
    if selector:
        query = query.join(Host, col(Host.id) == col(record.host_id)).where(*labeling.having(Host.labels, selector))
    if after is not None:
        query = query.where(tuple_(*place) > after)
    return list(session.exec(query).all())


def forget_containers(session: Session, host_id: str) -> None:
    """Remove every container of a host from the record."""
    for record in containers(session, host=host_id):
        session.delete(record)


def publish_hosts(session: Session, client: "redis.Redis", host: str | None = None) -> None:
    """Write the registry hash: every host that is a member, or the one named. Call it after the change is committed."""
    # Read before the database: a host that is published in between is in neither list, and stays.
    published: set[Any] = set(client.hkeys(names.HOSTS)) if host is None else {host}
    query = select(Host).where(Host.membership == Membership.ACCEPTED)
    found = session.exec(query if host is None else query.where(Host.id == names.host_id(host))).all()
    entries: dict[Any, Any] = {
        each.id: json.dumps({"credential": each.credential, "availability": each.availability})
        for each in found
        if each.credential
    }
    # one whose next credential is yet to be issued goes by the former: it must not vanish for callers meanwhile
    gone = published - {each.id for each in found}
    with client.pipeline(transaction=True) as pipeline:
        if gone:
            pipeline.hdel(names.HOSTS, *gone)
        if entries:
            pipeline.hset(names.HOSTS, mapping=entries)
        pipeline.execute()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What an inventory report changed. The sentence `status` ("Up 3 minutes") alone is no change."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def sync_containers(session: Session, host_id: str, containers: Iterable[Container], *, at: datetime) -> Difference:
    """Replace what is known of the host's containers; return the names of those that differ."""
    wanted = {container.docker_id: container for container in containers}
    known = _records(session, host_id)
    difference = _store(session, host_id, wanted, known, removed=known.keys() - wanted.keys())
    host(session, host_id).inventory_at = at
    return difference


def change_containers(
    session: Session, host_id: str, changed: Iterable[Container], removed: Iterable[str] = ()
) -> Difference:
    """Take in what is different since the last inventory report: containers in full, and Docker ids that are gone."""
    known = _records(session, host_id)
    wanted = {container.docker_id: container for container in changed}
    return _store(session, host_id, wanted, known, removed=(known.keys() & set(removed)) - wanted.keys())


def _records(session: Session, host_id: str) -> dict[str, ContainerRecord]:
    return {record.docker_id: record for record in containers(session, host=host_id)}


def _store(
    session: Session,
    host_id: str,
    wanted: Mapping[str, Container],
    known: Mapping[str, ContainerRecord],
    *,
    removed: Iterable[str],
) -> Difference:
    added, changed, gone = [], [], []
    for docker_id, container in wanted.items():
        values = _columns(container)
        record = known.get(docker_id)
        if record is None:
            session.add(ContainerRecord(host_id=host_id, **values))
            added.append(container.name)
            continue
        different = {name for name, value in values.items() if getattr(record, name) != value}
        if different:
            record.sqlmodel_update({name: values[name] for name in different})
        if different - {"status"}:
            changed.append(container.name)
    for docker_id in removed:
        gone.append(known[docker_id].name)
        session.delete(known[docker_id])
    session.flush()
    return Difference(added=tuple(sorted(added)), changed=tuple(sorted(changed)), removed=tuple(sorted(gone)))


def _columns(container: Container) -> dict[str, Any]:
    values = container.model_dump(exclude={"ports", "created", "started"})
    values["ports"] = [port.model_dump(mode="json") for port in container.ports]
    values["created"] = _aware(container.created)
    values["started"] = container.started and _aware(container.started)
    return values


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
