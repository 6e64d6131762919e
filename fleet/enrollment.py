"""Enrollment, the control plane's side: making tokens, and letting hosts in by them.

A token enrolls `uses` hosts within its life. Whatever is wrong with one (expired, used up, revoked, another host's, a
wrong secret, never heard of) the answer is the same, and nothing is used up; the audit says what it was.
"""

import hmac
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import update
from sqlmodel import Session, col, select

from fleet import audit, clock, errors, inventory, names, tokens
from fleet.contracts.enrollment import EnrollmentAnswer, EnrollmentRequest
from fleet.models import EnrollmentToken, Host, Membership

DEFAULT_TTL = timedelta(minutes=15)
LONGEST_TTL = timedelta(days=30)
MOST_USES = 10_000
#: The one answer to every token that does not work: it tells nothing about which part was wrong.
_REFUSED = "this token does not enroll this host: it may be used up, expired, revoked or meant for another host"


def create_token(
    session: Session,
    *,
    broker_url: str,
    created_by: str,
    ttl: timedelta = DEFAULT_TTL,
    uses: int = 1,
    host_id: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Make a token and return its text, which is shown this once; raises `errors.InvalidValue`.

    A token for one `host_id` may also enroll that host again, which is otherwise refused.
    """
    if not timedelta(0) < ttl <= LONGEST_TTL:
        raise errors.InvalidValue(
            field="ttl", value=str(ttl), problem="is out of bounds", remedy=f"use up to {LONGEST_TTL.days} days"
        )
    if not 1 <= uses <= MOST_USES:
        raise errors.InvalidValue(
            field="uses", value=uses, problem="is out of bounds", remedy=f"use 1 to {MOST_USES:,}"
        )
    if host_id is not None:
        names.host_id(host_id)
    token = tokens.new(broker_url=broker_url)
    now = clock.now()
    record = EnrollmentToken(
        id=token.id,
        secret_hash=tokens.hash_secret(token.secret),
        created_at=now,
        created_by=created_by,
        expires_at=now + ttl,
        uses_left=uses,
        host_id=host_id,
        labels=inventory.check_labels(labels or {}),
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


def list_tokens(session: Session) -> list[EnrollmentToken]:
    """Return all tokens, the newest first."""
    return list(session.exec(select(EnrollmentToken).order_by(col(EnrollmentToken.created_at).desc())).all())


def revoke_token(session: Session, token_id: str, *, revoked_by: str) -> None:
    """Make a token useless; raises `errors.NotFound`. A second call changes nothing."""
    record = session.get(EnrollmentToken, token_id)
    if record is None:
        raise errors.NotFound(f"no token with the id {token_id!r}", remedy="`fleet token list` shows those there are")
    if record.revoked_at is None:
        record.revoked_at = clock.now()
        session.add(record)
        audit.record(session, event="token.revoked", actor=names.principal_sender(revoked_by), data={"token": token_id})


def redeem(session: Session, request: EnrollmentRequest) -> EnrollmentAnswer:
    """Let a host in by its token, or refuse it; audited either way.

    The same request again (a host that heard no answer asks again) gets the same answer and uses nothing up.
    """
    record = session.get(EnrollmentToken, request.token_id)
    secret_fits = hmac.compare_digest(
        record.secret_hash if record else "", tokens.hash_secret(request.secret) if record else "-"
    )
    known = session.get(Host, request.host) if names.HOST_ID.fullmatch(request.host) else None
    if record is not None and secret_fits and known is not None and known.enrolled_by == request.request_id:
        return EnrollmentAnswer(
            request_id=request.request_id, outcome="accepted", host=request.host, labels=known.labels
        )
    problem = _problem(record, request, known, secret_fits=secret_fits)
    if record is None or problem or not _use_up(session, request.token_id):
        return _refuse(session, request, problem or "used up or expired")
    host = inventory.enroll_host(session, request.host, labels=record.labels)
    host.enrolled_by = request.request_id
    session.add(host)
    audit.record(
        session,
        event="host.enrolled",
        actor=f"token:{request.token_id}",
        host_id=request.host,
        data={"token": request.token_id, "labels": host.labels, "version": request.version},
    )
    return EnrollmentAnswer(request_id=request.request_id, outcome="accepted", host=request.host, labels=host.labels)


def _problem(  # noqa: PLR0911 - one line a reason
    record: EnrollmentToken | None, request: EnrollmentRequest, known: Host | None, *, secret_fits: bool
) -> str:
    """Return what stands against the request, for the audit; empty where nothing does."""
    if record is None:
        return "unknown token"
    if not secret_fits:
        return "wrong secret"
    if record.revoked_at is not None:
        return "revoked"
    if not names.HOST_ID.fullmatch(request.host):
        return "not a host id"
    if record.host_id not in (None, request.host):
        return "another host's token"
    if known is not None and known.membership == Membership.ACCEPTED and record.host_id != request.host:
        return "the host is enrolled already"
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


def _refuse(session: Session, request: EnrollmentRequest, problem: str) -> EnrollmentAnswer:
    host = request.host if names.HOST_ID.fullmatch(request.host) else None
    audit.record(
        session,
        event="enrollment.refused",
        actor=f"token:{request.token_id[:32]}",
        host_id=host,
        data={"token": request.token_id[:32], "host": request.host[:80], "reason": problem},
    )
    reason = _REFUSED
    if problem == "the host is enrolled already":
        # The secret was right, so this tells nothing to a stranger, and the way out to an admin.
        reason = (
            f"host {request.host!r} is enrolled already; "
            f"to enroll it again use `fleet token create --host-id {request.host}`"
        )
    return EnrollmentAnswer(request_id=request.request_id, outcome="refused", reason=reason, host=request.host[:80])
