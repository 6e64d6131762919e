"""Members: brings what the database says of hosts, principals and tokens into the broker, and to the hosts.

Everybody has a broker user of their own, the registry has everybody's credential, and hosts are told on their control
lists what concerns them. The database comes first: whoever was cut off in between is made good by the control worker,
which reconciles the broker when it begins and whenever the broker has started anew.
"""

import time
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import redis
from redis.client import NEVER_DECODE
from sqlmodel import Session, col, select

from fleet import audit, clock, db, enrollment, errors, inventory, keyring, names, policies, principals, tokens
from fleet.broker import login
from fleet.contracts.control import (
    ControlMessage,
    CredentialIssued,
    KeyRotationRequested,
    MembershipRevoked,
    PolicyUpdated,
    TrustUpdated,
)
from fleet.keyring import Keyring
from fleet.models import EnrollmentToken, Host, Membership, Principal
from fleet.security import acl, broker_users, signing

#: Words that lie for a host that is enrolled anew are looked at one by one up to so many: each costs a signature.
_MOST_WORDS = 1000
#: How long the broker user of an expired token stays: its host may still have to read the answer.
_ANSWER_READ_WITHIN = timedelta(seconds=60)
#: How long a host that is put out has to hear of it before its connections are cut.
_HEARD_WITHIN_SECONDS = 1.0
_LOOK_SECONDS = 0.02


def users(session: Session, *, now: datetime | None = None) -> dict[str, acl.User]:
    """Return the broker users that there are to be, by name: of hosts, principals and tokens."""
    found = [
        acl.host(host.id, host.broker_hashes)
        for host in session.exec(select(Host).where(Host.membership == Membership.ACCEPTED)).all()
        if host.broker_hashes
    ]
    found += [
        acl.principal(row.id, row.broker_hashes)
        for row in session.exec(select(Principal).where(col(Principal.revoked_at).is_(None))).all()
        if row.broker_hashes
    ]
    found += [_joiner(token) for token in session.exec(select(EnrollmentToken)).all() if _usable(token, now=now)]
    return {user.name: user for user in found}


def reconcile(session: Session, client: "redis.Redis", ring: Keyring) -> broker_users.Changes:
    """Leave exactly these users in the broker, and the registry as it is to be; see `broker_users.reconcile`."""
    enrollment.keep_still(session)
    changes = broker_users.reconcile(client, users(session))
    publish(session, client, ring)
    broker_users.save(client)
    return changes


def publish(session: Session, client: "redis.Redis", ring: Keyring) -> None:
    """Write what everybody reads: the fleet's word about itself, its policy, hosts, and principals' credentials."""
    db.take(session, db.Lock.TRUST)  # until it is written: what is read later must not be written over by it
    inventory.publish_hosts(session, client)
    live = {
        row.id: row.credential
        for row in session.exec(select(Principal).where(col(Principal.revoked_at).is_(None))).all()
    }
    published: Any = client.hkeys(names.PRINCIPALS)
    gone = set(published) - live.keys()
    stated = policies.signed(session, ring)
    pipe: Any
    with client.pipeline(transaction=True) as pipe:
        pipe.set(names.TRUST, keyring.statement(session, ring))
        if stated is not None:
            pipe.set(names.POLICY, stated)
        if gone:
            pipe.hdel(names.PRINCIPALS, *gone)
        if live:
            pipe.hset(names.PRINCIPALS, mapping=live)
        pipe.execute()


def tell(session: Session, client: "redis.Redis", ring: Keyring, said: Mapping[str, ControlMessage]) -> None:
    """Say something to hosts; those that are no members hear nothing."""
    keys = inventory.accepted(session, said)
    pipe: Any
    with client.pipeline(transaction=False) as pipe:
        for host, message in said.items():
            if keys.get(host):
                pipe.lpush(names.control(host), ring.word(keys[host][0], message))
        pipe.execute()


def announce_trust(session: Session, client: "redis.Redis", ring: Keyring) -> None:
    """Tell everybody which keys are the fleet's and whose credentials count. Call it after the change is committed."""
    publish(session, client, ring)
    _tell_everybody(session, client, ring, TrustUpdated(statement=keyring.statement(session, ring)))


def announce_policy(session: Session, client: "redis.Redis", ring: Keyring) -> None:
    """Tell everybody the fleet's policy, if there is one, signed by the keys of now. Call it after it is committed, and
    when the keys have changed: a host that has kept it would believe a former key no more."""
    db.take(session, db.Lock.TRUST)
    stated = policies.signed(session, ring)
    if stated is not None:
        client.set(names.POLICY, stated)
        _tell_everybody(session, client, ring, PolicyUpdated(statement=stated))


def announce_host(session: Session, client: "redis.Redis", ring: Keyring, host_id: str) -> None:
    """Issue a host's credential where it has none, and bring user, entry and credential to where they go.

    The host hears the fleet's keys right before: a credential by one that it has not heard of it would drop for good.
    """
    db.take(session, db.Lock.TRUST)  # neither its keys nor the fleet's are changed, nor is it put out meanwhile
    host = inventory.held(session, host_id)
    if host is None or host.membership != Membership.ACCEPTED or not host.keys:
        return
    credential = enrollment.identify(host, ring)
    session.add(host)
    session.flush()
    admit_host(client, host)
    inventory.publish_hosts(session, client, host_id)
    tell(session, client, ring, {host_id: TrustUpdated(statement=keyring.statement(session, ring))})
    tell(session, client, ring, {host_id: CredentialIssued(credential=credential)})


def set_labels(
    session: Session, host_id: str, *, to_set: Mapping[str, str], to_remove: Collection[str], by: str
) -> dict[str, str]:
    """Change labels of a host and return those it has; `announce_host` makes them count, once this is committed.

    Raises `errors.NotFound`, `errors.InvalidValue`.
    """
    row = inventory.set_labels(session, host_id, to_set, to_remove)
    labels = dict(row.labels)
    changed = {"set": dict(to_set), "removed": sorted(to_remove), "labels": labels}
    audit.record(session, event="host.labeled", actor=names.principal_sender(by), host_id=host_id, data=changed)
    return labels


def unannounced(session: Session) -> list[str]:
    """Return the members whose credentials are yet to be issued."""
    query = select(Host.id).where(Host.membership == Membership.ACCEPTED, col(Host.credential).is_(None))
    return list(session.exec(query).all())


def renew_hosts(session: Session, ring: Keyring) -> bool:
    """Have the credentials issued anew that an older key of the fleet signed; return whether there were any."""
    db.take(session, db.Lock.TRUST)
    query = select(Host).where(Host.membership == Membership.ACCEPTED, col(Host.credential).is_not(None))
    outdated = [host for host in session.exec(query).all() if not ring.has_issued(host.credential or "")]
    for host in outdated:
        host.credential = None
        session.add(host)
    return bool(outdated)


def prune_joiners(session: Session, client: "redis.Redis") -> int:
    """Take the broker users of tokens out whose time is over; return how many."""
    command: Any = client.execute_command
    enrollment.keep_still(session)
    wanted = users(session)
    present = [str(user) for user in command("ACL USERS")]
    gone = [user for user in present if user.startswith(acl.JOINER_PREFIX) and user not in wanted]
    return broker_users.remove(client, gone) if gone else 0


def admit_host(client: "redis.Redis", host: Host, *, anew: bool = False) -> None:
    """Let a host in at the broker; with `anew`, sessions of a former machine of that name end."""
    user = acl.host(host.id, host.broker_hashes)
    if anew:
        broker_users.cut(client, user.name)
    broker_users.apply(client, [user])
    broker_users.save(client)


def drop_former_words(session: Session, client: "redis.Redis", host: Host) -> None:
    """Take out of a host's control list what was said to a former machine of that name, or to its former key.

    Nothing of it is for this one, which would refuse each word on record. What was said to this one stays, unless
    somebody has filled the list: it goes as a whole then, and the host learns at its start what it has to know.
    """
    command: Any = client.execute_command
    trust, key = keyring.believed(session), names.control(host.id)
    # foreign bytes: a client that decodes would fail on them
    items = command("LRANGE", key, 0, _MOST_WORDS, **{NEVER_DECODE: True})
    if len(items) > _MOST_WORDS:
        client.delete(key)
        return
    for item in items:
        try:
            signing.check_control(item, host.keys, trust=trust)
        except errors.NotTrusted:
            client.lrem(key, 1, item)


def admit_principal(session: Session, client: "redis.Redis", name: str) -> Principal:
    """Let a principal in at the broker by the passwords that count, and return it; raises `errors.NotFound`."""
    row = principals.get(session, name)
    broker_users.apply(client, [acl.principal(row.id, row.broker_hashes)])
    broker_users.save(client)
    return row


def admit_token(session: Session, client: "redis.Redis", ring: Keyring, token: str) -> EnrollmentToken:
    """Let whoever holds a new token ask at the broker, and return what is kept of it.

    Call it before the token is committed: one that the broker does not take is none.
    """
    row = session.get_one(EnrollmentToken, tokens.parse(token).id)
    broker_users.apply(client, [_joiner(row)])
    broker_users.save(client)
    publish(session, client, ring)
    return row


def revoke_principal(session: Session, client: "redis.Redis", name: str, *, by: str) -> None:
    """Let a principal push nothing more; hosts hear it by `announce_trust`, once this is committed.

    Raises `errors.NotFound`.
    """
    principals.revoke(session, name, by=by)
    _expel(client, login.principal_user(name))


def revoke_token(session: Session, client: "redis.Redis", token_id: str, *, by: str) -> None:
    """Let an enrollment token enroll nobody any more; raises `errors.NotFound`."""
    enrollment.revoke_token(session, token_id, revoked_by=by)
    _expel(client, login.joiner_user(token_id))


def revoke_host(session: Session, client: "redis.Redis", ring: Keyring, host_id: str, *, by: str) -> Host:
    """Put a host out of the fleet, within two seconds: it is told, cut off, and what waited for it is gone.

    Raises `errors.NotFound`, and redis-py's errors before anything has changed.
    """
    enrollment.keep_still(session)
    host = inventory.host(session, host_id)
    key = names.control(host_id)
    if host.membership == Membership.ACCEPTED and host.keys:
        word = ring.word(host.keys[0], MembershipRevoked(by=by))
        client.lpush(key, word)
        _await_read(client, key, word)
    _expel(client, login.host_user(host_id))
    inbox = names.inbox(host_id, 0).removesuffix("0")
    left = [names.queue(host_id), key, names.presence(host_id), names.inventory(host_id), names.dead(host_id)]
    left += [str(found) for found in client.scan_iter(match=f"{inbox}*", count=1000)]
    client.delete(*left)
    client.hdel(names.HOSTS, host_id)
    inventory.revoke_host(session, host)
    audit.record(
        session, event="host.revoked", actor=names.principal_sender(by), host_id=host_id, data={"suspect": host.suspect}
    )
    return host


def request_key_rotation(session: Session, client: "redis.Redis", ring: Keyring, host_id: str, *, by: str) -> None:
    """Ask a host to change its key and the password of its broker user; it does so under way, and loses nothing."""
    inventory.host(session, host_id)
    audit.record(session, event="host.rotation_requested", actor=names.principal_sender(by), host_id=host_id, data={})
    tell(session, client, ring, {host_id: KeyRotationRequested()})


def _expel(client: "redis.Redis", user: str) -> None:
    """Cut somebody off from the broker, also where they wait in a blocking command."""
    broker_users.cut(client, user)
    broker_users.save(client)


def _tell_everybody(session: Session, client: "redis.Redis", ring: Keyring, message: ControlMessage) -> None:
    hosts = session.exec(select(Host.id).where(Host.membership == Membership.ACCEPTED)).all()
    tell(session, client, ring, dict.fromkeys(hosts, message))


def _await_read(client: "redis.Redis", key: str, word: str) -> None:
    command: Any = client
    ends = time.monotonic() + _HEARD_WITHIN_SECONDS
    while time.monotonic() < ends and command.lpos(key, word) is not None:
        time.sleep(_LOOK_SECONDS)


def _joiner(token: EnrollmentToken) -> acl.User:
    return acl.joiner(token.id, [token.broker_hash] if token.broker_hash else [])


def _usable(token: EnrollmentToken, *, now: datetime | None) -> bool:
    """Say whether a token has a broker user: also one that is used up, so that a second use comes before the control
    plane, which marks the host that the first one made."""
    if not token.broker_hash or token.revoked_at is not None:
        return False
    return token.expires_at + _ANSWER_READ_WITHIN > (now or clock.now())
