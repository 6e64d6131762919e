"""Values for tests: keys and credentials, reports as hosts and principals write them, containers, facts.

The key of each host and principal follows from its name, so that a test can sign for whom it wants.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlmodel import Session

from fleet import credentials, enrollment, inventory, names
from fleet.contracts.containers import Container
from fleet.contracts.credentials import HostCredential, PrincipalCredential
from fleet.contracts.hosts import Facts
from fleet.contracts.reports import Kind, Queued, Report
from fleet.keyring import Keyring, Keyrings
from fleet.models import FleetKey, Host, Principal
from fleet.security import signing
from fleet.security.identity import HostIdentity, Level, PrincipalIdentity
from fleet.security.keys import KeyPair
from fleet.security.trust import Statement, Trust, state
from workers.control.voice import Voice
from workers.host.own import Own

#: When hosts were let in, in unix seconds.
ENROLLED_AT = 1_700_000_000.0


def key(name: str) -> KeyPair:
    """Return the key of a sender (`names.host_sender`, `names.principal_sender`), or of "fleet"."""
    return KeyPair(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def ring() -> Keyring:
    return Keyring([key("fleet")])


def statement(*keys: str, version: int = 1, **principals: int) -> str:
    """Return the fleet's word about itself, signed by all these keys; `principals` say whose credentials count."""
    pairs = [key(name) for name in keys or ("fleet",)]
    told = Statement(version=version, keys=tuple(pair.public for pair in pairs), principals=principals)
    return state(told, {pair: Keyring([pair]).opener(pair.public).public for pair in pairs})


def credential(host: str, *, fleet: str = "fleet", **more: Any) -> HostCredential:
    """Return what a host keeps after enrollment; `more` are fields of its identity."""
    who = identity(host, **more)
    return HostCredential(
        host=host,
        broker_url=SecretStr(f"redis://h-{host}:secret@127.0.0.1:6379/0"),
        private_key=key(host).secret(),
        credential=Keyring([key(fleet)]).issue(who),
        trust=statement(fleet),
        labels=dict(who.labels),
        enrolled_at=datetime.fromtimestamp(who.enrolled_at, UTC),
    )


def principal_credential(name: str, *, broker_url: str) -> PrincipalCredential:
    """Return what a principal pushes by."""
    return PrincipalCredential(
        name=name,
        broker_url=SecretStr(broker_url),
        private_key=key(names.principal_sender(name)).secret(),
        credential=ring().issue(principal(name)),
        trust=statement(),
    )


def own(path: Path, host: str, **more: Any) -> Own:
    """Return what a host's parts know of it, with its credential in that file."""
    held = credential(host, **more)
    credentials.save(path, held)
    return Own(path, held)


def found(session: Session, name: str = "fleet", *, number: int = 1) -> None:
    """Put a key of the fleet on record, that of these tests as the first one."""
    session.add(FleetKey(number=number, public=key(name).public, created_at=datetime(2025, 1, 1, tzinfo=UTC)))
    session.flush()


class HeldKeyrings(Keyrings):
    """The keyring of these tests, which nobody changes."""

    def __init__(self) -> None:
        self._ring = ring()

    def refresh(self) -> Keyring:
        return self._ring

    def current(self, session: Session) -> Keyring:
        return self._ring


class CredulousVoice(Voice):
    """One that believes what nobody has signed: most tests' messages are none."""

    def believed(self, items: Sequence[str]) -> list[bool]:
        return [True] * len(items)


def voice(engine: Engine) -> Voice:
    return CredulousVoice(engine, HeldKeyrings())


def enroll(session: Session, host: str, **more: Any) -> Host:
    """Let a host in, with its credential, long before anything was pushed to it."""
    wishes = {"at": datetime.fromtimestamp(ENROLLED_AT, UTC), **more}
    found = inventory.enroll_host(session, host, key=key(host).public, **wishes)
    enrollment.identify(found, ring())
    session.flush()
    return found


def identity(host: str, **more: Any) -> HostIdentity:
    """Return a host as its credential says who it is."""
    values: dict[str, Any] = {"key": key(host).public, "enrolled_at": ENROLLED_AT, "issued_at": ENROLLED_AT}
    return HostIdentity(host=host, **{**values, **more})


def principal(name: str, **more: Any) -> PrincipalIdentity:
    """Return a principal as its credential says who it is: autonomous, for a hundred years."""
    values: dict[str, Any] = {
        "key": key(names.principal_sender(name)).public,
        "level": Level.AUTONOMOUS,
        "serial": 1,
        "issued_at": datetime(2025, 1, 1, tzinfo=UTC).timestamp(),
        "expires_at": datetime(2125, 1, 1, tzinfo=UTC).timestamp(),
    }
    return PrincipalIdentity(name=name, **{**values, **more})


def introduce(session: Session, *principals: str) -> None:
    """Put autonomous principals on record."""
    for name in principals:
        who = principal(name)
        session.add(
            Principal(
                id=name,
                level=who.level.value,
                keys=[who.key],
                credential=ring().issue(who),
                expires_at=datetime.fromtimestamp(who.expires_at, UTC),
                created_at=datetime.fromtimestamp(who.issued_at, UTC),
                created_by="alice",
            )
        )
    session.flush()


def entry(host: str, *, availability: str = "active", **more: Any) -> str:
    """Return a host's entry of the registry; `more` are fields of its identity."""
    return json.dumps({"credential": ring().issue(identity(host, **more)), "availability": availability})


def labels(client: "redis.Redis", host: str) -> dict[str, str]:
    """Return the labels that the registry has of a host."""
    found: Any = client.hget(names.HOSTS, host)
    return dict(Trust.in_keys([key("fleet").public]).host(json.loads(found)["credential"]).labels)


def report(
    sender: str, kind: Kind, *, epoch: int = 1, seq: int = 1, at: float = 1_750_000_000.5, **more: Any
) -> Report:
    return Report(sender=sender, kind=kind, epoch=epoch, seq=seq, at=at, **more)


def queued(run: str, *, by: str = "alice", **more: Any) -> Report:
    """Return a principal's report of a push."""
    data = {
        "host": names.host_of_run(run),
        "task": "fleet.containers.restart",
        "arguments": {"container": "web"},
        "description": "new certificate",
        "submitted_by": by,
        "submitted_at": 1_750_000_000.25,
        "message": json.dumps({"body": run}),
        **more,
    }
    return Report(
        sender=names.principal_sender(by),
        kind=Kind.RUN_QUEUED,
        run=run,
        at=1_750_000_000.25,
        data=Queued.model_validate(data).model_dump(mode="json"),
    )


def life(run: str, *, first_seq: int = 1, epoch: int = 1) -> list[Report]:
    """Return what a host reports of a run that goes well."""
    host = names.host_of_run(run)
    steps: list[tuple[Kind, int | None, dict[str, Any]]] = [
        (Kind.RUN_ACCEPTED, None, {}),
        (Kind.RUN_STARTED, 1, {}),
        (Kind.RUN_PROGRESSED, 1, {"step": "stopping", "percent": 50.0}),
        (Kind.RUN_SUCCEEDED, 1, {"reply": {"container": "web"}, "duration_seconds": 0.25}),
    ]
    return [
        report(
            host,
            kind,
            run=run,
            attempt=attempt,
            data=data,
            epoch=epoch,
            seq=first_seq + index,
            at=1_750_000_001.0 + index,
        )
        for index, (kind, attempt, data) in enumerate(steps)
    ]


def push(client: "redis.Redis", *reports: Report) -> None:
    """Send reports as their senders do, each to the head of its sender's list, with a mark."""
    for each in reports:
        send_raw(client, each.sender, signed(each))


def signed(*reports: Report) -> str:
    """Return reports of one sender as one item of its list."""
    return sign(reports[0].sender, *(report.model_dump_json() for report in reports))


def sign(sender: str, *reports: str) -> str:
    """Return texts as one item of the sender's list, signed by its key, whatever they say."""
    return signing.sign_reports(sender, reports, key(sender))


def heard(client: "redis.Redis", host: str, kind: str | None = None) -> list[dict[str, Any]]:
    """Return what lies in a host's control list, oldest first, having made sure that the fleet says it to this host."""
    items: Any = client.lrange(names.control(host), 0, -1)
    trusted = Trust.in_keys([key("fleet").public])
    found = []
    for item in reversed(items):
        text, principal = signing.check_control(item, [key(host).public], trust=trusted)
        assert principal is None
        found.append(json.loads(text))
    return [word for word in found if kind in (None, word["kind"])]


def send_raw(client: "redis.Redis", sender: str, item: str | bytes) -> None:
    client.lpush(names.reports(sender), item)
    client.sadd(names.REPORTS_DIRTY, sender)


def container(name: str, **more: Any) -> Container:
    values: dict[str, Any] = {
        "docker_id": name.encode().hex().ljust(64, "0")[:64],
        "name": name,
        "image": "busybox:latest",
        "state": "running",
        "status": "Up 3 minutes",
        "labels": {"tier": "edge"},
        "ports": [{"container_port": 80, "host_ip": "0.0.0.0", "host_port": 8080}],
        "created": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "started": datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
        **more,
    }
    return Container.model_validate(values)


def facts(**more: Any) -> Facts:
    values: dict[str, Any] = {
        "hostname": "edge-1.example",
        "address": "edge-1.example",
        "port": 8000,
        "fleet_version": "0.1.0",
        "python_version": "3.11.2",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.1.0",
        "architecture": "x86_64",
        "cpus": 4,
        "memory_bytes": 8 * 2**30,
        "docker_version": "29.1",
        **more,
    }
    return Facts.model_validate(values)


class HeldLease:
    """A lease that was put into the broker by hand; `held` follows the key, as the real one's does."""

    def __init__(self, client: "redis.Redis", token: str = "control-1") -> None:
        self.client = client
        self.token = token
        client.set(names.CONTROL_LEASE, token)

    def held(self) -> bool:
        return bool(self.client.get(names.CONTROL_LEASE) == self.token)


def deadline(seconds: float) -> float:
    return time.monotonic() + seconds
