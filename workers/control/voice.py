"""The voice: what the control plane says to hosts and to callers, signed by the fleet's key.

A word is for the key of the host as it is on record, so a host that has been put out, or another machine of its name,
hears nothing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import db, errors, inventory, keyring, logs, members, names, vault
from fleet.contracts.control import ControlMessage
from fleet.contracts.secrets import SecretsWanted
from fleet.keyring import Keyring, Keyrings
from fleet.security import signing
from fleet.security.trust import Trust

log = logs.get(__name__)


class Voice:
    """Signs with a key that counts at that moment: who has heard that one is retired believes it no more.

    Thread-safe.
    """

    def __init__(self, engine: Engine, keyrings: Keyrings) -> None:
        self._engine = engine
        self._keyrings = keyrings

    def words(self, wanted: Iterable[tuple[str, ControlMessage]]) -> list[tuple[str, str]]:
        """Return (key of the control list, item) for each (host, message) of hosts that are members."""
        said = list(wanted)
        if not said:
            return []
        with db.session(self._engine, write=False) as session:
            keys = inventory.accepted(session, {host for host, _message in said})
            ring = self._ring(session)
        # of two keys the host has the former for certain
        return [(names.control(host), ring.word(keys[host][0], message)) for host, message in said if keys.get(host)]

    def announce(self, host: str, client: "redis.Redis") -> None:
        """Bring a host's new key, password or labels to the broker, to callers and to the host itself.

        Without all of the fleet's keys nobody can: the host stays unannounced, until the file has them (`Trusting`).
        """
        with db.session(self._engine) as session:
            try:
                ring = self._keyrings.current(session)
            except errors.LocalFault as exc:
                log.warning("host.unannounced", host=host, error=str(exc), next="it is done when the key is there")
                return
            members.announce_host(session, client, ring, host)

    def issue(self, host: str, run: str, wanted: SecretsWanted, client: "redis.Redis") -> bool:
        """Tell a host the secrets of a run, sealed to it, or why it does not get them; return whether it was told."""
        with db.session(self._engine) as session:
            ring = self._ring(session)
            answer = vault.issue(session, host, run, wanted, ring=ring)
            if answer is not None:
                members.tell(session, client, ring, {host: answer})
        return answer is not None

    def results(self, metas: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return results as they lie under their keys, in the place of a host that says nothing."""
        with db.session(self._engine, write=False) as session:
            ring = self._ring(session)
        return [ring.result(dict(meta)) for meta in metas]

    def believed(self, items: Sequence[str]) -> list[bool]:
        """Say of each message whether hosts believe who signed it; the key that vouched for that may be retired."""
        if not items:
            return []
        with db.session(self._engine, write=False) as session:
            trust = keyring.believed(session)
        return [_is_believed(item, trust) for item in items]

    def _ring(self, session: Session) -> Keyring:
        try:
            return self._keyrings.current(session)
        except errors.LocalFault:  # a key that is not on this machine; those that are may count still
            return self._keyrings.ring


def _is_believed(item: str, trust: Trust) -> bool:
    try:
        message = json.loads(item)
        form = (message["content-type"], message["content-encoding"])
        signing.check_message(message["headers"], message["body"], form=form, trust=trust)
    except (errors.NotTrusted, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return True
