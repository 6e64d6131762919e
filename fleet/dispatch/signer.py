"""The signer: what a principal signs with, and what it may push, by the fleet's newest word.

Whatever is known to be refused by the host is refused here already, where the caller sees it, and nothing is sent.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet import credentials, errors, logs
from fleet.contracts.control import ControlMessage
from fleet.contracts.credentials import PrincipalCredential
from fleet.security import signing
from fleet.security.identity import HostIdentity, PrincipalIdentity
from fleet.security.keys import KeyPair
from fleet.security.trust import SignedStatement, Statement, Trust

log = logs.get(__name__)


class Signer:
    """One principal's key and credential. Thread-safe."""

    def __init__(self, held: PrincipalCredential, path: Path | None = None) -> None:
        """Learn from the broker into that file, if there is one, see `learn`.

        Raises `errors.CredentialUnusable` for a credential whose parts do not belong together.
        """
        self._held, self._path = held, path
        where = f"principal's file {path}" if path else f"credential of principal {held.name!r}"
        self._key = KeyPair.read(held.private_key.get_secret_value())
        told = Statement.model_validate_json(SignedStatement.model_validate_json(held.trust).text)
        self.trust = Trust(told)
        self._lock = threading.Lock()
        #: the statement that was read last: the same one comes with every push
        self._heard = held.trust
        self._credential = held.credential
        remedy = _ROTATE.format(name=held.name)
        try:
            self._identity = self.trust.principal(held.credential)
        except errors.NotTrusted as exc:
            raise errors.CredentialUnusable(f"{where}: {exc.message}", remedy=remedy) from exc
        if self._identity.key != self._key.public or self._identity.name != held.name:
            raise errors.CredentialUnusable(f"{where}: its key is not the one it speaks of", remedy=remedy)

    @property
    def identity(self) -> PrincipalIdentity:
        return self._identity

    @property
    def name(self) -> str:
        return self._identity.name

    def learn(self, *, statement: str | None, credential: str | None) -> None:
        """Take in what the broker has of the fleet's newest word, and of this principal's newest credential.

        It goes into the principal's file as well: a key that is announced now may be the only one later.
        """
        with self._lock:
            known = self._held
            try:
                if statement and statement != self._heard:
                    if self.trust.learn(statement):
                        self._held = self._held.model_copy(update={"trust": statement})
                    self._heard = statement
                if credential and credential != self._credential:
                    found = self.trust.principal(credential)
                    if found.key == self._key.public and found.name == self.name and self._newer(found):
                        self._credential, self._identity = credential, found
                        self._held = self._held.model_copy(update={"credential": credential})
            except errors.NotTrusted as exc:
                log.warning("trust.unlearned", error=str(exc), next="what was known before counts")
            if self._held is not known:
                self._keep()

    def require_valid(self, *, now: float) -> None:
        """Raise `errors.CredentialUnusable` where no host would take this principal's word any more."""
        objection = self.trust.objection(self._identity, now=now)
        if objection:
            verb = "was" if objection == "revoked" else "has"
            raise errors.CredentialUnusable(
                f"the credential of principal {self.name!r} {verb} {objection}",
                remedy=f"nothing was sent; {_ROTATE.format(name=self.name)}",
            )

    def require_address(self, host: HostIdentity) -> None:
        """Raise `errors.NotPermitted` for a host that this principal may not push to."""
        if not self._identity.may_address(host):
            wanted = ",".join(f"{key}={value}" for key, value in self._identity.selectors.items())
            raise errors.NotPermitted(
                f"principal {self.name!r} may push to hosts with {wanted} only, and {host.host!r} is none of them",
                remedy="nothing was sent; ask whoever made the principal",
            )

    def sign_message(self, message: dict[str, Any]) -> None:
        """Sign a kombu message in place."""
        signing.sign_message(message, self._key, self._credential)

    def report(self, sender: str, report: str) -> str:
        """Return a report as an item of this principal's list."""
        return signing.sign_reports(sender, (report,), self._key)

    def word(self, host_key: str, message: ControlMessage) -> str:
        """Return a control message for the host with that public key."""
        return signing.sign_control(host_key, message.model_dump_json(), self._key, self._credential)

    def check_result(self, meta: Mapping[str, Any], run_id: str) -> None:
        """Raise `errors.NotTrusted` for what is not the result of that run by its host, or by the fleet."""
        signing.check_result(meta, run_id, trust=self.trust)

    def _keep(self) -> None:
        if self._path is None:
            return
        try:
            credentials.save_principal(self._path, self._held)
        except errors.LocalFault as exc:  # somebody else's file, or a read-only one: it is learned anew each time
            log.debug("trust.unkept", error=str(exc))

    def _newer(self, found: PrincipalIdentity) -> bool:
        return (found.serial, found.issued_at) >= (self._identity.serial, self._identity.issued_at)


_ROTATE = "`fleet principal rotate {name}` makes a new file, where the control plane runs"
