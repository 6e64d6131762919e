"""Checks: what `fleet doctor` looks at, one function a subject.

Each takes the settings and returns findings; none raises for what is wrong, none changes anything, and none waits for
more than a few seconds. So all of them work when half of Fleet is down.
"""

import http.client
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fleet import clock, credentials, db, errors, names, presence, redaction
from fleet.broker import connection
from fleet.contracts.presence import Heartbeat
from fleet.settings import Settings

#: Expiry is decided by the broker's clock; beyond this, times in lists and logs begin to mislead people.
SKEW_WARN_SECONDS = 2.0
#: Below this, journals and an embedded broker may soon be unable to write.
FREE_BYTES = 200 * 2**20
#: A consumer loop that has not ticked for so long hangs; it ticks every second.
LOOP_AGE_SECONDS = 5.0
#: Time to replace the broker's certificate in.
CERTIFICATE_WARN_SECONDS = 21 * 86400
#: More than a host leaves unsent or unbegun in ordinary times.
MOST_REPORTS, MOST_WAITING = 1_000, 1_000
_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """What one check found. `ok`, `warn`: works, but; `fail`: does not. The remedy is what to do about it."""

    check: str
    level: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""


def state_directory(settings: Settings) -> list[Finding]:
    """Credentials and journals need a directory that can be written, with some room in it."""
    path = settings.state_dir
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as exc:
        remedy = "mend its permissions, or set FLEET_STATE_DIR to another directory"
        return [Finding("state directory", "fail", f"{path} cannot be written ({exc.strerror})", remedy)]
    text = f"{path}, {free / 2**30:.1f} GiB free"
    if free < FREE_BYTES:
        return [
            Finding("state directory", "warn", text, "make room: a host that cannot write its journal runs nothing")
        ]
    return [Finding("state directory", "ok", text)]


def host_credentials(settings: Settings) -> list[Finding]:
    """Each credential kept here must be usable."""
    paths = {path.parent.name: path for path in sorted(settings.state_dir.glob("hosts/*/credential.json"))}
    if settings.credential:
        paths = {settings.resolved_host_id: settings.credential}
    findings = []
    for host, path in paths.items():
        try:
            credential = credentials.load(path, host=host)
        except errors.CredentialUnusable as exc:
            findings.append(Finding("credential", "fail", exc.message, exc.remedy))
        else:
            findings.append(Finding("credential", "ok", f"of {credential.host}: {path}"))
    return findings


def broker(settings: Settings) -> list[Finding]:
    """The broker must be there, new enough, write to disk, and evict nothing. The rest is asked of it, too."""
    try:
        address = settings.require_broker()
        client = connection.connect(address, name="doctor")
    except errors.UsageError as exc:
        return [Finding("broker", "fail", exc.message, exc.remedy)]
    try:
        begun = time.monotonic()
        version = connection.check(client, address)
        took = time.monotonic() - begun
        found = [Finding("broker", "ok", f"{version} at {address}, answered in {took * 1000:.0f} ms")]
        for look in (_certificate, _durability, _clock, _control, _hosts):
            try:
                with connection.translated(address):
                    found.extend(look(client))
            except errors.BrokerUnavailable as exc:
                found.append(
                    Finding(look.__name__.strip("_"), "warn", f"cannot be looked at: {exc.message}", exc.remedy)
                )
    except errors.BrokerUnavailable as exc:
        found = [Finding("broker", "fail", exc.message, exc.remedy)]
    finally:
        client.close()
    return found


def _certificate(client: Any) -> list[Finding]:
    connection = client.connection_pool.get_connection()
    try:
        expires_at = getattr(connection, "expires_at", None)
    finally:
        client.connection_pool.release(connection)
    if expires_at is None:  # plaintext, on this machine
        return []
    text = f"the broker's is good until {datetime.fromtimestamp(expires_at, UTC).date()}"
    if expires_at - time.time() > CERTIFICATE_WARN_SECONDS:
        return [Finding("certificate", "ok", text)]
    return [Finding("certificate", "warn", text, "give the broker a new one in time: afterwards nobody connects")]


def _durability(client: Any) -> list[Finding]:
    info = {**client.info("persistence"), **client.info("memory")}
    found = []
    if info.get("aof_enabled"):
        found.append(Finding("append-only file", "ok", "on"))
    else:
        remedy = "set `appendonly yes` in the broker's configuration: without it a restart loses queued tasks"
        found.append(Finding("append-only file", "fail", "off", remedy))
    policy = str(info.get("maxmemory_policy"))
    if policy == "noeviction":
        found.append(Finding("eviction", "ok", "noeviction"))
    else:
        remedy = "set `maxmemory-policy noeviction`: otherwise a full broker drops queues in silence"
        found.append(Finding("eviction", "fail", policy, remedy))
    if info.get("aof_enabled") and info.get("aof_last_write_status", "ok") != "ok":
        found.append(Finding("append-only file", "fail", "the last write failed", "is the broker's disk full?"))
    return found


def _clock(client: Any) -> list[Finding]:
    """Of a few answers the soonest counts: what a busy machine adds is no fault of its clock."""
    measured, answers = clock.BrokerClock(), []
    for _ in range(3):
        asked_at = time.monotonic()
        measured.measure(client.time())
        answers.append((time.monotonic() - asked_at, measured.skew()))
    return [_skew("clock", "this machine's clock", min(answers)[1])]


def _skew(check: str, whose: str, seconds: float) -> Finding:
    text = f"{whose} is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} the broker's"
    if abs(seconds) < SKEW_WARN_SECONDS:
        return Finding(check, "ok", text)
    return Finding(check, "warn", text, "synchronise it (NTP); expiry goes by the broker's clock, times shown do not")


def _control(client: Any) -> list[Finding]:
    backlog = client.scard(names.REPORTS_DIRTY)
    if client.exists(names.CONTROL_LEASE):
        return [Finding("control plane", "ok", "a control worker holds the lease")]
    text = f"no control worker holds the lease; {backlog} senders have reports waiting"
    return [
        Finding("control plane", "fail", text, "start one with `fleet control` (or `fleet up`): nothing is recorded")
    ]


def _hosts(client: Any) -> list[Finding]:
    enrolled = sorted(client.hkeys(names.HOSTS))
    if not enrolled and not client.get(names.TRUST):
        empty = errors.BrokerEmpty()
        return [Finding("hosts", "fail", empty.message, empty.remedy)]
    if not enrolled:
        return [Finding("hosts", "warn", "none is enrolled", "`fleet token create`, then `fleet enroll` on the host")]
    beats = presence.read(client, enrolled)
    absent = [host for host in enrolled if beats[host] is None]
    text = f"{len(enrolled) - len(absent)} of {len(enrolled)} online"
    found = [Finding("hosts", "ok", text)]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        found = [
            Finding(
                "hosts",
                "warn",
                f"{text}; not connected: {shown}",
                "start `fleet worker` there; an unlisted host is never seen",
            )
        ]
    for host, beat in beats.items():
        if beat is None:
            continue
        if abs(beat.clock_skew_seconds) >= SKEW_WARN_SECONDS:
            found.append(_skew(f"host {host}", "its clock", beat.clock_skew_seconds))
        found.extend(_work(host, beat))
        if beat.docker_reachable is False:
            remedy = "is dockerd running there, and may the worker open its socket?"
            found.append(Finding(f"host {host}", "warn", "its Docker Engine does not answer", remedy))
    return found


def _work(host: str, beat: Heartbeat) -> list[Finding]:
    """What a host says of the work in its hands, where something is to be said."""
    check, found = f"host {host}", []
    if beat.availability != "active":
        text = f"it is {beat.availability.value} and takes no new work"
        found.append(Finding(check, "warn", text, f"`fleet host resume {host}` lets it work again"))
    if beat.dead_letters:
        text = f"{beat.dead_letters} dead letters: items that are no tasks, or were refused"
        remedy = f"`fleet audit list --host {host} --event message.refused` says why; somebody pushes past Fleet"
        found.append(Finding(check, "warn", text, remedy))
    if beat.outbox_length > MOST_REPORTS:
        text = f"{beat.outbox_length} reports wait to be sent"
        found.append(Finding(check, "warn", text, "is its link to the broker slow, or its disk full?"))
    if beat.loop_age_seconds is not None and beat.loop_age_seconds > LOOP_AGE_SECONDS:
        text = f"its worker has not looked at its queue for {beat.loop_age_seconds:.0f} s"
        found.append(Finding(check, "warn", text, "start the worker there again; its journal keeps what it has"))
    if beat.recovering:
        text = f"{beat.recovering} tasks are recovering from a crash of its worker"
        found.append(Finding(check, "warn", text, f"`fleet task list --host {host} --state recovering` shows them"))
    if beat.queue_length > MOST_WAITING:
        text = f"{beat.queue_length} tasks wait in its queue"
        found.append(Finding(check, "warn", text, "push less, or set FLEET_CONCURRENCY higher there"))
    return found


def database(settings: Settings) -> list[Finding]:
    """The control plane's database must answer and have the schema that this Fleet knows."""
    url = settings.resolved_database_url
    try:
        engine = db.open_engine(url, create=False)
        try:
            version = db.schema_version(engine)
        finally:
            engine.dispose()
    except errors.FleetError as exc:
        # A machine that is only a host, or only pushes, needs no database.
        level: Literal["warn", "fail"] = "fail" if settings.database_url else "warn"
        return [Finding("database", level, exc.message, exc.remedy)]
    if version != db.newest_version():
        text = f"{redaction.url(url)} has schema {version or 'none'}, this Fleet knows {db.newest_version()}"
        return [
            Finding(
                "database", "fail", text, "start `fleet control` of the newer Fleet: it brings the schema up to date"
            )
        ]
    return [Finding("database", "ok", f"{redaction.url(url)}, schema {version}")]


def docker(settings: Settings) -> list[Finding]:
    """A host needs a Docker Engine; a machine that only pushes does not."""
    import docker as docker_sdk
    import requests

    url = settings.resolved_docker_url
    try:
        client = docker_sdk.DockerClient(base_url=url, timeout=int(_TIMEOUT_SECONDS))
        try:
            version = client.version()["Version"]
        finally:
            client.close()
    except (docker_sdk.errors.DockerException, requests.RequestException, OSError) as exc:
        remedy = "start dockerd, let this user open its socket, or set FLEET_DOCKER_URL; only a host needs it"
        return [Finding("docker", "warn", f"no Docker Engine answers at {url} ({_cause(exc)})", remedy)]
    return [Finding("docker", "ok", f"{version} at {url}")]


def _cause(exc: BaseException) -> str:
    """Return the system's own words from within the wrappings of two libraries, such as "Permission denied"."""
    wrapped: object = exc
    while isinstance(wrapped, BaseException):
        if isinstance(wrapped, OSError) and wrapped.strerror:
            return wrapped.strerror
        inner = [argument for argument in wrapped.args if isinstance(argument, BaseException)]
        wrapped = next(iter(inner), None) or wrapped.__cause__ or wrapped.__context__
    return str(exc)


def flower(settings: Settings) -> list[Finding]:
    """Flower shows every task's arguments, so it must ask who is there."""
    address = f"{settings.flower_address}:{settings.flower_port}"
    reached = http.client.HTTPConnection(settings.flower_address, settings.flower_port, timeout=_TIMEOUT_SECONDS)
    try:
        reached.request("GET", "/")
        status = reached.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return [
            Finding("flower", "warn", f"nothing answers at {address} ({exc})", "`fleet flower` or `fleet up` starts it")
        ]
    finally:
        reached.close()
    if status == http.HTTPStatus.UNAUTHORIZED:
        return [Finding("flower", "ok", f"http://{address}, with authentication")]
    text = f"http://{address} answers {status} to somebody without a password"
    return [Finding("flower", "fail", text, "run it by `fleet flower`, which sets one; or is this another program?")]


ALL: tuple[Callable[[Settings], list[Finding]], ...] = (
    broker,
    database,
    docker,
    flower,
    state_directory,
    host_credentials,
)
