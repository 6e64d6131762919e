"""Wiring: the parts of a host that act on containers, put together for one session."""

from collections.abc import Collection

from fleet import policy
from fleet.settings import Settings
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.making import Maker, Secrets
from workers.host.containers.places import Places
from workers.host.containers.removing import Remover
from workers.host.containers.undoing import Undoing
from workers.host.tasks.containers import ContainerTasks


def wire(
    settings: Settings, engine: Engine, *, host: str, interrupted: Collection[str], secrets: Secrets | None = None
) -> tuple[ContainerTasks, Undoing]:
    """Return what carries out the tasks, under the policy of the host's owner, and the thread that undoes.

    `interrupted` are runs that the session settles by itself. Raises `errors.SettingsInvalid` for a wrong policy.
    """
    own = (settings.state_dir, settings.credential_path(host), settings.policy_file or policy.USUAL_PATH)
    grants = Grants(policy.of_host(settings).containers, Places(engine, own), engine)
    undoing = Undoing(engine, settings.host_dir(host) / "making", secrets=secrets)
    undoing.take_up(except_for=interrupted)
    maker, remover = Maker(engine, grants, undoing, secrets=secrets), Remover(engine, grants, secrets=secrets)
    return ContainerTasks(engine, grants, maker, remover), undoing
