"""What this host is by the fleet's word, and by which keys: its credential as it lies on disk and as it changes.

The private key never leaves this machine. Whatever the fleet says later (new labels, a new key of its own, whose
credentials count no more) is checked, kept on disk, and goes for the next session as well.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import redis

from fleet import credentials, errors, logs
from fleet.broker import login
from fleet.contracts.credentials import HostCredential
from fleet.security import signing
from fleet.security.identity import HostIdentity, PrincipalIdentity
from fleet.security.keys import KeyPair
from fleet.security.trust import SignedStatement, Statement, Trust

log = logs.get(__name__)

#: Key of the journal file's memory: under which public key the host was put out of the fleet.
REVOKED = "revoked"
#: Messages signed for a former key may be on their way for a month, and a key is rarely changed more often.
_MOST_FORMER_KEYS = 8


class Login(redis.CredentialProvider):
    """User and password at the broker as they are at the moment: a rotation changes them under way."""

    def __init__(self, own: "Own") -> None:
        self._own = own

    def get_credentials(self) -> tuple[str, str]:
        parts = urlsplit(self._own.broker_url)
        return unquote(parts.username or ""), unquote(parts.password or "")


class Own:
    """A host's own keys and credential. Thread-safe."""

    def __init__(self, path: Path, held: HostCredential) -> None:
        """Raise `errors.CredentialUnusable` where the parts of a credential do not belong together."""
        self._path = path
        self._held = held
        self._lock = threading.RLock()
        self.login = Login(self)
        self._key = KeyPair.read(held.private_key.get_secret_value())
        self.trust = Trust(Statement.model_validate_json(SignedStatement.model_validate_json(held.trust).text))
        try:
            self.identity: HostIdentity = self.trust.host(held.credential)
        except errors.NotTrusted as exc:
            raise errors.CredentialUnusable(
                f"credential {path}: {exc.message}", remedy="enroll again with --force"
            ) from exc
        if (self.identity.host, self.identity.key) != (held.host, self._key.public):
            raise errors.CredentialUnusable(
                f"credential {path}: its key is not the one of its credential", remedy="enroll again with --force"
            )

    @property
    def host(self) -> str:
        return self._held.host

    @property
    def broker_url(self) -> str:
        return self._held.broker_url.get_secret_value()

    @property
    def keys(self) -> tuple[str, ...]:
        """The public keys under which this machine is known, was, or is about to be."""
        offered = self._held.offered_key
        coming = (KeyPair.read(offered.get_secret_value()).public,) if offered else ()
        return (self._key.public, *coming, *self._held.former_keys)

    def secrets(self) -> tuple[bytes, ...]:
        """Return what nobody else may know: private keys and passwords at the broker, those to come as well."""
        with self._lock:
            held = self._held
            keys = [key.get_secret_value() for key in (held.private_key, held.offered_key) if key]
            passwords = [held.offered_password.get_secret_value()] if held.offered_password else []
            passwords += [urlsplit(self.broker_url).password or "", self.login.get_credentials()[1]]
        return tuple({text.encode() for text in (*keys, *passwords) if text})

    def sign_reports(self, reports: tuple[str, ...]) -> str:
        """Return reports as one item of the host's list."""
        return signing.sign_reports(self.host, reports, self._key)

    def sign_result(self, meta: Mapping[str, Any]) -> str:
        """Return a result as it lies under its key."""
        with self._lock:
            return signing.sign_result(meta, self._key, self._held.credential)

    def sign_output(self, run_id: str, entry: str) -> dict[str, str]:
        """Return an entry of what a run says, as it lies in its stream."""
        with self._lock:
            return signing.sign_output(run_id, entry, self._key, self._held.credential)

    def read_word(self, item: str | bytes) -> tuple[str, PrincipalIdentity | None]:
        """Return a control message that is for this host, and who says it; raise `errors.NotTrusted`."""
        return signing.check_control(item, self.keys, trust=self.trust)

    def learn_trust(self, statement: str) -> None:
        """Believe the fleet's newer word about itself; raise `errors.NotTrusted`, `errors.LocalFault`."""
        with self._lock:
            if Trust(self.trust.statement()).learn(statement):
                self._keep(trust=statement)  # first: what is only in memory would be forgotten, and not told again
                self.trust.learn(statement)
                log.info("trust.learned", version=self.trust.version, keys=len(self.trust.keys))

    def learn_credential(self, credential: str) -> bool:
        """Take a credential for this very host; return whether it goes by that one now.

        One for a key that was offered (`offer`) makes that the host's key. Raises `errors.NotTrusted`.
        """
        with self._lock:
            if credential == self._held.credential:
                return True
            found = self.trust.host(credential)
            offered = self._held.offered_key and KeyPair.read(self._held.offered_key.get_secret_value())
            if found.host != self.host or found.enrolled_at != self.identity.enrolled_at:
                raise errors.NotTrusted(f"a credential of host {found.host!r}, or of an earlier one of that name")
            if found.issued_at < self.identity.issued_at:
                return False
            if offered and found.key == offered.public:
                self._change_key(offered, credential)
            elif found.key == self._key.public:
                self._keep(credential=credential, labels=dict(found.labels))
            else:
                raise errors.NotTrusted("a credential for a key that is not here")
            self.identity = found
            return True

    def offer(self) -> tuple[str, str]:
        """Make the next key and the next password of the broker user, on disk, and return what is told of them.

        That is the public key, and the hash of the password. Asked again before they count, they are the same.
        """
        with self._lock:
            if self._held.offered_key is None or self._held.offered_password is None:
                key, password = KeyPair.generate(), login.new_password()
                self._keep(offered_key=key.secret(), offered_password=password)
            assert self._held.offered_key is not None
            assert self._held.offered_password is not None
            key = KeyPair.read(self._held.offered_key.get_secret_value())
            return key.public, login.hashed(self._held.offered_password.get_secret_value())

    def _change_key(self, key: KeyPair, credential: str) -> None:
        assert self._held.offered_password is not None
        password = self._held.offered_password.get_secret_value()
        self._keep(
            private_key=key.secret(),
            credential=credential,
            broker_url=login.at(self.broker_url, login.host_user(self.host), password),
            former_keys=(self._key.public, *self._held.former_keys)[:_MOST_FORMER_KEYS],
            offered_key=None,
            offered_password=None,
        )
        self._key = key
        log.info("key.changed", key=key.public)

    def _keep(self, **changes: Any) -> None:
        held = HostCredential.model_validate({**self._held.model_dump(), **changes})
        credentials.save(self._path, held)
        self._held = held
