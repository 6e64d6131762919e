"""Ruling: the fleet's policy as this host has it, signed, in the newest version that it has heard of.

It lies in the host's state directory and counts without the control plane. An older version never replaces a newer one,
whoever brings it; a host that has none denies whatever the policy would have to list.
"""

import threading
from pathlib import Path

from fleet import credentials, errors, logs, policy
from fleet.policy import FleetPolicy
from workers.host.own import Own

log = logs.get(__name__)


class Ruling:
    """The policy that counts. Thread-safe: it is replaced as a whole."""

    def __init__(self, path: Path, own: Own) -> None:
        """Believe what lies at `path`, as far as a key of the fleet has signed it."""
        self._path = path
        self._own = own
        self._lock = threading.Lock()
        self._stated: policy.Stated | None = None
        self._signed = ""
        try:
            signed = credentials.read_private(path, what="policy")
            self._stated, self._signed = policy.read(signed, own.trust.keys), signed
        except FileNotFoundError:
            pass
        except (errors.CredentialUnusable, errors.NotTrusted, errors.SettingsInvalid) as exc:
            log.warning("policy.unread", path=str(path), error=str(exc), next="nothing is granted until a newer comes")

    @property
    def version(self) -> int:
        """The version; 0 where there is none."""
        return self._stated.version if self._stated else 0

    @property
    def policy(self) -> FleetPolicy | None:
        return self._stated.policy if self._stated else None

    def learn(self, signed: str) -> bool:
        """Go by a newer policy from now on; return whether this is one.

        The same version under newer keys of the fleet is kept, too: after a restart the former may count no more.
        Raises `errors.NotTrusted` where no key of the fleet has signed it, `errors.SettingsInvalid` where a newer Fleet
        wrote it and this one cannot read it, `errors.LocalFault` where it cannot be kept; the former counts on then.
        """
        with self._lock:
            told = policy.read(signed, self._own.trust.keys)
            if told.version < self.version or signed == self._signed:
                return False
            is_newer = told.version > self.version
            # first: after a restart an older one must not count again
            credentials.write_private(self._path, signed, what="policy", remedy="free some space; the former counts on")
            self._stated, self._signed = told, signed
        if is_newer:
            log.info("policy.taken", version=told.version)
        return is_newer
