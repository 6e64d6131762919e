"""Bearer tokens: by which a program speaks to the REST API in a principal's name.

    fleetapi.<public id>.<secret>

The API signs nothing of its own accord: a principal's key lies in the database sealed by a key that follows from the
token's secret, and of the secret only a hash is kept. So whoever steals the database can push nothing, and the API can
sign for a principal only while a program shows it a token of that principal's. Who makes a token holds the principal's
file already; a token never says more than the file, and how far it goes is its scope.
"""

import hmac
import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from sqlmodel import Session, col, select

from fleet import audit, clock, errors, keyring, names, principals, tokens
from fleet.broker import login
from fleet.contracts.credentials import PrincipalCredential
from fleet.keyring import Keyring
from fleet.models import BearerToken, Principal
from fleet.security.identity import Level
from fleet.security.keys import KeyPair
from fleet.security.sealing import Opener, seal

_FORM = re.compile(r"fleetapi\.(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})")
_PURPOSE = "fleet bearer token 1"
DEFAULT_TTL = timedelta(days=30)
SHORTEST_TTL, LONGEST_TTL = timedelta(minutes=1), timedelta(days=3650)
MOST_DESCRIPTION = 200
#: How exact the time of last use is kept: not every request is a write.
_USE_NOTED_EVERY = timedelta(minutes=1)
#: The one answer to every text that is no token of this fleet.
_UNKNOWN = "this bearer token is none of this fleet's"
_REMEDY = "`fleet principal token` makes one, where the principal's file and the control plane's settings are"


class Ended(errors.Unauthenticated):
    """The token was one of this fleet's, and counts no more. Said only to whoever has its secret."""

    code = "token_ended"


class Scope(StrEnum):
    """What a token is for; each includes those before it."""

    #: what the principal's level and selectors let it do
    USE = "use"
    #: reading the audit and the recorded sessions of everybody as well
    AUDIT = "audit"
    #: changing who belongs to the fleet: hosts, enrollment tokens, principals
    ADMIN = "admin"

    def includes(self, other: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """Who has shown a token, as of now."""

    token_id: str
    principal: str
    level: Level
    scope: Scope
    #: labels that a host must have; empty for every host
    selectors: dict[str, str]
    #: risks of others' runs that it may approve
    approves: tuple[str, ...]
    expires_at: datetime
    #: what it signs by
    credential: PrincipalCredential

    @property
    def is_of_all(self) -> bool:
        """Say whether its principal may be trusted now with more than its own: autonomous, for all hosts."""
        return self.level is Level.AUTONOMOUS and not self.selectors

    @property
    def reads_all(self) -> bool:
        """Say whether it shows everybody's records now: it was made for that, and its principal is still trusted."""
        return self.scope.includes(Scope.AUDIT) and self.is_of_all


def create(
    session: Session,
    *,
    held: PrincipalCredential,
    by: str,
    scope: Scope = Scope.USE,
    ttl: timedelta = DEFAULT_TTL,
    description: str = "",
) -> str:
    """Make a token for the principal whose file this is, and return its text, which is shown this once.

    Raises `errors.InvalidValue`, `errors.NotFound` for a principal that is none, `errors.Refused` for a file whose key
    does not count any more, or a scope that goes with a higher level.
    """
    row = principals.get(session, held.name)
    if not SHORTEST_TTL <= ttl <= LONGEST_TTL:
        raise errors.InvalidValue(
            field="ttl", value=str(ttl), problem="is out of bounds", remedy=f"use 1m to {LONGEST_TTL.days}d"
        )
    if len(description) > MOST_DESCRIPTION:
        raise errors.InvalidValue(
            field="description", value=description, problem="is too long", remedy=f"{MOST_DESCRIPTION} characters"
        )
    if KeyPair.read(held.private_key.get_secret_value()).public != row.keys[-1]:
        raise errors.Refused(
            f"the file of principal {held.name!r} holds a key that was replaced", remedy="use its newest file"
        )
    if scope is not Scope.USE and (Level(row.level) is not Level.AUTONOMOUS or row.selectors):
        raise errors.Refused(
            f"a token of scope {scope.value} is for autonomous principals of all hosts, and {held.name!r} is "
            f"{row.level}{' of some' if row.selectors else ''}",
            remedy="leave --scope out, or make another principal for it",
        )
    token_id, secret, now = secrets.token_hex(8), secrets.token_urlsafe(32), clock.now()
    record = BearerToken(
        id=token_id,
        principal=held.name,
        scope=scope.value,
        description=description,
        secret_hash=tokens.hash_secret(secret),
        sealed=seal(held.model_dump_json().encode(), _opener(secret).public),
        created_at=now,
        created_by=by,
        expires_at=min(now + ttl, row.expires_at),
    )
    session.add(record)
    data = {
        "token": token_id,
        "principal": held.name,
        "scope": scope.value,
        "expires_at": record.expires_at.isoformat(),
    }
    audit.record(session, event="bearer_token.created", actor=names.principal_sender(by), data=data)
    return f"fleetapi.{token_id}.{secret}"


def listing(session: Session, *, principal: str | None = None) -> list[BearerToken]:
    """Return tokens, the newest first; revoked and expired ones too."""
    query = select(BearerToken).order_by(col(BearerToken.created_at).desc(), col(BearerToken.id))
    if principal is not None:
        query = query.where(BearerToken.principal == names.principal(principal))
    return list(session.exec(query).all())


def state(row: BearerToken) -> str:
    """Say whether a token works by itself: valid, expired or revoked."""
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at <= clock.now() else "valid"


def revoke(session: Session, token_id: str, *, by: str) -> BearerToken:
    """Let a token count no more, from the next request on; raises `errors.NotFound`."""
    row = session.get(BearerToken, token_id)
    if row is None:
        raise errors.NotFound(
            f"no bearer token {token_id[:40]!r}", remedy="`fleet principal tokens` lists them by their ids"
        )
    if row.revoked_at is None:
        row.revoked_at = clock.now()
        session.add(row)
        data = {"token": row.id, "principal": row.principal}
        audit.record(session, event="bearer_token.revoked", actor=names.principal_sender(by), data=data)
    return row


def unknown() -> errors.Unauthenticated:
    """Return what is said to every text that is no token of this fleet's."""
    return errors.Unauthenticated(_UNKNOWN, remedy=_REMEDY)


def id_of(text: str) -> str | None:
    """Return the public id of a token's text; None for a text that is none."""
    match = _FORM.fullmatch(text)
    return match["id"] if match else None


def read(session: Session, ring: Keyring, text: str, *, broker_url: str, broker_ca: str | None = None) -> Bearer:
    """Return who shows this token; `broker_url` is where the broker is, whose user and password are the principal's.

    Raises `errors.Unauthenticated` for what is no token of this fleet's, `Ended` for one that counts no more.
    """
    match = _FORM.fullmatch(text)
    row = session.get(BearerToken, match["id"]) if match else None
    if match is None or row is None or not hmac.compare_digest(row.secret_hash, tokens.hash_secret(match["secret"])):
        raise unknown()
    _require_valid(row)
    held = PrincipalCredential.model_validate_json(_opener(match["secret"]).open(row.sealed))
    principal = _principal(session, row)
    key = KeyPair.read(held.private_key.get_secret_value()).public
    _require_key(principal, key)
    password = unquote(urlsplit(held.broker_url.get_secret_value()).password or "")
    return Bearer(
        token_id=row.id,
        principal=principal.id,
        level=Level(principal.level),
        scope=Scope(row.scope),
        selectors=dict(principal.selectors),
        approves=tuple(principal.approves),
        expires_at=row.expires_at,
        credential=held.model_copy(
            update={
                "broker_url": login.at(broker_url, login.principal_user(principal.id), password),
                "broker_ca": broker_ca,
                # while two keys count, the newest credential is the newest key's
                "credential": principal.credential if key == principal.keys[-1] else held.credential,
                "trust": keyring.statement(session, ring),
            }
        ),
    )


def again(session: Session, known: Bearer) -> Bearer:
    """Return who has shown a token before, with what is so now: for what goes on for long. Raises `Ended`."""
    row = session.get_one(BearerToken, known.token_id)
    _require_valid(row)
    principal = _principal(session, row)
    key = KeyPair.read(known.credential.private_key.get_secret_value()).public
    _require_key(principal, key)
    return replace(
        known,
        level=Level(principal.level),
        selectors=dict(principal.selectors),
        approves=tuple(principal.approves),
    )


def _require_valid(row: BearerToken) -> None:
    if (found := state(row)) != "valid":
        raise Ended(f"this bearer token {'was' if found == 'revoked' else 'has'} {found}", remedy=_REMEDY)


def _principal(session: Session, row: BearerToken) -> Principal:
    principal = session.get(Principal, row.principal)
    if principal is None or principal.revoked_at is not None or principal.expires_at <= clock.now():
        raise Ended(
            f"principal {row.principal!r} of this bearer token is revoked or has expired",
            remedy="ask whoever made the principal",
        )
    return principal


def _require_key(principal: Principal, key: str) -> None:
    if key not in principal.keys:
        raise Ended(f"principal {principal.id!r} has another key since this bearer token was made", remedy=_REMEDY)


def is_use_to_be_noted(row: BearerToken) -> bool:
    """Say whether so much time has passed since a token's last use that this one is written down."""
    return row.used_at is None or clock.now() - row.used_at >= _USE_NOTED_EVERY


def _opener(secret: str) -> Opener:
    return Opener.following(secret.encode(), purpose=_PURPOSE)
