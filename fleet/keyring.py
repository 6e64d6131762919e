"""The keyring: the fleet's signing keys, which the control plane alone holds, and what is signed by them.

The private keys lie in one file of mode 0600 (every machine of the control plane has a copy), the public ones in the
database as well. The first use makes the first key. Those before the newest are kept until they are retired, because
somebody may not have heard of the newest yet.
"""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from sqlmodel import Session, col, select

from fleet import audit, clock, credentials, db, errors, names
from fleet.contracts.control import ControlMessage
from fleet.models import FleetKey, Host, Membership, Principal
from fleet.security import identity, signing, trust
from fleet.security.identity import HostIdentity, PrincipalIdentity
from fleet.security.keys import KeyPair, decode
from fleet.security.sealing import Opener

#: What sealed texts are opened by follows from the signing key, see `sealing.Opener.of`: enrollment requests, and the
#: secrets of containers as they are kept.
_OPENS, _KEEPS = "fleet enrollment requests", "fleet secrets"


class _KeyFile(BaseModel):
    """The file: private keys, the newest last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[SecretStr, ...] = Field(min_length=1)


class Keyring:
    """The keys that are not retired, the newest last. Immutable."""

    def __init__(self, keys: Sequence[KeyPair]) -> None:
        self.keys = tuple(keys)
        self._openers = {key.public: Opener.of(key, purpose=_OPENS) for key in self.keys}
        self._vaults = {key.public: Opener.of(key, purpose=_KEEPS) for key in self.keys}

    @property
    def newest(self) -> KeyPair:
        """The key that signs credentials: they are for long."""
        return self.keys[-1]

    @property
    def oldest(self) -> KeyPair:
        """The key that signs what is said now: everybody believes it, also who has not heard of a newer one yet."""
        return self.keys[0]

    def issue(self, who: HostIdentity | PrincipalIdentity) -> str:
        """Return a credential."""
        return identity.issue(who, self.newest)

    def has_issued(self, credential: str) -> bool:
        """Say whether the newest key signed a credential of ours; others are issued anew before it is alone."""
        header = json.loads(decode(credential.partition(".")[0]))
        return bool(header["kid"] == self.newest.public)

    def word(self, host_key: str, message: ControlMessage) -> str:
        """Return a control message for the host with that public key, as an item of its control list."""
        return signing.sign_control(host_key, message.model_dump_json(), self.oldest)

    def result(self, meta: dict[str, Any]) -> str:
        """Return a result that the control plane writes in a host's place."""
        return signing.sign_result(meta, self.oldest, "")

    def opener(self, public: str) -> Opener:
        """Return what opens texts that were sealed for the holder of that key; raise ValueError for another."""
        try:
            return self._openers[public]
        except KeyError:
            raise ValueError("sealed for a key that is not held here") from None

    def vault(self, public: str) -> Opener:
        """Return what secrets are kept by under that key of the fleet; raise ValueError for another."""
        try:
            return self._vaults[public]
        except KeyError:
            raise ValueError("kept by a key that is not held here") from None


class Keyrings:
    """The keyring of a process that runs for long: read again when another process has changed the keys."""

    def __init__(self, path: Path, session: Callable[[], Any]) -> None:
        self._path = path
        self._session = session
        self._lock = threading.Lock()
        with session() as opened:
            self._ring = obtain(opened, path)

    @property
    def ring(self) -> Keyring:
        return self._ring

    def current(self, session: Session) -> Keyring:
        """Return the ring of now, as that transaction sees it; the file is read only where something has changed.

        Raises `errors.LocalFault` where the file lacks a key that the fleet goes by.
        """
        ring = self._ring  # another thread's transaction may see another one
        if [row.public for row in _known(session)] != [key.public for key in ring.keys]:
            self._ring = ring = obtain(session, self._path)
        return ring

    def refresh(self) -> Keyring:
        """Look whether keys were added or retired; return the ring of now."""
        with self._lock, self._session() as opened:
            self._ring = obtain(opened, self._path)
        return self._ring


def obtain(session: Session, path: Path) -> Keyring:
    """Return the keyring, with a first key made where the fleet has none.

    Raises `errors.LocalFault` where the file lacks a key that the fleet goes by, or cannot be used.
    """
    known = _known(session)
    if not known:
        db.take(session, db.Lock.TRUST)
        known = _known(session)
    if not known:
        return _begin(session, path)
    held = {key.public: key for key in _read(path)}
    lacking = [key.public for key in known if key.public not in held]
    if lacking:
        raise errors.LocalFault(
            f"signing keys {path}: the fleet's key {lacking[-1][:12]}… is not in it",
            remedy="copy the file from the machine where the control plane has run, or name it by FLEET_SIGNING_KEYS",
        )
    return Keyring([held[key.public] for key in known])


def rotate(session: Session, path: Path, *, by: str) -> Keyring:
    """Make the next key; it signs from now on, and those before it still count. Returns the ring of now."""
    db.take(session, db.Lock.TRUST)
    ring = _add(session, path, obtain(session, path).keys)
    audit.record(session, event="key.added", actor=names.principal_sender(by), data={"key": ring.newest.public})
    return ring


def retire(session: Session, path: Path, *, by: str) -> Keyring:
    """Let all keys but the newest count no more; returns the ring of now. `prune` takes them out of the file."""
    db.take(session, db.Lock.TRUST)
    ring = obtain(session, path)
    for row in _known(session)[:-1]:
        row.retired_at = clock.now()
        session.add(row)
        audit.record(session, event="key.retired", actor=names.principal_sender(by), data={"key": row.public})
    return Keyring([ring.newest])


def prune(session: Session, path: Path) -> None:
    """Take retired keys out of the file. Call it once that is committed: else a key that counts might be lost."""
    db.take(session, db.Lock.TRUST)
    retired = {row.public for row in everything(session) if row.retired_at is not None}
    held = _read(path)
    kept = [key for key in held if key.public not in retired]
    if len(kept) < len(held):
        _write(path, kept)


def statement(session: Session, ring: Keyring) -> str:
    """Return the fleet's present word about itself, signed by all keys: what `fleet:trust` holds and hosts are told.

    Raises `errors.LocalFault` where the ring is not of now: another word under the same version is never unlearned.
    """
    told = stated(session)
    if told.keys != tuple(key.public for key in ring.keys):
        raise errors.LocalFault("the fleet's signing keys have just been changed", remedy="try again")
    return trust.state(told, {key: ring.opener(key.public).public for key in ring.keys})


def stated(session: Session) -> trust.Statement:
    """Return what `statement` signs. Its version grows with everything that is in it: keys made and retired, and
    credentials that count no more."""
    keys = everything(session)
    least = {
        principal.id: principal.least_serial
        for principal in session.exec(select(Principal).where(Principal.least_serial > 1)).all()
    }
    changes = sum(1 if key.retired_at is None else 2 for key in keys) + sum(least.values())
    live = tuple(key.public for key in keys if key.retired_at is None)
    return trust.Statement(version=changes, keys=live, principals=least)


def believed(session: Session) -> trust.Trust:
    """Return what the control plane itself goes by: its own word, also where a key of it is on another machine."""
    return trust.Trust(stated(session))


def unheard(session: Session) -> list[str]:
    """Return the members that have not been seen since the newest key was made, and may not have heard of it."""
    made_at = max((key.created_at for key in _known(session)), default=None)
    if made_at is None:
        return []
    members = session.exec(select(Host).where(Host.membership == Membership.ACCEPTED)).all()
    return sorted(host.id for host in members if host.last_seen_at is None or host.last_seen_at < made_at)


def everything(session: Session) -> list[FleetKey]:
    """Return all keys there are and were, the oldest first."""
    return list(session.exec(select(FleetKey).order_by(col(FleetKey.number))).all())


def _known(session: Session) -> list[FleetKey]:
    query = select(FleetKey).where(col(FleetKey.retired_at).is_(None)).order_by(col(FleetKey.number))
    return list(session.exec(query).all())


def _begin(session: Session, path: Path) -> Keyring:
    """Put the first key on record: the newest that the file has, which an interrupted beginning or a lost database has
    left there, or a new one."""
    if not (held := _read(path)):
        return _add(session, path, [])
    session.add(FleetKey(number=1, public=held[-1].public, created_at=clock.now()))
    session.flush()
    return Keyring(held[-1:])


def _add(session: Session, path: Path, former: Sequence[KeyPair]) -> Keyring:
    key = KeyPair.generate()
    _write(path, [*former, key])  # before it is on record: a key that nobody holds would be the end of the fleet
    number = max((row.number for row in session.exec(select(FleetKey)).all()), default=0) + 1
    session.add(FleetKey(number=number, public=key.public, created_at=clock.now()))
    session.flush()
    return Keyring([*former, key])


def _read(path: Path) -> list[KeyPair]:
    try:
        text = credentials.read_private(path, what="signing keys")
    except FileNotFoundError:
        return []
    try:
        return [KeyPair.read(key.get_secret_value()) for key in _KeyFile.model_validate_json(text).keys]
    except (ValidationError, errors.InvalidValue) as exc:
        raise errors.LocalFault(
            f"signing keys {path}: not a file of keys", remedy="restore it from its backup"
        ) from exc


def _write(path: Path, keys: Sequence[KeyPair]) -> None:
    text = json.dumps({"keys": [key.secret().get_secret_value() for key in keys]})
    credentials.write_private(path, text, what="signing keys", remedy="mend that, or name another: FLEET_SIGNING_KEYS")
