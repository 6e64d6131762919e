"""The voice: what the control plane says to hosts and to callers, signed by the fleet's key.

A word is for the key of the host as it is on record, so a host that has been put out, or another machine of its name,
hears nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import redis
from sqlalchemy import Engine

from fleet import db, inventory, members, names, vault
from fleet.contracts.control import ControlMessage
from fleet.contracts.secrets import SecretsWanted
from fleet.keyring import Keyrings


class Voice:
    """Signs with the newest key there is. Thread-safe."""

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
        ring = self._keyrings.ring
        # of two keys the host has the former for certain
        return [(names.control(host), ring.word(keys[host][0], message)) for host, message in said if keys.get(host)]

    def announce(self, host: str, client: "redis.Redis") -> None:
        """Bring a host's new key, password or labels to the broker, to callers and to the host itself."""
        with db.session(self._engine) as session:
            members.announce_host(session, client, self._keyrings.ring, host)

    def issue(self, host: str, run: str, wanted: SecretsWanted, client: "redis.Redis") -> bool:
        """Tell a host the secrets of a run, sealed to it, or why it does not get them; return whether it was told."""
        ring = self._keyrings.ring
        with db.session(self._engine) as session:
            answer = vault.issue(session, host, run, wanted, ring=ring)
            if answer is not None:
                members.tell(session, client, ring, {host: answer})
        return answer is not None

    def result(self, meta: Mapping[str, Any]) -> str:
        """Return a result as it lies under its key, in the place of a host that says nothing."""
        return self._keyrings.ring.result(dict(meta))
