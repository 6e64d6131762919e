"""Principals: whoever may push, how far each is trusted, and the files they push by.

A principal's file holds its key, its credential and its login at the broker. What changes later (its level, the fleet's
key) comes to it through the broker; only a new key makes a new file. Hosts judge by the fleet's word: which credentials
do not count any more is in its statement (`fleet.keyring`).
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from fleet import audit, clock, db, errors, keyring, labeling, names
from fleet.broker import login
from fleet.contracts import Risk
from fleet.contracts.credentials import PrincipalCredential
from fleet.keyring import Keyring
from fleet.models import Host, Principal, Run
from fleet.security.identity import Level, PrincipalIdentity
from fleet.security.keys import KeyPair

DEFAULT_TTL = timedelta(days=365)
SHORTEST_TTL, LONGEST_TTL = timedelta(minutes=1), timedelta(days=3650)
#: How long a former key counts beside a new one.
DEFAULT_OVERLAP = timedelta(hours=1)


def create(
    session: Session,
    *,
    ring: Keyring,
    name: str,
    level: Level,
    by: str,
    broker_url: str,
    broker_ca: str | None = None,
    selectors: Mapping[str, str] | None = None,
    approves: Collection[Risk] = (),
    ttl: timedelta = DEFAULT_TTL,
) -> PrincipalCredential:
    """Make a principal and return what its file holds; it can push once the broker knows its user.

    `selectors` are the labels that a host must have, `approves` the risks of others' runs that it may approve. Raises
    `errors.InvalidValue`, `errors.Refused` where there is one of that name. The name of a revoked one can be given anew
    and inherits nothing but its count of credentials.
    """
    names.principal(name)
    if not SHORTEST_TTL <= ttl <= LONGEST_TTL:
        raise errors.InvalidValue(
            field="ttl", value=str(ttl), problem="is out of bounds", remedy=f"use 1m to {LONGEST_TTL.days}d"
        )
    db.take(session, db.Lock.TRUST)
    known = session.get(Principal, name)
    if known is not None and known.revoked_at is None:
        raise errors.Refused(
            f"there is a principal {name!r} already",
            remedy=f"`fleet principal rotate {name}` makes a new file for it, `set-level` changes what it may do",
        )
    now = clock.now()
    row = known or Principal(id=name, level="", credential="", expires_at=now, created_at=now, created_by=by)
    row.level, row.selectors = level.value, labeling.check(selectors or {})
    row.approves = _in_order(approves)
    row.created_at, row.created_by, row.expires_at, row.revoked_at = now, by, now + ttl, None
    row.keys, row.broker_hashes = [], []
    made = _equip(session, row, ring, broker_url=broker_url, broker_ca=broker_ca)
    _record(session, "principal.created", row, by)
    return made


def get(session: Session, name: str) -> Principal:
    """Return a principal that is not revoked; raise `errors.NotFound` with the nearest name."""
    found = session.get(Principal, names.principal(name))
    if found is None or found.revoked_at is not None:
        known = [row.id for row in everybody(session) if row.revoked_at is None]
        raise errors.NotFound(
            f"no principal named {name!r}",
            remedy=errors.did_you_mean(name, known) or "`fleet principal list` shows those there are",
        )
    return found


def everybody(session: Session, *, after: str | None = None, limit: int | None = None) -> list[Principal]:
    """Return principals by name, the revoked ones too; with `after` those that follow that name."""
    query = select(Principal).order_by(col(Principal.id)).limit(limit)
    if after is not None:
        query = query.where(col(Principal.id) > after)
    return list(session.exec(query).all())


def set_level(
    session: Session, name: str, level: Level, *, ring: Keyring, by: str, approves: Collection[Risk] | None = None
) -> Principal:
    """Change what a principal may do, from now on and on every host; its file stays as it is.

    What it may approve is changed too where `approves` says so. A former file (`rotate`) ends at once, before its
    overlap is over: it says the former level. Nothing else ever changes a level.
    """
    db.take(session, db.Lock.TRUST)
    row = get(session, name)
    wanted = row.approves if approves is None else _in_order(approves)
    if (row.level, row.approves) == (level.value, wanted):
        return row
    event = "principal.level_set" if row.level != level else "principal.approves_set"
    row.level, row.approves = level.value, wanted
    _certify(session, row, ring)
    row.least_serial = row.serial
    _record(session, event, row, by)
    return row


def set_approves(session: Session, name: str, approves: Collection[Risk], *, ring: Keyring, by: str) -> Principal:
    """Change which risks of others' runs a principal may approve, as `set_level` does; its level stays as it is."""
    db.take(session, db.Lock.TRUST)  # before its level is read: it may be about to be lowered
    return set_level(session, name, Level(get(session, name).level), ring=ring, by=by, approves=approves)


def rotate(
    session: Session,
    name: str,
    *,
    ring: Keyring,
    by: str,
    broker_url: str,
    broker_ca: str | None = None,
    overlap: timedelta = DEFAULT_OVERLAP,
    ttl: timedelta = DEFAULT_TTL,
) -> PrincipalCredential:
    """Give a principal a new key, login and credential, and return its new file; the former count for `overlap`."""
    db.take(session, db.Lock.TRUST)
    row = get(session, name)
    row.keys, row.broker_hashes = row.keys[-1:], row.broker_hashes[-1:]
    row.overlap_until, row.expires_at = clock.now() + overlap, clock.now() + ttl
    row.least_serial = max(row.least_serial, row.serial)  # of three, the oldest ends now
    made = _equip(session, row, ring, broker_url=broker_url, broker_ca=broker_ca)
    _record(session, "principal.rotated", row, by)
    return made


def revoke(session: Session, name: str, *, by: str) -> Principal:
    """Let nothing count that a principal has, from now on and on every host."""
    db.take(session, db.Lock.TRUST)
    row = get(session, name)
    row.revoked_at = clock.now()
    row.serial += 1
    row.least_serial = row.serial
    row.broker_hashes = []
    session.add(row)
    _record(session, "principal.revoked", row, by)
    return row


def renew(session: Session, ring: Keyring, *, now: datetime) -> bool:
    """End overlaps that are over, and issue credentials anew under the newest key; return whether anything changed."""
    db.take(session, db.Lock.TRUST)  # or a level that is set meanwhile would be issued away
    changed = False
    for row in everybody(session):
        if row.revoked_at is not None:
            continue
        if row.overlap_until is not None and row.overlap_until <= now:
            row.overlap_until, row.least_serial = None, row.serial
            row.keys, row.broker_hashes = row.keys[-1:], row.broker_hashes[-1:]
            session.add(row)
            changed = True
        if not ring.has_issued(row.credential):
            row.credential = ring.issue(_identity(row))  # the same serial: only the key that says so is another
            session.add(row)
            changed = True
    return changed


def keys(session: Session, wanted: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the public keys of those of these principals that are not revoked."""
    query = select(Principal.id, Principal.keys).where(
        col(Principal.id).in_(wanted), col(Principal.revoked_at).is_(None)
    )
    return {name: tuple(found) for name, found in session.exec(query).all()}


def may_end(session: Session, name: str, run: Run) -> bool:
    """Say whether a principal may end a run: its own, and where it may change something, those of hosts that it may
    push to. Hosts ask the same of whoever tells them directly."""
    if run.submitted_by == name:
        return True
    row, host = session.get(Principal, name), session.get(Host, run.host_id)
    if row is None or row.revoked_at is not None or row.expires_at < clock.now():
        return False
    labels = host.labels if host else {}
    return Level(row.level).may(Risk.CHANGES) and labeling.matches(labels, row.selectors)


def _equip(
    session: Session, row: Principal, ring: Keyring, *, broker_url: str, broker_ca: str | None
) -> PrincipalCredential:
    """Make key, password and credential, and return the file's content."""
    key, password = KeyPair.generate(), login.new_password()
    row.keys = [*row.keys, key.public]
    row.broker_hashes = [*row.broker_hashes, login.hashed(password)]
    _certify(session, row, ring)
    return PrincipalCredential(
        name=row.id,
        broker_url=login.at(broker_url, login.principal_user(row.id), password),
        broker_ca=broker_ca,
        private_key=key.secret(),
        credential=row.credential,
        trust=keyring.statement(session, ring),
    )


def _certify(session: Session, row: Principal, ring: Keyring) -> None:
    row.serial = (row.serial or 0) + 1 if row.credential else max(row.serial or 1, 1)
    row.credential = ring.issue(_identity(row))
    session.add(row)
    session.flush()


def _identity(row: Principal) -> PrincipalIdentity:
    return PrincipalIdentity(
        name=row.id,
        key=row.keys[-1],
        level=Level(row.level),
        selectors=row.selectors,
        serial=row.serial,
        issued_at=clock.now().timestamp(),
        expires_at=row.expires_at.timestamp(),
        approves=frozenset(Risk(risk) for risk in row.approves),
    )


def _in_order(approves: Collection[Risk]) -> list[str]:
    """Return risks as they are kept, from the least to the greatest: the same ones are then equal."""
    return [risk.value for risk in Risk if risk in set(approves)]


def _record(session: Session, event: str, row: Principal, by: str) -> None:
    data = {
        "principal": row.id,
        "level": row.level,
        "selectors": row.selectors,
        "approves": row.approves,
        "serial": row.serial,
        "expires_at": row.expires_at.isoformat(),
    }
    audit.record(session, event=event, actor=names.principal_sender(by), data=data)
