"""Building: the Engine's request for a container, made of its spec.

Every field of the request is written here, from a field of the spec that says the same; nothing passes through.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from fleet.contracts import RunContext
from fleet.contracts.container_parts import SECRETS_TARGET, HealthCheck, VolumeMount
from fleet.contracts.container_spec import ContainerSpec
from fleet.contracts.containers import Label
from workers.host.claim import Claim

_NANO = 1_000_000_000
#: `docker run` makes of it two lists that hide nothing of /proc; the Engine has no such option.
_UNMASKED = "systempaths=unconfined"


@dataclass(frozen=True)
class Owner:
    """The run for which something is made."""

    host: str
    run_id: str
    principal: str

    @classmethod
    def of_run(cls, run: RunContext) -> Self:
        return cls(run.host, run.run_id, run.submitted_by)

    @classmethod
    def of_claim(cls, claim: Claim) -> Self:
        return cls(claim.envelope.host, claim.run_id, claim.envelope.submitted_by)

    @property
    def short(self) -> str:
        """The part of the run id that names are made of."""
        return re.split("[:-]", self.run_id)[-1]

    def labels(self) -> dict[str, str]:
        """Return the labels of everything that the run makes."""
        return {
            Label.MANAGED.value: "true",
            Label.HOST.value: self.host,
            Label.RUN.value: self.run_id,
            Label.PRINCIPAL.value: self.principal,
        }

    def labels_of_container(self, spec: ContainerSpec) -> dict[str, str]:
        """Return all of Fleet's own labels, also those that say nothing: an image's own would count otherwise."""
        return {
            **self.labels(),
            Label.SPEC.value: spec.digest(),
            Label.REPLACES.value: "",
            Label.REPLACES_RUNNING.value: "",
        }


def request(
    spec: ContainerSpec, owner: Owner, *, real: Mapping[str, str], secrets: str | None = None
) -> dict[str, Any]:
    """Return the body of POST /containers/create (Docker Engine API, v1.41).

    `real` has what the host found for paths and other containers (`grants.Judgement`), `secrets` is the directory of
    the host that is bound for secrets.
    """
    mounts = _mounts(spec, owner, real, secrets)
    body: dict[str, Any] = {
        "Image": spec.image,
        "Cmd": _list(spec.command),
        "Entrypoint": _list(spec.entrypoint),
        "Env": [f"{name}={value}" for name, value in spec.environment.items()] or None,
        "Labels": {**spec.labels, **owner.labels_of_container(spec)},
        "ExposedPorts": {f"{port.container_port}/{port.protocol}": {} for port in spec.ports} or None,
        "User": spec.user,
        "WorkingDir": spec.working_dir,
        "Hostname": spec.hostname,
        "Healthcheck": _health(spec.health_check) if spec.health_check else None,
        "StopSignal": spec.stop_signal,
        "StopTimeout": None if spec.stop_timeout is None else math.ceil(spec.stop_timeout),
        "HostConfig": _given({**_own(spec, real), **_granted(spec, real), "Mounts": mounts}),
    }
    return _given(body)


def _own(spec: ContainerSpec, real: Mapping[str, str]) -> dict[str, Any]:
    """Return what no grant is needed for."""
    policy, _, retries = spec.restart.partition(":")
    return {
        "NetworkMode": _mode(spec.network_mode, real) or (spec.networks[0] if spec.networks else "bridge"),
        "PortBindings": _bindings(spec),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": int(retries or 0)},
        "Memory": spec.memory,
        "NanoCpus": None if spec.cpus is None else round(spec.cpus * _NANO),
        "PidsLimit": spec.pids,
        "LogConfig": {
            "Type": spec.log.driver,
            "Config": {"max-size": str(spec.log.max_size), "max-file": str(spec.log.max_files)},
        },
        "Init": spec.init,
        "ReadonlyRootfs": spec.read_only or None,
        "ExtraHosts": [f"{name}:{address}" for name, address in spec.extra_hosts.items()] or None,
        "Ulimits": [
            {"Name": each.name, "Soft": each.soft, "Hard": each.soft if each.hard is None else each.hard}
            for each in spec.ulimits
        ]
        or None,
        "ShmSize": spec.shm_size,
        "CapDrop": list(spec.cap_drop) or None,
    }


def _granted(spec: ContainerSpec, real: Mapping[str, str]) -> dict[str, Any]:
    """Return what the host's policy has granted."""
    options = [option for option in spec.security_opt if option != _UNMASKED]
    if spec.no_new_privileges and "no-new-privileges" not in options:
        options.append("no-new-privileges")
    unmasked: list[str] | None = [] if _UNMASKED in spec.security_opt else None
    return {
        "Privileged": spec.privileged or None,
        "CapAdd": list(spec.cap_add) or None,
        "Devices": [
            {
                "PathOnHost": real.get(each.source, each.source),
                "PathInContainer": each.path,
                "CgroupPermissions": each.permissions,
            }
            for each in spec.devices
        ]
        or None,
        "DeviceRequests": _gpus(spec),
        "PidMode": _mode(spec.pid_mode, real),
        "IpcMode": _mode(spec.ipc_mode, real),
        "UTSMode": spec.uts_mode,
        "UsernsMode": spec.userns_mode,
        "CgroupnsMode": spec.cgroupns_mode,
        "SecurityOpt": options or None,
        "MaskedPaths": unmasked,
        "ReadonlyPaths": unmasked,
        "Sysctls": dict(spec.sysctls) or None,
        "Runtime": spec.runtime,
        "CgroupParent": spec.cgroup_parent,
        "VolumesFrom": list(spec.volumes_from) or None,
    }


def _mounts(
    spec: ContainerSpec, owner: Owner, real: Mapping[str, str], secrets: str | None
) -> list[dict[str, Any]] | None:
    found = [_volume(volume, owner) for volume in spec.volumes]
    found += [_bind(real.get(bind.source, bind.source), bind.target, bind.read_only) for bind in spec.binds]
    for each in spec.tmpfs:
        options = _given({"SizeBytes": each.size, "Mode": each.mode})
        found.append({"Type": "tmpfs", "Target": each.target, "TmpfsOptions": options})
    if secrets is not None:
        found.append(_bind(secrets, SECRETS_TARGET, True))  # noqa: FBT003 - read-only
    return found or None


def _volume(volume: VolumeMount, owner: Owner) -> dict[str, Any]:
    # It has been made and looked at by now. Where it has gone meanwhile, the Engine makes a plain one, labelled so.
    return {
        "Type": "volume",
        "Source": volume.name,
        "Target": volume.target,
        "ReadOnly": volume.read_only,
        "VolumeOptions": {"Labels": owner.labels()},
    }


def _bind(source: str, target: str, read_only: bool) -> dict[str, Any]:  # noqa: FBT001 - from one field to the other
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _bindings(spec: ContainerSpec) -> dict[str, list[dict[str, str]]] | None:
    found: dict[str, list[dict[str, str]]] = {}
    for port in spec.ports:
        host = {"HostIp": port.host_ip or "", "HostPort": str(port.host_port or "")}
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(host)
    return found or None


def _health(check: HealthCheck) -> dict[str, Any]:
    if check.disabled:
        return {"Test": ["NONE"]}
    return _given(
        {
            "Test": _list(check.test),
            "Interval": _nanoseconds(check.interval),
            "Timeout": _nanoseconds(check.timeout),
            "StartPeriod": _nanoseconds(check.start_period),
            "Retries": check.retries,
        }
    )


def _gpus(spec: ContainerSpec) -> list[dict[str, Any]] | None:
    if not spec.gpus:
        return None
    which = {"Count": -1} if spec.gpus == "all" else {"DeviceIDs": list(spec.gpus)}
    return [{"Capabilities": [["gpu"]], **which}]


def _mode(mode: str | None, real: Mapping[str, str]) -> str | None:
    return None if mode is None else real.get(mode, mode)


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _NANO)


def _list(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
