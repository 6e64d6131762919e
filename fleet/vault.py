"""The vault: the secrets of containers, as the control plane keeps them and gives them to hosts.

A value is kept sealed to the fleet's own key and opened only to be sealed again, to a key that a host has just shown. A
host gets what a message names that a principal has signed for that very host, and that both of them may have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from fleet import audit, canonical, clock, db, errors, keyring, labeling, names, runs
from fleet.contracts import Risk, approvals, containers
from fleet.contracts.control import ApproveRun, SecretsIssued
from fleet.contracts.envelope import HEADER, Envelope
from fleet.contracts.secrets import LARGEST, MOST, SECRET_NAME, SecretRef, SecretsWanted, pack
from fleet.keyring import Keyring
from fleet.models import Host, Membership, Run, Secret
from fleet.security import sealing, signing
from fleet.security.identity import PrincipalIdentity
from fleet.security.trust import Trust

#: How many of the fleet's secrets there may be.
_MOST_KEPT = 10_000


def keep(
    session: Session,
    name: str,
    value: bytes,
    *,
    ring: Keyring,
    by: str,
    selectors: Mapping[str, str] | None = None,
    principals: Sequence[str] | None = None,
    replace: bool = False,
) -> Secret:
    """Keep a value under a name; with `replace`, in the place of the one that is there.

    `selectors` are the labels of hosts that may get it, `principals` who may have it put into containers; empty ones
    are all, and None leaves that as it is (a new one is for all). Raises `errors.InvalidValue`, and `errors.Refused`
    where there is one of that name.
    """
    if not SECRET_NAME.fullmatch(name):
        raise errors.InvalidValue(
            field="name",
            value=name,
            problem="cannot be the name of a secret",
            remedy="use 1 to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    if not 0 < len(value) <= LARGEST:
        raise errors.InvalidValue(
            field="value", value=len(value), problem="bytes cannot be kept", remedy=f"1 to {LARGEST:,} can"
        )
    db.take(session, db.Lock.TRUST)
    row = session.get(Secret, name)
    if row is not None and not replace:
        raise errors.Refused(
            f"there is a secret {name!r} already", remedy="--replace gives it a new value; containers keep the old one"
        )
    if row is None and len(session.exec(select(Secret.id)).all()) >= _MOST_KEPT:
        raise errors.Refused(f"there are {_MOST_KEPT:,} secrets", remedy="`fleet secret rm` removes what nobody needs")
    row = row or Secret(id=name, sealed="", key="", size=0, version=0, created_at=clock.now(), created_by=by)
    row.sealed, row.key = _sealed(value, ring), ring.newest.public
    row.size, row.version, row.created_at, row.created_by = len(value), row.version + 1, clock.now(), by
    if selectors is not None:
        row.selectors = labeling.check(selectors)
    if principals is not None:
        row.principals = [names.principal(each) for each in principals]
    session.add(row)
    data = {"secret": name, "version": row.version, "selectors": row.selectors, "principals": row.principals}
    audit.record(session, event="secret.kept", actor=names.principal_sender(by), data=data)
    return row


def everything(session: Session) -> list[Secret]:
    """Return all secrets by name; their values are sealed."""
    return list(session.exec(select(Secret).order_by(col(Secret.id))).all())


def remove(session: Session, name: str, *, by: str) -> None:
    """Forget a secret; containers that have it keep it. Raises `errors.NotFound` with the nearest name."""
    row = session.get(Secret, name)
    if row is None:
        known = [each.id for each in everything(session)]
        raise errors.NotFound(
            f"no secret named {name!r}",
            remedy=errors.did_you_mean(name, known) or "`fleet secret list` shows those there are",
        )
    session.delete(row)
    audit.record(session, event="secret.removed", actor=names.principal_sender(by), data={"secret": name})


def seal_anew(session: Session, ring: Keyring) -> int:
    """Seal to the newest key of the fleet what a former one still opens; return how many."""
    db.take(session, db.Lock.TRUST)  # or a value that is replaced meanwhile would come back
    former = session.exec(select(Secret).where(Secret.key != ring.newest.public)).all()
    for row in former:
        row.sealed, row.key = _sealed(_value(row, ring), ring), ring.newest.public
        session.add(row)
    return len(former)


def issue(session: Session, host_id: str, run_id: str, wanted: SecretsWanted, *, ring: Keyring) -> SecretsIssued | None:
    """Return what a host is to be told that wants the secrets of a run; on record either way.

    None for a run that is not on record yet: its principal's word of it may be under way.
    """
    run = session.get(Run, run_id)
    if run is None:
        return None
    try:
        if runs.is_final(run.state):  # or a host could ask for ever, and hear of values that came later
            raise _Refused("not_permitted", "the run is over")
        asked = _asked(session, host_id, run_id, wanted)
        sealed = sealing.seal(pack({name: _value(row, ring) for name, row in asked.items()}), wanted.seal_to)
    except _Refused as refusal:
        answer = SecretsIssued(run=run_id, seal_to=wanted.seal_to, refused=refusal.reason, detail=refusal.detail)
    except ValueError:
        answer = SecretsIssued(run=run_id, seal_to=wanted.seal_to, refused="not_trusted", detail="no key to seal to")
    else:
        versions = {name: row.version for name, row in asked.items()}
        told = {"secrets": versions}
        audit.record(session, event="secrets.issued", actor="control", host_id=host_id, run_id=run_id, data=told)
        return SecretsIssued(run=run_id, seal_to=wanted.seal_to, sealed=sealed)
    data = {"reason": answer.refused, "detail": answer.detail}
    audit.record(session, event="secrets.refused", actor="control", host_id=host_id, run_id=run_id, data=data)
    return answer


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def _asked(session: Session, host_id: str, run_id: str, wanted: SecretsWanted) -> dict[str, Secret]:
    """Return the secrets that the message names, if it is that run's and everybody in it may."""
    host = session.get(Host, host_id)
    if host is None or host.membership != Membership.ACCEPTED:
        raise _Refused("not_permitted", "the host is not enrolled")
    principal, arguments = _signed(session, host, run_id, wanted)
    may = principal.level.may(Risk.EXECUTES) or _is_approved(
        run_id, wanted, principal, host=host, trust=keyring.believed(session)
    )
    if not may or not labeling.matches(host.labels, principal.selectors):
        raise _Refused("not_permitted", f"principal {principal.name} may not make containers there")
    found: dict[str, Secret] = {}
    for name in _named(arguments):
        row = session.get(Secret, name)
        if row is None:
            raise _Refused("unknown_secret", f"there is no secret {name!r}")
        if not labeling.matches(host.labels, row.selectors):
            raise _Refused("not_permitted", f"secret {name!r} is not for this host")
        if row.principals and principal.name not in row.principals:
            raise _Refused("not_permitted", f"secret {name!r} is not for principal {principal.name}")
        found[name] = row
    return found


def _signed(
    session: Session, host: Host, run_id: str, wanted: SecretsWanted
) -> tuple[PrincipalIdentity, Mapping[str, Any]]:
    """Return who signed the message that the host shows, and its arguments."""
    trust = keyring.believed(session)
    try:
        message = canonical.read(wanted.message)
        headers, body = message["headers"], message["body"]
        form = (message.get("content-type"), message.get("content-encoding"))
        principal = signing.check_message(headers, body, form=form, trust=trust)
        envelope = Envelope.model_validate(headers[HEADER])
        if (headers.get("id"), headers.get("task"), envelope.host) != (run_id, containers.CREATE.name, host.id):
            raise _Refused("not_trusted", "the message does not make that run's container on this host")
        if envelope.host_key not in host.keys:
            raise _Refused("not_trusted", "it was pushed to another key of this host; push it again")
        if principal.name != envelope.submitted_by:
            raise _Refused("not_trusted", "the message is pushed in another's name")
        _args, arguments, _embed = canonical.read(body)
    except errors.NotTrusted as exc:
        raise _Refused("not_trusted", exc.message) from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as exc:
        raise _Refused("not_trusted", "what the host shows is no message") from exc
    if objection := trust.objection(principal, now=clock.now().timestamp()):
        raise _Refused("not_permitted", f"the credential of principal {principal.name} is {objection}")
    return principal, arguments


def _is_approved(run_id: str, wanted: SecretsWanted, requester: PrincipalIdentity, *, host: Host, trust: Trust) -> bool:
    """Say whether the host shows somebody else's word that this very message may be carried out."""
    if not wanted.approval:
        return False
    try:
        said, approver = signing.check_control(wanted.approval, host.keys, trust=trust)
        word = ApproveRun.model_validate_json(said)
    except (errors.NotTrusted, ValidationError):
        return False
    return (
        approver is not None
        and approver.name == word.by
        and approver.name != requester.name
        and approver.key != requester.key
        and trust.objection(approver, now=clock.now().timestamp()) != "revoked"
        and Risk.EXECUTES in approver.approves
        and labeling.matches(host.labels, approver.selectors)
        and (word.run, word.digest) == (run_id, approvals.digest(wanted.message))
    )


def _named(arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of the secrets that a container's specification asks for."""
    spec = arguments.get("spec")
    listed = spec.get("secrets") if isinstance(spec, Mapping) else None
    try:
        refs = [SecretRef.model_validate(each) for each in listed or ()]
    except (ValidationError, TypeError) as exc:
        raise _Refused("not_trusted", "the message does not name secrets as a container's specification does") from exc
    if not 0 < len(refs) <= MOST:
        raise _Refused("not_trusted", f"the message names {len(refs)} secrets; 1 to {MOST} can be had")
    return list(dict.fromkeys(ref.name for ref in refs))


def _sealed(value: bytes, ring: Keyring) -> str:
    return sealing.seal(value, ring.vault(ring.newest.public).public)


def _value(row: Secret, ring: Keyring) -> bytes:
    return ring.vault(row.key).open(row.sealed)
