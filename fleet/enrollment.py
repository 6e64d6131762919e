"""Enrollment, the control plane's side: making tokens, and letting hosts in by them.

A token enrolls `uses` hosts within its life. Whatever is wrong with one (expired, used up, revoked, another host's, a
wrong secret, never heard of) the answer is the same, and nothing is used up; the audit says what it was. A host that is
a member already is enrolled again only by a token made for that host: whoever holds any token could take it over else.
A token that is used up and shown again was copied, so the host it enrolled may be a stranger: it is marked as suspect.
"""

import hmac
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import tuple_, update
from sqlmodel import Session, col, select

from fleet import audit, clock, db, errors, inventory, keyring, labeling, names, tokens
from fleet.broker import login
from fleet.contracts.enrollment import EnrollmentAnswer, EnrollmentRequest
from fleet.keyring import Keyring
from fleet.models import AuditEvent, EnrollmentToken, Host, Membership
from fleet.security.identity import HostIdentity
from fleet.security.keys import fingerprint

DEFAULT_TTL = timedelta(minutes=15)
#: Less is over before anybody has typed the token in on another machine.
SHORTEST_TTL = timedelta(minutes=1)
LONGEST_TTL = timedelta(days=30)
MOST_USES = 10_000
#: The one answer to every token that does not work: it tells nothing about which part was wrong.
_REFUSED = "this token does not enroll this host: it may be used up, expired, revoked or meant for another host"
_ENROLLED_ALREADY = "the host is enrolled already"
_TOO_MANY_LABELS = "too many labels"
#: What is said as it is, with the way out: the secret was right, so it tells nothing to a stranger.
_SAID_OPENLY = {
    _ENROLLED_ALREADY: (
        "host {host!r} is enrolled already; to enroll it again use `fleet token create --host-id {host}`"
    ),
    _TOO_MANY_LABELS: f"host {{host!r}} would have more than {labeling.MOST} labels; remove some of them first",
}


def create_token(
    session: Session,
    *,
    ring: Keyring,
    broker_url: str,
    broker_ca: str | None = None,
    created_by: str,
    ttl: timedelta = DEFAULT_TTL,
    uses: int = 1,
    host_id: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Make a token and return its text, which is shown this once; raises `errors.InvalidValue`.

    Of `broker_url` the address goes into it, without user and password; `broker_ca` (PEM) is for hosts whose system
    does not know the broker's CA. The token works once the broker knows its user
    (`fleet.members`). A token for one `host_id` may also enroll that host again, which is otherwise refused.
    """
    if not SHORTEST_TTL <= ttl <= LONGEST_TTL:
        raise errors.InvalidValue(
            field="ttl", value=str(ttl), problem="is out of bounds", remedy=f"use 1m to {LONGEST_TTL.days}d"
        )
    if not 1 <= uses <= MOST_USES:
        raise errors.InvalidValue(
            field="uses", value=uses, problem="is out of bounds", remedy=f"use 1 to {MOST_USES:,}"
        )
    if host_id is not None:
        names.host_id(host_id)
    db.take(session, db.Lock.TRUST)  # until its broker user is there, nobody takes that for a stranger's
    token = tokens.new(broker_url=login.without(broker_url), fleet=fingerprint(ring.newest.public), broker_ca=broker_ca)
    now = clock.now()
    record = EnrollmentToken(
        id=token.id,
        secret_hash=tokens.hash_secret(token.secret),
        broker_hash=login.hashed(token.broker_password()),
        created_at=now,
        created_by=created_by,
        expires_at=now + ttl,
        uses_left=uses,
        host_id=host_id,
        labels=labeling.check(labels or {}),
    )
    session.add(record)
    audit.record(
        session,
        event="token.created",
        actor=names.principal_sender(created_by),
        host_id=host_id,
        data={"token": token.id, "uses": uses, "expires_at": record.expires_at.isoformat(), "labels": record.labels},
    )
    return token.text()


def state(token: EnrollmentToken) -> str:
    """Say whether a token enrolls anybody: valid, used, expired or revoked."""
    if token.revoked_at:
        return "revoked"
    if token.uses_left < 1:
        return "used"
    return "expired" if token.expires_at <= clock.now() else "valid"


def list_tokens(session: Session, *, before: str | None = None, limit: int | None = None) -> list[EnrollmentToken]:
    """Return tokens, the newest first; with `before` those that follow that one in the list.

    Raises `errors.NotFound` for a `before` that is no token's id.
    """
    created_at, id_ = col(EnrollmentToken.created_at), col(EnrollmentToken.id)
    query = select(EnrollmentToken).order_by(created_at.desc(), id_.desc()).limit(limit)
    if before is not None:
        last = _get(session, before)
        query = query.where(tuple_(created_at, id_) < (last.created_at, last.id))
    return list(session.exec(query).all())


def revoke_token(session: Session, token_id: str, *, revoked_by: str) -> None:
    """Make a token useless; raises `errors.NotFound`. A second call changes nothing."""
    record = _get(session, token_id)
    if record.revoked_at is None:
        record.revoked_at = clock.now()
        session.add(record)
        audit.record(session, event="token.revoked", actor=names.principal_sender(revoked_by), data={"token": token_id})


def _get(session: Session, token_id: str) -> EnrollmentToken:
    record = session.get(EnrollmentToken, token_id)
    if record is None:
        raise errors.NotFound(f"no token with the id {token_id!r}", remedy="`fleet token list` shows those there are")
    return record


class Redemption(NamedTuple):
    """What came of a request: the answer to the host, and what was recorded (nothing for the same request again)."""

    answer: EnrollmentAnswer
    event: AuditEvent | None


def redeem(session: Session, request: EnrollmentRequest, *, ring: Keyring, broker_time: float) -> Redemption:
    """Let a host in by its token, or refuse it; audited either way. `broker_time` is in unix seconds.

    The same request again (a host that heard no answer asks again) gets the same answer and uses nothing up.
    """
    # One at a time: two control workers may have the same request in hand, or two requests of one host.
    keep_still(session)
    token = session.get(EnrollmentToken, request.token_id)
    host_id = _host_id(request)
    known = session.get(Host, host_id) if host_id else None
    secret_fits = token is not None and hmac.compare_digest(
        token.secret_hash, tokens.hash_secret(request.secret.get_secret_value())
    )
    if secret_fits and known and known.enrolled_by == request.request_id and _is_member(known):
        return Redemption(_accept(session, request, known, ring), None)
    problem = _problem(token, request, known, secret_fits=secret_fits)
    if not problem and broker_time > request.not_after:
        problem = "late"
    if token is None or host_id is None or problem or not _use_up(session, request.token_id):
        if secret_fits and token is not None and token.uses_left < 1:
            _suspect(session, token.id)
        return _refuse(session, request, problem or "used up or expired")
    host = inventory.enroll_host(
        session, host_id, key=request.key, labels=token.labels, at=clock.from_unix(broker_time)
    )
    host.enrolled_by, host.token_id, host.suspect = request.request_id, token.id, None
    host.broker_hashes = [request.broker_hash]
    session.add(host)
    event = audit.record(
        session,
        event="host.enrolled",
        actor=_actor(request),
        host_id=host_id,
        data={"token": request.token_id, "labels": host.labels, "version": request.version, "key": request.key},
    )
    return Redemption(_accept(session, request, host, ring), event)


def keep_still(session: Session) -> None:
    """Let nobody be made a member or put out, and no key, principal or token change, until this transaction ends."""
    db.take(session, db.Lock.ENROLL)
    db.take(session, db.Lock.TRUST)


def identify(host: Host, ring: Keyring) -> str:
    """Return the host's credential, issued now where it has none or what it says has changed."""
    if host.credential is None:
        who = HostIdentity(
            host=host.id,
            key=host.keys[-1],
            labels=host.labels,
            enrolled_at=host.enrolled_at.timestamp(),
            issued_at=clock.now().timestamp(),
        )
        host.credential = ring.issue(who)
    return host.credential


def _suspect(session: Session, token_id: str) -> None:
    """Mark the hosts that came by a token which somebody shows once more."""
    for host in session.exec(select(Host).where(Host.token_id == token_id, col(Host.suspect).is_(None))).all():
        host.suspect = f"token {token_id}, by which it came, was shown again"
        session.add(host)
        audit.record(session, event="host.suspected", actor="control", host_id=host.id, data={"reason": host.suspect})


def _problem(  # noqa: PLR0911 - one line a reason
    token: EnrollmentToken | None, request: EnrollmentRequest, known: Host | None, *, secret_fits: bool
) -> str:
    """Return what stands against the request, for the audit; empty where nothing does."""
    if token is None:
        return "unknown token"
    if not secret_fits:
        return "wrong secret"
    if token.revoked_at is not None:
        return "revoked"
    if _host_id(request) is None:
        return "not a host id"
    if token.host_id not in (None, request.host):
        return "another host's token"
    if known and _is_member(known):
        if token.host_id != request.host:
            return _ENROLLED_ALREADY
        if len({**known.labels, **token.labels}) > labeling.MOST:
            return _TOO_MANY_LABELS
    return ""


def _use_up(session: Session, token_id: str) -> bool:
    """Take one use, in one UPDATE: of many who ask at once, only as many get one as there are."""
    taken = session.connection().execute(
        update(EnrollmentToken)
        .where(
            col(EnrollmentToken.id) == token_id,
            col(EnrollmentToken.uses_left) > 0,
            col(EnrollmentToken.expires_at) > clock.now(),
            col(EnrollmentToken.revoked_at).is_(None),
        )
        .values(uses_left=col(EnrollmentToken.uses_left) - 1)
    )
    return taken.rowcount == 1


def _accept(session: Session, request: EnrollmentRequest, host: Host, ring: Keyring) -> EnrollmentAnswer:
    credential = identify(host, ring)
    session.add(host)
    return EnrollmentAnswer(
        request_id=request.request_id,
        outcome="accepted",
        host=host.id,
        labels=host.labels,
        credential=credential,
        trust=keyring.statement(session, ring),
    )


def _refuse(session: Session, request: EnrollmentRequest, problem: str) -> Redemption:
    event = audit.record(
        session,
        event="enrollment.refused",
        actor=_actor(request),
        host_id=_host_id(request),
        data={"token": request.token_id, "host": request.host[:80], "reason": problem},
    )
    answer = EnrollmentAnswer(
        request_id=request.request_id,
        outcome="refused",
        reason=_SAID_OPENLY.get(problem, _REFUSED).format(host=request.host),
        host=request.host[:80],
    )
    return Redemption(answer, event)


def _host_id(request: EnrollmentRequest) -> str | None:
    try:
        return names.host_id(request.host)
    except errors.InvalidValue:
        return None


def _is_member(host: Host) -> bool:
    return host.membership == Membership.ACCEPTED


def _actor(request: EnrollmentRequest) -> str:
    return f"token:{request.token_id}"
