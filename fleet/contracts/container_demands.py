"""Demands: what in a container's spec gives it power over the host, and the line of the host's policy that grants it.

This is what the words of a spec say. What they lead to on a host (links, a volume that was made before) is looked into
there, by `workers.host.containers.grants`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from fleet.contracts.container_spec import ContainerSpec

#: Capabilities that the Engine gives every container (moby, oci/caps/defaults.go); asking for one changes nothing.
DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
#: Kernel settings that reach no further than the container (Kubernetes, "Using sysctls": the safe set).
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
    }
)
#: Options that only take power away.
_SAFE_OPTIONS = frozenset({"no-new-privileges"})
#: Kinds of namespaces of which the host's or another container's may be asked for.
NAMESPACES = ("network", "pid", "ipc", "uts", "userns", "cgroupns")
#: Modes of namespaces that are the container's own.
_OWN_MODES = frozenset({"none", "private", "shareable"})
#: The policy's word for graphics processors, among its `devices`.
GPUS = "gpus"


@dataclass(frozen=True)
class Demand:
    """One thing that takes a grant."""

    #: where it stands in the spec, such as "binds.0"
    field: str
    #: the policy's key, such as "binds", and what it must have for this
    key: str
    value: str
    #: of a bind: whether reading is enough
    read_only: bool = False

    @property
    def entry(self) -> str:
        """The line of the policy file that grants it."""
        if self.key == "privileged":
            return "privileged = true"
        quoted = json.dumps(self.value, ensure_ascii=False)
        if self.key == "binds":
            return f"binds = [{{ source = {quoted}{', read_only = true' if self.read_only else ''} }}]"
        return f"{self.key} = [{quoted}]"


def demands(spec: ContainerSpec) -> tuple[Demand, ...]:
    """Return everything in a spec that takes a grant; `entry` of each says which."""
    return (*_of_kernel(spec), *_of_files(spec), *_of_namespaces(spec), *_of_words(spec))


def _of_kernel(spec: ContainerSpec) -> Iterator[Demand]:
    if spec.privileged:
        yield Demand("privileged", "privileged", "true")
    for place, name in enumerate(spec.cap_add):
        if name not in DEFAULT_CAPABILITIES:
            yield Demand(f"cap_add.{place}", "capabilities", name)
    for place, option in enumerate(spec.security_opt):
        if option not in _SAFE_OPTIONS:
            yield Demand(f"security_opt.{place}", "security_opt", option)
    for name in spec.sysctls:
        if name not in SAFE_SYSCTLS:
            yield Demand(f"sysctls.{name}", "sysctls", name)


def _of_files(spec: ContainerSpec) -> Iterator[Demand]:
    for place, bind in enumerate(spec.binds):
        yield Demand(f"binds.{place}", "binds", bind.source, read_only=bind.read_only)
    for place, volume in enumerate(spec.volumes):
        if volume.driver_options or volume.driver not in {None, "local"}:
            yield Demand(f"volumes.{place}", "volume_drivers", volume.driver or "local")
    for place, device in enumerate(spec.devices):
        yield Demand(f"devices.{place}", "devices", device.source)
    if spec.gpus:
        yield Demand("gpus", "devices", GPUS)


def _of_namespaces(spec: ContainerSpec) -> Iterator[Demand]:
    for kind in NAMESPACES:
        mode = getattr(spec, f"{kind}_mode")
        if mode is not None and mode not in _OWN_MODES:
            yield Demand(f"{kind}_mode", "namespaces", f"{kind}:{mode}")


def _of_words(spec: ContainerSpec) -> Iterator[Demand]:
    if spec.runtime is not None:
        yield Demand("runtime", "runtimes", spec.runtime)
    if spec.cgroup_parent is not None:
        yield Demand("cgroup_parent", "cgroup_parents", spec.cgroup_parent)
    for place, source in enumerate(spec.volumes_from):
        yield Demand(f"volumes_from.{place}", "volumes_from", source.partition(":")[0])
