"""Verifying: whether the Engine has made the container that it was asked for, before it is started.

What gives power over the host is compared field by field, also what was not asked for: a default of the Engine, an
image or a volume may bring it in. What the container has by now, nobody but the host's owner can change any more.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.contracts.container_parts import SECRETS_TARGET, capability
from fleet.contracts.container_spec import OWN_LABELS, ContainerSpec
from workers.host.containers import volumes
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants

#: Fields of HostConfig that are empty where nothing was asked for (Docker Engine API, v1.41).
_FIELDS = (
    "AutoRemove",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cgroup",
    "CgroupParent",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "GroupAdd",
    "Links",
    "Mounts",
    "NetworkMode",
    "OomKillDisable",
    "OomScoreAdj",
    "PidMode",
    "Privileged",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "SecurityOpt",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "UTSMode",
    "UsernsMode",
    "VolumeDriver",
    "VolumesFrom",
)
#: What the Engine's own settings may choose where nothing was asked for.
_CHOSEN = {"IpcMode": {"", "private", "shareable"}, "CgroupnsMode": {"", "private", "host"}}
#: With SELinux, a container in a namespace of the host's gets this from the Engine itself (moby, daemon/create.go).
_OF_SELINUX = "label=disable"


def mismatches(
    engine: Engine, grants: Grants, spec: ContainerSpec, asked: Mapping[str, Any], details: Mapping[str, Any]
) -> tuple[str, ...]:
    """Say in which fields a container (`details`, by inspect) is not what was `asked` of the Engine."""
    wanted, found = asked["HostConfig"], details["HostConfig"]
    return (
        *_fields(wanted, found),
        *_chosen(engine, wanted, found),
        *_masks(wanted, found),
        *_labels(asked, details),
        *_mounts(grants, spec, wanted, details),
        *_volumes(grants, spec),
        *_networks(spec, details),
    )


def _fields(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name in _FIELDS:
        there, here = _plain(name, found.get(name)), _plain(name, wanted.get(name))
        if name == "SecurityOpt" and _with_the_hosts(wanted) and _OF_SELINUX not in (here or ()):
            there = [option for option in there or () if option != _OF_SELINUX] or None
        if there != here:
            yield f"HostConfig.{name} is {there!r}"


def _plain(name: str, value: Any) -> Any:
    """Return a value in one of the forms that mean the same to the Engine; None for one that is empty."""
    match name:
        case "CapAdd" | "CapDrop":  # some Engines write CAP_ before them
            value = sorted(map(capability, value or ()))
        case "SecurityOpt":
            value = [option.replace(":", "=", 1) for option in value or ()]
    return _solid(value)


def _solid(value: Any) -> Any:
    """Leave out everything that is empty, as the Engine does in some places and not in others."""
    if isinstance(value, Mapping):
        return {key: solid for key, item in value.items() if (solid := _solid(item)) is not None} or None
    if isinstance(value, list | tuple):
        return [_solid(item) for item in value] or None
    return value or None


def _with_the_hosts(wanted: Mapping[str, Any]) -> bool:
    return bool(wanted.get("Privileged")) or "host" in {wanted.get("PidMode"), wanted.get("IpcMode")}


def _chosen(engine: Engine, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name, usual in _CHOSEN.items():
        there = found.get(name) or ""
        if there != wanted[name] if name in wanted else there not in usual:
            yield f"HostConfig.{name} is {there!r}"
    runtime = wanted.get("Runtime") or engine.ask("GET", "/info")["DefaultRuntime"]
    if (found.get("Runtime") or runtime) != runtime:
        yield f"HostConfig.Runtime is {found['Runtime']!r}"


def _masks(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Look whether paths of /proc and /sys are hidden, which nobody but a privileged container asked to see."""
    for name in ("MaskedPaths", "ReadonlyPaths"):
        if name not in wanted and not wanted.get("Privileged") and not found.get(name):
            yield f"HostConfig.{name} is empty"


def _labels(asked: Mapping[str, Any], details: Mapping[str, Any]) -> Iterator[str]:
    there = details["Config"].get("Labels") or {}
    for name, value in asked["Labels"].items():
        if there.get(name) != value:
            yield f"Config.Labels.{name} is {there.get(name)!r}"
    for name in there.keys() - asked["Labels"].keys():
        if name.startswith(OWN_LABELS):
            yield f"Config.Labels.{name} is {there[name]!r}"
    if details.get("AppArmorProfile") == "unconfined":
        host = asked["HostConfig"]
        if not host.get("Privileged") and "apparmor=unconfined" not in (host.get("SecurityOpt") or ()):
            yield "AppArmorProfile is 'unconfined'"


def _mounts(
    grants: Grants, spec: ContainerSpec, wanted: Mapping[str, Any], details: Mapping[str, Any]
) -> Iterator[str]:
    """Look at what is really mounted, and where the paths of the host lead by now."""
    secrets = {m["Source"] for m in wanted.get("Mounts", ()) if m["Type"] == "bind" and m["Target"] == SECRETS_TARGET}
    sources = {m["Source"] for m in wanted.get("Mounts", ()) if m["Type"] == "bind"}
    targets = {volume.target for volume in spec.volumes}
    for mount in details.get("Mounts") or ():
        source, target = mount.get("Source", ""), mount.get("Destination", "")
        if mount.get("Type") == "bind":
            if source in secrets:
                continue
            if source not in sources and not spec.volumes_from:
                yield f"{source} is mounted at {target}"
            yield from grants.objections([source])
        elif target not in targets and mount.get("Driver", volumes.LOCAL) != volumes.LOCAL and not spec.volumes_from:
            yield f"volume {mount.get('Name')!r} of driver {mount['Driver']!r} is mounted at {target}"


def _volumes(grants: Grants, spec: ContainerSpec) -> Iterator[str]:
    for mount in spec.volumes:
        yield from (denial.reason for denial in grants.judge_volume("volumes", mount))


def _networks(spec: ContainerSpec, details: Mapping[str, Any]) -> Iterator[str]:
    if spec.network_mode is None:
        for name in set(details["NetworkSettings"].get("Networks") or ()) ^ set(spec.networks or ("bridge",)):
            yield f"NetworkSettings.Networks: {name!r} is not as it was asked for"
