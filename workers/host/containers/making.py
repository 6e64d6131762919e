"""Making a container: from a spec to a container that runs, in steps of which each can be found again.

    judge ─▶ image ─▶ volumes, secrets ─▶ create ─▶ networks ─▶ verify ─▶ secrets settle ─▶ take the name ─▶ start

Everything that is made bears the run's label, so a run that is carried out again, or was cut short by the end of the
worker, takes up what is there. A run that fails leaves nothing: see `workers.host.containers.undoing`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fleet import errors, logs
from fleet.contracts import RunContext
from fleet.contracts.container_spec import ContainerSpec
from fleet.contracts.containers import CheckContainer, ContainerCheck, ContainerCreated, CreateContainer
from fleet.contracts.secrets import SecretRef
from workers.host.claim import Claim
from workers.host.containers import calls, images, networks, replacing, users, volumes
from workers.host.containers.building import Owner, request
from workers.host.containers.ending import stop_if_ended
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.listing import describe, ids_of_run
from workers.host.containers.replacing import SLOW_SECONDS, Old
from workers.host.containers.undoing import Task, Undoing
from workers.host.containers.verifying import mismatches
from workers.host.streams import StreamedRun

log = logs.get(__name__)

#: The Engine copies what the image has at the place of a volume, on a disk that may be slow.
_CREATE_SECONDS = 120.0


class Secrets(Protocol):
    """Has the secrets of a run's container as files; `workers.host.containers.asking` does."""

    def prepare(self, run_id: str, refs: Sequence[SecretRef]) -> Path: ...
    def settle(self, run_id: str, *, docker_id: str, uid: int, gid: int) -> None: ...
    def done(self, run_id: str) -> None: ...
    def discard(self, run_id: str) -> None: ...


class Maker:
    """Makes containers on one Engine."""

    def __init__(self, engine: Engine, grants: Grants, undoing: Undoing, *, secrets: Secrets | None = None) -> None:
        self._engine = engine
        self._grants = grants
        self._undoing = undoing
        self._secrets = secrets

    def check(self, wanted: CheckContainer, run: RunContext) -> ContainerCheck:
        """Say what the policy says of a spec, and what the Engine would be asked for."""
        judgement = self._grants.judge(wanted.spec)
        return ContainerCheck(
            allowed=not judgement.denials,
            denials=tuple(judgement.denials),
            request=request(wanted.spec, Owner.of_run(run), real=judgement.real),
        )

    def create(self, wanted: CreateContainer, run: StreamedRun) -> ContainerCreated:
        """Make what is wanted, or take up what an earlier attempt at the run has made of it."""
        return self._make_or_undo(wanted, Owner.of_run(run), run)

    def reconcile(self, wanted: CreateContainer, *, claim: Claim) -> ContainerCreated | None:
        """Finish what a run had made when the worker ended; where that is no container, leave nothing of it and return
        None."""
        owner = Owner.of_claim(claim)
        if ids_of_run(self._engine, owner.run_id):
            return self._make_or_undo(wanted, owner, None)
        self._undoing.undo(_task(wanted, owner))
        self._undoing.done(owner.run_id)  # not before: the Engine may be away for longer than is waited for it
        return None

    def _make_or_undo(self, wanted: CreateContainer, owner: Owner, run: StreamedRun | None) -> ContainerCreated:
        self._undoing.begin(_task(wanted, owner))
        try:
            made = self._make(wanted, owner, run)
        except BaseException as exc:
            self._undo(_task(wanted, owner), late=isinstance(exc, errors.EngineUnavailable))
            raise
        # From here on the new container stays, whatever becomes of the one whose place it has taken.
        if self._secrets is not None:
            self._secrets.done(owner.run_id)
        if wanted.replace:
            self._undoing.replaced(_task(wanted, owner))
        else:
            self._undoing.done(owner.run_id)
        return made

    def _undo(self, task: Task, *, late: bool) -> None:
        """Undo now, and once more later where the Engine may still be at it, or does not answer."""
        try:
            self._undoing.undo(task)
        except errors.FleetError as exc:
            log.warning("undo.failed", run=task.run_id, error=str(exc), next="it is tried again")
            late = True
        if late:
            self._undoing.later(task)
        else:
            self._undoing.done(task.run_id)

    def _make(self, wanted: CreateContainer, owner: Owner, run: StreamedRun | None) -> ContainerCreated:
        judgement = self._grants.judge(wanted.spec)
        judgement.require()
        if wanted.spec.secrets:
            if self._secrets is None:
                raise errors.EngineRefused("this worker delivers no secrets", kind="secrets_unavailable")
            users.require_the_hosts(self._engine, wanted.spec)
        found = next(iter(ids_of_run(self._engine, owner.run_id)), None)
        if found and self._has_begun(found, wanted.spec, owner):
            there = ContainerCreated(container=describe(self._engine, found), created=False)
            stop_if_ended(run)
            return there
        if found is None:
            assert run is not None
            images.ensure(self._engine, wanted.spec.image, wanted.pull, run)
            stop_if_ended(run)
            run.progress("creating", 50)
        docker_id, warnings = self._assemble(wanted, owner, found, judgement.real)
        stop_if_ended(run)
        if old := replacing.replaced(self._engine.inspect(docker_id)):
            self._require_managed(old)
            replacing.take_place(self._engine, docker_id, old, owner, _name(wanted.spec, owner))
        if wanted.start:
            self._engine.ask(
                "POST",
                f"/containers/{calls.part(docker_id)}/start",
                about=f"container {_name(wanted.spec, owner)!r}",
                container=docker_id,
                seconds=SLOW_SECONDS,
            )
        container = describe(self._engine, docker_id)
        stop_if_ended(run)  # after the last call: what ends later ends a run that has done its work
        return ContainerCreated(container=container, created=found is None, warnings=warnings)

    def _has_begun(self, docker_id: str, spec: ContainerSpec, owner: Owner) -> bool:
        """Say whether a container of this run was started already; raises where it was being undone since."""
        details = self._engine.inspect(docker_id)
        if details["State"]["Status"] == "created":
            return False
        if details["Name"] != f"/{_name(spec, owner)}":
            raise errors.EngineRefused("it was cut short while it was undone", kind="interrupted", remedy="try again")
        return True

    def _assemble(
        self, wanted: CreateContainer, owner: Owner, found: str | None, real: Mapping[str, str]
    ) -> tuple[str, tuple[str, ...]]:
        """Have the container as it is to be, not started; return its id and what the Engine remarked."""
        spec = wanted.spec
        warnings: tuple[str, ...] = ()
        attached = networks.resolve(self._engine, spec.networks)
        self._make_volumes(spec, owner)
        asked = request(spec, owner, real=real, secrets=self._prepare(spec, owner))
        if found is None:
            found, warnings = self._create(wanted, asked, owner)
        elif old := replacing.replaced(self._engine.inspect(found)):
            asked["Labels"].update(old.labels())
        networks.join(self._engine, found, attached)
        details = self._engine.inspect(found)
        if wrong := mismatches(self._engine, self._grants, spec, asked, details):
            raise errors.EngineRefused(
                f"the Engine made another container than it was asked for: {'; '.join(wrong)}",
                kind="spec_mismatch",
                remedy="nothing is left of it; the Engine's settings, the image or a volume brought that in",
            )
        self._settle(spec, owner, details)
        return found, warnings

    def _make_volumes(self, spec: ContainerSpec, owner: Owner) -> None:
        for mount in spec.volumes:
            there = volumes.look(self._engine, mount.name)
            there = there or volumes.make(self._engine, mount, labels=owner.labels())
            if (mount.driver and mount.driver != there.driver) or (
                mount.driver_options and mount.driver_options != dict(there.options)
            ):
                raise errors.EngineRefused(
                    f"volume {mount.name!r} is there, of driver {there.driver!r} with other options",
                    kind="volume_differs",
                    remedy="give another name, or leave driver and options out",
                )

    def _prepare(self, spec: ContainerSpec, owner: Owner) -> str | None:
        if not spec.secrets or self._secrets is None:
            return None
        return str(self._secrets.prepare(owner.run_id, spec.secrets))

    def _settle(self, spec: ContainerSpec, owner: Owner, details: Mapping[str, Any]) -> None:
        if spec.secrets and self._secrets is not None:
            uid, gid = users.user_and_group(self._engine, details)
            self._secrets.settle(owner.run_id, docker_id=details["Id"], uid=uid, gid=gid)

    def _create(self, wanted: CreateContainer, asked: dict[str, Any], owner: Owner) -> tuple[str, tuple[str, ...]]:
        name = _name(wanted.spec, owner)
        if wanted.replace and (old := self._replaced(name)):
            asked["Labels"].update(old.labels())
            name = replacing.name_of_new(owner)
        answer = self._engine.ask(
            "POST",
            "/containers/create",
            about=f"container {name!r}",
            kinds={404: "no_such_image", 409: "name_in_use"},
            parameters={"name": name},
            body=asked,
            seconds=_CREATE_SECONDS,
        )
        return str(answer["Id"]), tuple(answer.get("Warnings") or ())

    def _replaced(self, name: str) -> Old | None:
        """Return the container that has the name; raises `errors.NotGranted` for one that is not the fleet's."""
        old = replacing.find(self._engine, name)
        if old is not None:
            self._require_managed(old)
        return old

    def _require_managed(self, old: Old) -> None:
        try:
            container = describe(self._engine, old.docker_id)
        except errors.EngineRefused as exc:
            if exc.kind != "no_such_container":  # one that has gone is in nobody's way
                raise
        else:
            self._grants.require_managed(container)


def _task(wanted: CreateContainer, owner: Owner) -> Task:
    return Task(owner.run_id, _name(wanted.spec, owner))


def _name(spec: ContainerSpec, owner: Owner) -> str:
    """Return the container's name; one that was not named is named for its run, so that it is made once only."""
    return spec.name or f"fleet-{owner.short}"
