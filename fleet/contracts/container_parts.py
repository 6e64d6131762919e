"""Parts of a container's spec: what it publishes, mounts and logs, how it is checked and limited.

Each refuses fields that it does not know, and values that the Engine would take for something else than they say.
"""

import ipaddress
import posixpath
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from fleet.contracts.contract import Request
from fleet.contracts.quantities import Bytes, Seconds

#: What most lists and tables of a spec may hold.
MOST = 256
#: Where a container's secrets lie.
SECRETS_TARGET = "/run/secrets"


def spelled(pattern: str, what: str) -> AfterValidator:
    """Return the check for a text of that pattern; any other is said to be no `what`."""
    wanted = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not wanted.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is no {what}")
        return value

    return AfterValidator(check)


def _printable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("holds a NUL character, which no program can be given")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is no IP address, such as 127.0.0.1 or ::1") from None


def _target(value: str) -> str:
    plain = posixpath.normpath(value)
    if not value.startswith("/") or "\x00" in value or ".." in value.split("/") or plain.strip("/") == "":
        raise ValueError(f"{value!r} is no place in a container; write an absolute path without '..', and not / itself")
    return f"/{plain.lstrip('/')}"


def _source(value: str) -> str:
    if not value.startswith("/") or "\x00" in value:
        raise ValueError(f"{value!r} is no absolute path of the host; for a named volume use `volumes`")
    return value


def _test(value: Any) -> Any:
    """Take a bare string for a command line of the container's shell, as Compose does."""
    return ("CMD-SHELL", value) if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_printable)]
#: Of a network, or in a table of hosts.
Name = Annotated[str, spelled(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", "name: use letters, digits, '_', '.' and '-'")]
#: The same as a container's (moby, daemon/names/names.go).
VolumeName = Annotated[
    str, spelled(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}", "name: use 2 to 128 letters, digits, '_', '.' and '-'")
]
#: A path in the container.
Target = Annotated[str, AfterValidator(_target)]
#: A path on the host, or of one of its devices.
Source = Annotated[str, AfterValidator(_source)]
IPAddress = Annotated[str, AfterValidator(_address)]


class PublishedPort(Request):
    """A port of the container that the host listens on for it."""

    container_port: int = Field(ge=1, le=65_535)
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: IPAddress | None = Field(None, description="address of the host to listen on; all of them by default")
    host_port: int | None = Field(None, ge=1, le=65_535, description="one that is free where it is not said")


class VolumeMount(Request):
    """A named volume, which is made where there is none of that name."""

    name: VolumeName
    target: Target
    read_only: bool = False
    driver: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}$")] | None = Field(
        None, description="volume driver; another than `local` takes the host's grant"
    )
    driver_options: dict[Text, Text] = Field(default_factory=dict, max_length=MOST, description="take the host's grant")


class BindMount(Request):
    """A directory or file of the host. Takes the host's grant."""

    source: Source
    target: Target
    read_only: bool = False


class TmpfsMount(Request):
    """A file system in memory, which is empty at each start."""

    target: Target
    size: Bytes | None = Field(None, ge=4096, description="most bytes that it holds; half of the memory by default")
    mode: int = Field(0o1777, ge=0, le=0o1777)


class Device(Request):
    """A device of the host. Takes the host's grant."""

    source: Source
    target: Target | None = Field(None, description="its path in the container; the same where it is not said")
    permissions: Annotated[str, StringConstraints(pattern=r"^(rw?m?|wm?|m)$")] = "rwm"

    @property
    def path(self) -> str:
        return self.target or self.source


class HealthCheck(Request):
    """How the Engine finds out whether the container is well; what is not said is as in the image."""

    test: Annotated[tuple[Text, ...], BeforeValidator(_test)] | None = Field(
        None, max_length=MOST, description='["CMD", ARGV…], ["CMD-SHELL", LINE] or a line for the shell'
    )
    interval: Seconds | None = Field(None, ge=0.001, le=86_400)
    timeout: Seconds | None = Field(None, ge=0.001, le=86_400)
    start_period: Seconds | None = Field(None, ge=0.001, le=86_400)
    retries: int | None = Field(None, ge=1, le=1_000)
    disabled: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> "HealthCheck":
        if self.disabled and self.model_fields_set - {"disabled"}:
            raise ValueError("a disabled health check takes nothing else")
        if self.test is not None and (
            self.test[:1] not in {("CMD",), ("CMD-SHELL",)}
            or len(self.test) < 2
            or (self.test[0] == "CMD-SHELL" and len(self.test) != 2)
        ):
            raise ValueError('test: write ["CMD", ARGV…], ["CMD-SHELL", LINE], or disabled: true')
        return self


class LogLimits(Request):
    """What is kept of the container's output."""

    driver: Literal["json-file", "local"] = "json-file"
    max_size: Bytes = Field(10 * 1024**2, ge=1024, le=1024**4, description="bytes of one file")
    max_files: int = Field(3, ge=1, le=1_000)


class Ulimit(Request):
    """One of the limits that setrlimit(2) sets; -1 for none."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]{1,16}$")]
    soft: int = Field(ge=-1, le=2**63 - 1)
    hard: int | None = Field(None, ge=-1, le=2**63 - 1, description="the same as the soft one where it is not said")


def check_targets(targets: list[str], *, with_secrets: bool) -> None:
    """Raise ValueError where two things would be mounted at one place of the container."""
    taken = [*targets, *([SECRETS_TARGET] if with_secrets else [])]
    twice = sorted({target for target in taken if taken.count(target) > 1})
    if twice:
        raise ValueError(f"mounts more than one thing at {', '.join(twice)}")
    below = [target for target in targets if with_secrets and target.startswith(f"{SECRETS_TARGET}/")]
    if below:
        raise ValueError(f"mounts something at {below[0]}, where the secrets lie; take another place")


def capability(name: str) -> str:
    """Return a capability's name as Docker's documents have it: upper case, without CAP_."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,40}", name, re.ASCII):
        raise ValueError(f"{name!r} is no capability, such as NET_ADMIN")
    return name.upper().removeprefix("CAP_")


def security_option(option: str) -> str:
    """Return a security option in today's form, KEY=VALUE: the Engine takes KEY:VALUE as well."""
    plain = re.sub(r"^(seccomp|apparmor|label|systempaths|no-new-privileges|writable-cgroups):", r"\1=", option)
    return "no-new-privileges" if plain == "no-new-privileges=true" else plain


Capability = Annotated[str, AfterValidator(capability)]
SecurityOption = Annotated[Text, AfterValidator(security_option)]
