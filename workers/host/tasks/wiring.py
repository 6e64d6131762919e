"""Wiring: what carries out Fleet's own contracts on a host, put together for one session."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fleet import policy
from fleet.contracts import RunContext, registry
from fleet.contracts.hosts import Facts
from fleet.contracts.reports import Kind
from fleet.settings import Settings
from workers.host.containers import making
from workers.host.containers.asking import Secrets
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.keeping import SecretFiles
from workers.host.containers.places import DOCKERS, Places
from workers.host.containers.removing import Remover
from workers.host.containers.restoring import Restoring
from workers.host.containers.undoing import Undoing
from workers.host.files.never import Never
from workers.host.files.real import RequireReal
from workers.host.governing import Governor
from workers.host.journal import Journal
from workers.host.outbox import Outbox
from workers.host.running import Running
from workers.host.streams import OwnPerformer
from workers.host.tasks.containers import ContainerTasks
from workers.host.tasks.files import FileRequest, FileTasks, Grant, Granted, GrantedFiles
from workers.host.tasks.registry import performers


@dataclass(frozen=True)
class OnContainers:
    """What a session has for containers."""

    tasks: ContainerTasks
    #: a thread
    undoing: Undoing
    secrets: Secrets
    restoring: Restoring
    #: where their secrets lie
    files: SecretFiles


@dataclass(frozen=True)
class _Granted:
    """What the policy grants of one request, as `workers.host.tasks.files.Grant` has it."""

    root: str
    within: str
    most_bytes: int
    require_real: RequireReal


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
    return OnContainers(tasks, undoing, secrets, Restoring(files, engine, host=host), files)


def tasks_of(
    settings: Settings, engine: Engine, *, host: str, secrets: making.Secrets | None, interrupted: Collection[str]
) -> tuple[ContainerTasks, Undoing]:
    """Return what carries out the tasks, and the thread that undoes what runs but for those interrupted have left."""
    grants = Grants(policy.of_host(settings).containers, Places(engine, _own_places(settings, host)), engine)
    undoing = Undoing(engine, settings.host_dir(host) / "making", secrets=secrets)
    undoing.take_up(except_for=interrupted)
    maker = making.Maker(engine, grants, undoing, secrets=secrets)
    return ContainerTasks(engine, grants, maker, Remover(engine, grants, secrets=secrets)), undoing


def performers_of(
    settings: Settings,
    engine: Engine,
    *,
    host: str,
    containers: OnContainers,
    journal: Journal,
    governor: Governor,
    detect: Callable[[], Facts],
) -> Mapping[str, OwnPerformer]:
    """Return the function for each of Fleet's own contracts; one about files asks the policy when it begins."""
    on_files = GrantedFiles(file_tasks(settings, engine, host=host), granted_files(journal, governor))
    return performers(detect, containers.tasks, governed=on_files.performers())


def granted_files(journal: Journal, governor: Governor) -> Granted:
    """Return what has the policy say what is granted of a run about a file, now."""

    def grant(request: FileRequest, run: RunContext) -> Grant:
        claim = journal.begun(run.run_id)
        contract = registry.get(claim.task)
        verdict = governor.grant(claim, contract, request)
        assert verdict.file is not None  # an answer about files that is not "deny" has one

        def require_real(path: str) -> None:
            real = request.model_copy(update={"path": path})
            governor.require_real(claim, contract, request, real=real, granted=verdict)

        return _Granted(verdict.file.root, verdict.file.within, verdict.file.most_bytes, require_real)

    return grant


def file_tasks(settings: Settings, engine: Engine, *, host: str) -> FileTasks:
    """Return what carries out the tasks about files, with nothing left of what a former worker was putting."""
    own = (
        *_own_places(settings, host),
        policy.USUAL_PATH.parent,
        settings.signing_keys_path,
        *([settings.principal_file] if settings.principal_file else ()),
    )
    socket = [engine.url.removeprefix("unix://")] if engine.url.startswith("unix://") else []
    never = Never(own, others=map(Path, (*DOCKERS, *socket)))
    tasks = FileTasks(notes=settings.host_dir(host) / "putting", never=never)
    tasks.take_up()
    return tasks


def _own_places(settings: Settings, host: str) -> tuple[Path, ...]:
    return (
        settings.state_dir,
        settings.secrets_dir,
        settings.credential_path(host),
        settings.policy_file or policy.USUAL_PATH,
    )
