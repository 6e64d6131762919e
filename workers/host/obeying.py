"""Obeying: what a session does about what the fleet says to it.

Words on the control list are acted upon one by one, in their order (`workers.host.control` has checked who says them);
what the fleet says of itself lies at a key, too, and is read there before anything begins. Each may come again without
harm. Answers of approvers are `workers.host.parking`'s.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import redis

from fleet import errors, logs
from fleet.contracts.control import CancelRun, CredentialIssued, KeyRotationRequested, SetAvailability
from fleet.contracts.reports import Kind
from workers.host.availability import Gate
from workers.host.containers.asking import Secrets
from workers.host.control import Handler
from workers.host.dismissal import Dismissal
from workers.host.governance import Governance
from workers.host.outbox import Outbox
from workers.host.own import Own
from workers.host.running import EndRequest, Running, Why
from workers.host.unbegun import Unbegun

log = logs.get(__name__)


class Syncs(Protocol):
    """Tells the fleet of this host's containers (`workers.host.containers.inventory`)."""

    def sync_now(self) -> None: ...


class Obeying:
    """Acts upon the words of the control list."""

    def __init__(
        self,
        *,
        own: Own,
        unbegun: Unbegun,
        outbox: Outbox,
        running: Running,
        gate: Gate,
        inventory: Syncs,
        secrets: Secrets,
        governance: Governance,
        dismissal: Dismissal,
        on_availability: Callable[[], None],
    ) -> None:
        """`on_availability` is called when it was said whether this host takes work."""
        self._own = own
        self._unbegun = unbegun
        self._outbox = outbox
        self._running = running
        self._gate = gate
        self._on_availability = on_availability
        #: by the `kind` of the word
        self.handlers: Mapping[str, Handler] = {
            "reports.acknowledged": lambda m: outbox.acknowledge(m.epoch, m.seq),
            "reports.missing": lambda _m: outbox.send_again(),
            "inventory.requested": lambda _m: inventory.sync_now(),
            "run.cancel": self.cancel,
            "host.availability": self.set_availability,
            "trust.updated": lambda m: own.learn_trust(m.statement),
            "credential.issued": self.take_credential,
            "key.rotation_requested": self.offer_key,
            "membership.revoked": dismissal.leave_fleet,
            "secrets.issued": secrets.answer,
            "policy.updated": lambda m: governance.learn(m.statement),
        }

    def cancel(self, message: CancelRun) -> None:
        if self._unbegun.cancel(message):
            self._running.end(message.run, EndRequest(Why.CANCELLED, message))

    def set_availability(self, message: SetAvailability) -> None:
        self._gate.set(message)
        self._on_availability()

    def take_credential(self, message: CredentialIssued) -> None:
        if self._own.learn_credential(message.credential):
            self._outbox.report(Kind.HOST_CREDENTIAL_TAKEN, {"key": self._own.identity.key})

    def offer_key(self, _message: KeyRotationRequested) -> None:
        key, broker_hash = self._own.offer()
        self._outbox.report(Kind.HOST_KEY_OFFERED, {"key": key, "broker_hash": broker_hash})


def learn(client: "redis.Redis", key: str, believe: Callable[[str], object]) -> None:
    """Believe what the fleet has said of itself meanwhile; what cannot be believed changes nothing.

    Raises redis-py's errors.
    """
    try:
        statement: Any = client.get(key)
        if statement:
            believe(statement)
    except (errors.NotTrusted, errors.SettingsInvalid, errors.LocalFault, UnicodeDecodeError) as exc:
        log.warning("trust.unlearned", key=key, error=str(exc), next="what was known before counts")
