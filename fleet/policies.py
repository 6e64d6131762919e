"""Policies: the fleet's policy as the control plane keeps it, one version after the other, and states it.

The newest version counts. It reaches hosts as a statement that all keys of the fleet sign (`fleet.policy.statement`).
"""

import hashlib

from sqlmodel import Session, col, select

from fleet import audit, clock, db, names, policy
from fleet.keyring import Keyring
from fleet.models import PolicyVersion


def set_policy(session: Session, text: str, *, by: str) -> PolicyVersion:
    """Let a policy count from now on, and return its version; the one that counts already stays the version it is.

    Raises `errors.SettingsInvalid` for a text that is no policy. Hosts hear of it by `members.announce_policy`.
    """
    policy.parse(text)
    db.take(session, db.Lock.TRUST)
    newest = current(session)
    if newest is not None and newest.text == text:
        return newest
    made = PolicyVersion(number=newest.number + 1 if newest else 1, text=text, set_at=clock.now(), set_by=by)
    session.add(made)
    audit.record(
        session,
        event="policy.set",
        actor=names.principal_sender(by),
        data={"version": made.number, "digest": digest(text)},
    )
    return made


def current(session: Session) -> PolicyVersion | None:
    """Return the version that counts; None where none was ever set, and every governed request is denied."""
    return session.exec(select(PolicyVersion).order_by(col(PolicyVersion.number).desc()).limit(1)).one_or_none()


def digest(text: str) -> str:
    """Return the SHA-256 of a policy's text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def signed(session: Session, ring: Keyring) -> str | None:
    """Return the fleet's present word about its policy, signed by all keys; None where there is no policy."""
    newest = current(session)
    return policy.state(newest.text, newest.number, ring.keys) if newest else None
