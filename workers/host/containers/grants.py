"""Grants: what the host's policy says of a spec, and of acting on a container, as things are on this host.

The words of a spec are compared with the policy in `fleet.policy`. Here is what they lead to: links, volumes that
somebody made before, containers whose mounts are taken over.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet import errors
from fleet.contracts.container_demands import GPUS, Demand, demands
from fleet.contracts.container_parts import VolumeMount
from fleet.contracts.container_spec import ContainerSpec
from fleet.contracts.containers import Container, Denial, Label
from fleet.policy import ContainerPolicy
from workers.host.containers import volumes
from workers.host.containers.engine import Engine
from workers.host.containers.places import Places, Unusable
from workers.host.containers.replacing import look


@dataclass
class Judgement:
    """What the policy says of a spec."""

    denials: list[Denial] = field(default_factory=list)
    #: paths of the host as the spec has them → without links, `container:NAME` → by its id; those that are granted
    real: dict[str, str] = field(default_factory=dict)

    def require(self) -> None:
        """Raise `errors.NotGranted` that names everything which is denied."""
        if not self.denials:
            return
        lines = list(dict.fromkeys(each.grant for each in self.denials if each.grant))
        raise errors.NotGranted(
            "this host does not let a container have: " + "; ".join(f"{d.field} ({d.reason})" for d in self.denials),
            remedy=f"leave it out, or ask the host's owner for this in its policy: {', '.join(lines)}"
            if lines
            else "leave it out; no policy grants that",
        )


class Grants:
    """The policy of one host, applied."""

    def __init__(self, policy: ContainerPolicy, places: Places, engine: Engine) -> None:
        self._policy = policy
        self._places = places
        self._engine = engine

    def judge(self, spec: ContainerSpec) -> Judgement:
        """Return what is denied of a spec; raises the Engine's errors where it has to be asked."""
        found = Judgement()
        for demand in demands(spec):
            if demand.key == "binds" or (demand.key == "devices" and demand.value != GPUS):
                self._judge_path(demand, found)
            elif not self._policy.grants(demand):
                found.denials.append(_not_granted(demand))
            elif ":container:" in demand.value:
                self._resolve_container(demand, found)
        for place, mount in enumerate(spec.volumes):
            found.denials += self.judge_volume(f"volumes.{place}", mount)
        for place, source in enumerate(spec.volumes_from):
            found.denials += self._judge_source(f"volumes_from.{place}", source.partition(":")[0])
        found.denials = list({(each.field, each.reason): each for each in found.denials}.values())
        return found

    def judge_volume(self, where: str, mount: VolumeMount) -> Iterator[Denial]:
        """Say what is denied of a volume, as it was asked for and as it is."""
        yield from self._judge_look(where, volumes.Look.wanted(mount))
        if there := volumes.look(self._engine, mount.name):
            yield from self._judge_look(where, there)

    def objections(self, sources: Iterable[str]) -> Iterator[str]:
        """Say which of these paths, that were resolved before, no container may have now."""
        for source in sources:
            try:
                real = self._places.real(source)
            except Unusable as exc:
                yield f"{source}: {exc}"
            else:
                if real != source:
                    yield f"{source}: it leads to {real} now"

    def manages(self, container: Container) -> bool:
        """Say whether the fleet may act on a container, or look into it."""
        return container.managed or self._policy.manage == "all"

    def require_managed(self, container: Container) -> None:
        """Raise `errors.NotGranted` of kind `not_managed` for a container that the fleet is not to act on."""
        if not self.manages(container):
            raise errors.NotGranted(
                f"container {container.name!r} was not made by Fleet, and this host's policy is: manage = 'managed'",
                kind="not_managed",
                remedy="the host's owner may change that in its policy (manage = 'all')",
            )

    def _judge_path(self, demand: Demand, found: Judgement) -> None:
        binds = demand.key == "binds"
        try:
            real = self._places.real(demand.value) if binds else self._places.device(demand.value)
        except Unusable as exc:
            found.denials.append(Denial(field=demand.field, reason=f"{demand.value}: {exc}"))
            return
        if binds:
            granted = [(each.source, each.read_only) for each in self._policy.binds]
        else:
            granted = [(path, False) for path in self._policy.devices]
        if any(self._places.same(path, real) and (demand.read_only or not reading) for path, reading in granted):
            found.real[demand.value] = real
        else:
            found.denials.append(_not_granted(demand))

    def _resolve_container(self, demand: Demand, found: Judgement) -> None:
        """Have the container that a namespace is taken from by its id, so that it is the one which was granted."""
        name = demand.value.rpartition(":")[2]
        if details := self._by_name(name):
            found.real[f"container:{name}"] = f"container:{details['Id']}"
        else:
            found.denials.append(Denial(field=demand.field, reason=f"{name}: there is no container of that name"))

    def _by_name(self, name: str) -> dict[str, Any] | None:
        """Return the container of that very name or full id: the Engine would take the beginning of an id as well."""
        details = look(self._engine, name)
        return details if details and name in {details["Name"].removeprefix("/"), details["Id"]} else None

    def _judge_look(self, where: str, volume: volumes.Look) -> Iterator[Denial]:
        if problem := volume.objection():
            yield Denial(field=where, reason=problem)
        demand = Demand(where, "volume_drivers", volume.driver)
        if (volume.options or volume.driver != volumes.LOCAL) and not self._policy.grants(demand):
            yield _not_granted(demand)
        if volume.made and self._policy.manage == "managed" and volume.labels.get(Label.MANAGED) != "true":
            yield Denial(field=where, reason=f"volume {volume.name} was not made by Fleet", grant='manage = "all"')

    def _judge_source(self, where: str, container: str) -> Iterator[Denial]:
        details = self._by_name(container)
        if details is None:
            yield Denial(field=where, reason=f"{container}: there is no container of that name")
            return
        for mount in details.get("Mounts") or ():
            if mount.get("Type") == "bind":
                for problem in self.objections([mount["Source"]]):
                    yield Denial(field=where, reason=problem)
            elif mount.get("Type") == "volume" and (there := volumes.look(self._engine, mount["Name"])):
                yield from self._judge_look(where, there)


def _not_granted(demand: Demand) -> Denial:
    return Denial(field=demand.field, reason=f"{demand.value} is not granted", grant=demand.entry)
