"""Membership checks: what `fleet doctor` looks at of keys, principals, and hosts that somebody should look into.

As those of `fleet.cli.checks`: they return findings, raise nothing, and change nothing.
"""

from sqlmodel import Session

from fleet import clock, credentials, db, errors, inventory, keyring
from fleet.cli.checks import Finding
from fleet.dispatch.signer import Signer
from fleet.models import Membership
from fleet.settings import Settings

#: Time to get a new file in.
EXPIRY_WARN_SECONDS = 14 * 86400.0


def principal(settings: Settings) -> list[Finding]:
    """Whoever pushes from here needs a file, and a credential in it that has not expired."""
    name = settings.resolved_principal
    path = settings.principal_path(name)
    try:
        identity = Signer(credentials.load_principal(path, name=name), path).identity
    except (errors.Refused, errors.InvalidValue) as exc:
        return [Finding("principal", "warn", exc.message, exc.remedy)]
    left = identity.expires_at - clock.now().timestamp()
    remedy = f"`fleet principal rotate {name}` makes a new file, where the control plane runs"
    if left <= 0:
        return [Finding("principal", "fail", f"{name}: its credential has expired", remedy)]
    text = f"{name}, {identity.level.value}: {path}"
    if left < EXPIRY_WARN_SECONDS:
        return [Finding("principal", "warn", f"{text}; its credential expires in {left / 86400:.1f} days", remedy)]
    return [Finding("principal", "ok", text)]


def control_plane(settings: Settings) -> list[Finding]:
    """Where the control plane runs: its keys have to be here, and somebody should look into hosts that are suspect."""
    url = settings.resolved_database_url
    try:
        engine = db.open_engine(url, create=False)
    except (errors.DatabaseUnavailable, errors.SettingsInvalid, errors.NotFound):
        return []  # no control plane of this machine, or `database` has said so
    try:
        with db.session(engine, write=False) as session:
            return [*_keys(session, settings), *_suspects(session)]
    except errors.FleetError as exc:
        return [Finding("signing keys", "warn", f"cannot be looked at: {exc.message}", exc.remedy)]
    finally:
        engine.dispose()


def _keys(session: Session, settings: Settings) -> list[Finding]:
    live = [row for row in keyring.everything(session) if row.retired_at is None]
    if not live:
        return [Finding("signing keys", "warn", "the fleet has none yet", "`fleet control` makes the first one")]
    try:
        keyring.obtain(session, settings.signing_keys_path)
    except (errors.LocalFault, errors.Refused) as exc:
        return [Finding("signing keys", "fail", exc.message, exc.remedy)]
    text = f"{len(live)} in {settings.signing_keys_path}"
    if len(live) > 1:
        remedy = "`fleet key retire` drops the former one, once every host has been online since"
        return [Finding("signing keys", "warn", f"{text}; a change of keys is under way", remedy)]
    return [Finding("signing keys", "ok", text)]


def _suspects(session: Session) -> list[Finding]:
    return [
        Finding(
            f"host {host.id}",
            "warn",
            f"suspect: {host.suspect}",
            f"is it the machine you meant? `fleet host revoke {host.id}` puts it out; a new token lets it in again",
        )
        for host in inventory.hosts(session)
        if host.suspect and host.membership == Membership.ACCEPTED
    ]


ALL = (principal, control_plane)
