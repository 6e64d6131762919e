"""Wiring: the parts of a host that act on containers, put together for one session."""

from dataclasses import dataclass
from functools import partial

from fleet import policy
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from workers.host.containers.asking import Secrets
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.keeping import SecretFiles
from workers.host.containers.making import Maker
from workers.host.containers.places import Places
from workers.host.containers.removing import Remover
from workers.host.containers.restoring import Restoring
from workers.host.containers.undoing import Undoing
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.tasks.containers import ContainerTasks


@dataclass(frozen=True)
class OnContainers:
    """What a session has for containers."""

    tasks: ContainerTasks
    #: a thread
    undoing: Undoing
    secrets: Secrets
    restoring: Restoring


def wire(settings: Settings, engine: Engine, *, host: str, journal: Journal, outbox: Outbox) -> OnContainers:
    """Put it together, under the policy of the host's owner; raises `errors.SettingsInvalid` for a wrong one."""
    own = (
        settings.state_dir,
        settings.secrets_dir,
        settings.credential_path(host),
        settings.policy_file or policy.USUAL_PATH,
    )
    files = SecretFiles(settings.secrets_dir / host, settings.host_dir(host))
    secrets = Secrets(files, ask=partial(outbox.ask, Kind.SECRETS_WANTED), message=journal.message)
    grants = Grants(policy.of_host(settings).containers, Places(engine, own), engine)
    undoing = Undoing(engine, settings.host_dir(host) / "making", secrets=secrets)
    undoing.take_up(except_for={claim.run_id for claim in journal.interrupted()})  # those are settled by the session
    maker, remover = Maker(engine, grants, undoing, secrets=secrets), Remover(engine, grants, secrets=secrets)
    return OnContainers(ContainerTasks(engine, grants, maker, remover), undoing, secrets, Restoring(files, engine))
