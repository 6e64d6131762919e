"""Wiring: the parts of a host that act on containers, put together for one session."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from fleet import policy
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from workers.host.containers import making
from workers.host.containers.asking import Secrets
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.keeping import SecretFiles
from workers.host.containers.places import Places
from workers.host.containers.removing import Remover
from workers.host.containers.restoring import Restoring
from workers.host.containers.undoing import Undoing
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.running import Running
from workers.host.tasks.containers import ContainerTasks


@dataclass(frozen=True)
class OnContainers:
    """What a session has for containers."""

    tasks: ContainerTasks
    #: a thread
    undoing: Undoing
    secrets: Secrets
    restoring: Restoring


def wire(
    settings: Settings, engine: Engine, *, host: str, journal: Journal, outbox: Outbox, running: Running
) -> OnContainers:
    """Put it together for a session; raises `errors.SettingsInvalid` for a wrong policy of the host's owner."""
    files = SecretFiles(settings.secrets_dir / host, settings.host_dir(host))
    secrets = Secrets(
        files,
        ask=partial(outbox.ask, Kind.SECRETS_WANTED),
        message=journal.message,
        is_ended=lambda run_id: running.requested(run_id) is not None,
    )
    interrupted = {claim.run_id for claim in journal.interrupted()}  # the session settles those by itself
    tasks, undoing = tasks_of(settings, engine, host=host, secrets=secrets, interrupted=interrupted)
    return OnContainers(tasks, undoing, secrets, Restoring(files, engine, host=host))


def tasks_of(
    settings: Settings, engine: Engine, *, host: str, secrets: making.Secrets | None, interrupted: Collection[str]
) -> tuple[ContainerTasks, Undoing]:
    """Return what carries out the tasks, and the thread that undoes what runs but for those interrupted have left."""
    own = (
        settings.state_dir,
        settings.secrets_dir,
        settings.credential_path(host),
        settings.policy_file or policy.USUAL_PATH,
    )
    grants = Grants(policy.of_host(settings).containers, Places(engine, own), engine)
    undoing = Undoing(engine, settings.host_dir(host) / "making", secrets=secrets)
    undoing.take_up(except_for=interrupted)
    maker = making.Maker(engine, grants, undoing, secrets=secrets)
    return ContainerTasks(engine, grants, maker, Remover(engine, grants, secrets=secrets)), undoing
