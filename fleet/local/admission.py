"""Admission: the keys and logins of everything on this machine, made silently by `fleet up`.

One user of the broker for the control plane, one for Flower, a token for the host, and a principal for whoever runs
`fleet up`, who may do everything and approve what others do. All of it lies in the state directory, mode 0600.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

from fleet import errors
from fleet.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    import redis
    from pydantic import SecretStr

    from fleet.settings import Settings

#: The token is used within seconds; a worker that has to start again gets a new one.
_TOKEN_TTL = timedelta(minutes=5)


class Admission:
    """What the stack asks for before it starts the others."""

    def __init__(self, settings: "Settings", *, broker: EmbeddedBroker, host: str, former_url: str | None) -> None:
        self._settings = settings
        self._broker = broker
        self._host = host
        self._former_url = former_url

    def fit_host(self) -> None:
        """Let the host's credential follow the broker to another port; refuse one that is for another broker."""
        from fleet import credentials

        path = self._settings.credential_path(self._host)
        if not path.exists():
            return
        credential = credentials.load(path, host=self._host)
        moved = self._moved(credential.broker_url, what=f"host {self._host!r}", where=str(path))
        if moved is not None:
            credentials.save(path, credential.model_copy(update={"broker_url": moved}))

    def fit_principal(self, client: "redis.Redis") -> None:
        """Make the principal of whoever runs this, or let its file follow the broker to another port."""
        from fleet import credentials

        name = self._settings.resolved_principal
        path = self._settings.principal_path(name)
        if not path.exists():
            self._make_principal(client)
            return
        held = credentials.load_principal(path, name=name)
        moved = self._moved(held.broker_url, what=f"principal {name!r}", where=str(path))
        if moved is not None:
            credentials.save_principal(path, held.model_copy(update={"broker_url": moved}))

    def token(self, client: "redis.Redis") -> str:
        """Make an enrollment token for this machine's host, in the database itself."""
        from fleet import db, enrollment, keyring, members

        engine = db.open_engine(self._settings.resolved_database_url)
        try:
            db.migrate(engine)
            with db.session(engine) as session:
                ring = keyring.obtain(session, self._settings.signing_keys_path)
                token = enrollment.create_token(
                    session,
                    ring=ring,
                    ttl=_TOKEN_TTL,
                    uses=1,
                    host_id=self._host,
                    labels={},
                    created_by=self._settings.resolved_principal,
                    broker_url=self._broker.url.get_secret_value(),
                )
                members.admit_token(session, client, ring, token)
                return token
        finally:
            engine.dispose()

    def _make_principal(self, client: "redis.Redis") -> None:
        from fleet import credentials, db, keyring, members, policies, principals, services
        from fleet.contracts import Risk
        from fleet.models import Principal
        from fleet.security.identity import Level

        name, url = self._settings.resolved_principal, self._broker.url.get_secret_value()
        engine = db.open_engine(self._settings.resolved_database_url)
        try:
            db.migrate(engine)
            with db.session(engine) as session:
                ring = keyring.obtain(session, self._settings.signing_keys_path)
                known = session.get(Principal, name)
                if known is None or known.revoked_at is not None:
                    made = principals.create(
                        session,
                        ring=ring,
                        name=name,
                        level=Level.AUTONOMOUS,
                        approves=tuple(Risk),
                        by=name,
                        broker_url=url,
                    )
                else:  # its file is gone
                    made = principals.rotate(session, name, ring=ring, by=name, broker_url=url)
                if policies.current(session) is None:
                    starter = services.config_file("policy.example.toml").read_text(encoding="utf-8")
                    policies.set_policy(session, starter, by=name)
                members.admit_principal(session, client, name)
                members.publish(session, client, ring)
                credentials.save_principal(self._settings.principal_path(name), made)
        finally:
            engine.dispose()

    def _moved(self, known: "SecretStr", *, what: str, where: str) -> "SecretStr | None":
        """Return the login at the broker's present address; None where it is that already."""
        from urllib.parse import unquote, urlsplit

        from fleet.broker import login

        held, here = known.get_secret_value(), self._broker.url.get_secret_value()
        if login.without(held) == login.without(here):
            return None
        if self._former_url is None or login.without(held) != login.without(self._former_url):
            raise errors.LocalFault(
                f"{what} is enrolled with another broker (its credential is {where})",
                remedy="give this one another name (--host-id), or a directory of its own: FLEET_STATE_DIR=…",
            )
        parts = urlsplit(held)
        return login.at(here, unquote(parts.username or ""), unquote(parts.password or ""))
