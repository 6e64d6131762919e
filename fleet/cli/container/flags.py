"""Flags: a container's spec from the flags that people know from `docker run`, from a file, or from both.

Flags lie over the file: what is said twice counts as the flag says it, lists and tables are added to.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from fleet import errors
from fleet.cli import types
from fleet.cli.types import PAIR

#: Options of one value: flag, field of the spec, what it says.
_VALUES = (
    ("--name", "name", "Its name; found for it where none is said."),
    ("--restart", "restart", "no, always, unless-stopped, or on-failure[:TIMES]."),
    ("--user", "user", "User, and group, that it runs as: NAME|UID[:GROUP|GID]."),
    ("--workdir", "working_dir", "Its working directory."),
    ("--memory", "memory", "Most memory, such as 512m."),
    ("--cpus", "cpus", "Most processors, such as 1.5."),
    ("--pids-limit", "pids", "Most processes."),
    ("--stop-signal", "stop_signal", "Signal that asks it to stop."),
    ("--stop-timeout", "stop_timeout", "Time that it has to stop in, such as 30s."),
    ("--hostname", "hostname", "Its host name."),
    ("--shm-size", "shm_size", "Size of /dev/shm."),
    ("--ipc", "ipc_mode", "IPC namespace; the host's or another's takes the host's grant."),
    ("--pid", "pid_mode", "PID namespace; takes the host's grant."),
    ("--uts", "uts_mode", "UTS namespace; takes the host's grant."),
    ("--userns", "userns_mode", "User namespace; takes the host's grant."),
    ("--cgroupns", "cgroupns_mode", "Cgroup namespace; the host's takes the host's grant."),
    ("--runtime", "runtime", "Runtime; takes the host's grant."),
    ("--cgroup-parent", "cgroup_parent", "Parent cgroup; takes the host's grant."),
)
#: Options that may be repeated, and become a list.
_LISTS = (
    ("--cap-drop", "cap_drop", "Capability that it does not get."),
    ("--cap-add", "cap_add", "Capability beyond the usual ones; takes the host's grant."),
    ("--security-opt", "security_opt", "Security option; takes the host's grant."),
    ("--volumes-from", "volumes_from", "Container whose mounts it gets, too; takes the host's grant."),
)
_SWITCHES = (
    ("--init", "init", "Run a small process 1 that ends zombies."),
    ("--read-only", "read_only", "Mount its root file system read-only."),
    ("--privileged", "privileged", "Power over the whole host; takes the host's grant."),
)
_HEALTH = (
    ("--health-cmd", "test", "Command line that says whether it is well."),
    ("--health-interval", "interval", "Time between two checks."),
    ("--health-timeout", "timeout", "Time that a check may take."),
    ("--health-start-period", "start_period", "Time before a failed check counts."),
    ("--health-retries", "retries", "Failed checks until it is unhealthy."),
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every flag of a spec; they come as `given`, for `spec`."""
    made = [
        click.option("-f", "--file", "file", metavar="FILE", help="Spec as YAML or JSON; - is the standard input."),
        click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Variable of its environment."),
        click.option("--env-file", type=click.Path(path_type=Path), multiple=True, help="File of NAME=VALUE lines."),
        click.option("--label", type=PAIR, multiple=True, help="Label of the container."),
        click.option("-p", "--publish", multiple=True, metavar="[[IP:]HOST:]PORT[/PROTO]", help="Publish a port."),
        click.option("-v", "--volume", multiple=True, metavar="NAME:PATH[:ro]", help="Mount a named volume."),
        click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount a file system in memory."),
        click.option("--network", multiple=True, metavar="NETWORK", help="Network, `none`, or a mode."),
        click.option("--secret", multiple=True, metavar="NAME[:FILE]", help="Secret, as /run/secrets/FILE."),
        click.option("--entrypoint", metavar="PROGRAM", help="Program instead of the image's."),
        click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="Line of /etc/hosts."),
        click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit of a resource."),
        click.option("--device", multiple=True, metavar="PATH[:PATH[:rwm]]", help="Device; takes the host's grant."),
        click.option("--gpus", metavar="all|ID,...", help="GPUs; takes the host's grant."),
        click.option("--sysctl", type=PAIR, multiple=True, help="Kernel setting; may take the host's grant."),
        click.option("--log-driver", metavar="json-file|local", help="What keeps its output."),
        click.option("--log-opt", type=PAIR, multiple=True, help="max-size=SIZE or max-file=COUNT."),
        click.option("--no-healthcheck", is_flag=True, help="Run no health check, also not the image's."),
    ]
    made += [click.option(flag, field, metavar="TEXT", help=said) for flag, field, said in _VALUES]
    made += [click.option(flag, f"health_{field}", metavar="TEXT", help=said) for flag, field, said in _HEALTH]
    made += [click.option(flag, field, multiple=True, metavar="TEXT", help=said) for flag, field, said in _LISTS]
    made += [click.option(flag, field, is_flag=True, help=said) for flag, field, said in _SWITCHES]
    for option in reversed(made):
        command = option(command)
    return command


def spec(image: str | None, words: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the spec that flags, file, image and command line say.

    Raises `click.UsageError` that names the flag; what the fields mean is checked where the contract is.
    """
    found = _file(given["file"]) if given["file"] else {}
    if image:
        found["image"] = image
    if "image" not in found:
        raise click.UsageError("no image; name one, or a file that does (-f)")
    if words:
        found["command"] = list(words)
    if given["entrypoint"] is not None:
        found["entrypoint"] = [given["entrypoint"]] if given["entrypoint"] else []
    for _flag, field, _said in _VALUES:
        if given[field] is not None:
            found[field] = _number(given[field]) if field in {"cpus", "pids"} else given[field]
    for _flag, field, _said in _LISTS:
        _extend(found, field, list(given[field]))
    for _flag, field, _said in _SWITCHES:
        if given[field]:
            found[field] = True
    _lay(found, "environment", _environment(given))
    _lay(found, "labels", types.unique(given["label"], option="--label"))
    _lay(found, "sysctls", types.unique(given["sysctl"], option="--sysctl"))
    _lay(found, "extra_hosts", dict(_split(each, ":", "--add-host", "NAME:ADDRESS") for each in given["add_host"]))
    _extend(found, "ports", [_port(each) for each in given["publish"]])
    for each in given["volume"]:
        kind, mount = _volume(each)
        _extend(found, kind, [mount])
    _extend(found, "tmpfs", [_tmpfs(each) for each in given["tmpfs"]])
    _extend(found, "secrets", [_secret(each) for each in given["secret"]])
    _extend(found, "ulimits", [_ulimit(each) for each in given["ulimit"]])
    _extend(found, "devices", [_device(each) for each in given["device"]])
    _networks(found, given["network"])
    if given["gpus"]:
        found["gpus"] = "all" if given["gpus"] == "all" else given["gpus"].split(",")
    _lay(found, "log", _log(given))
    _lay(found, "health_check", _health(given))
    return found


def _file(name: str) -> dict[str, Any]:
    import yaml

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        found = yaml.safe_load(text)  # of which JSON is a part
    except OSError as exc:
        raise click.UsageError(f"-f {name}: cannot be read ({exc.strerror})") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"-f {name}: is neither YAML nor JSON ({' '.join(str(exc).split())})") from exc
    if not isinstance(found, dict):
        raise click.UsageError(f"-f {name}: holds no fields of a container; write `image: …` and so on")
    return found


def _extend(found: dict[str, Any], field: str, more: list[Any]) -> None:
    if more:
        found[field] = [*(found.get(field) or ()), *more]


def _lay(found: dict[str, Any], field: str, over: Mapping[str, Any]) -> None:
    if over:
        found[field] = {**(found.get(field) or {}), **over}


def _environment(given: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in given["env_file"]:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise click.UsageError(f"--env-file {path}: cannot be read ({exc})") from exc
        pairs = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        found.update(_split(pair, "=", f"--env-file {path}", "NAME=VALUE") for pair in pairs)
    found.update(
        _split(each, "=", "-e", "NAME=VALUE; Fleet passes nothing of this machine's on") for each in given["env"]
    )
    return found


def _split(text: str, mark: str, flag: str, form: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or not before or any(map(str.isspace, before)):
        raise click.UsageError(f"{flag} {text!r}: write {form}")
    return before, after


def _whole(text: str, flag: str, of: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise click.UsageError(f"{flag} {of!r}: {text!r} is no number")
    return int(text)


def _number(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text  # the contract says what is wrong with it


def _port(text: str) -> dict[str, Any]:
    """Read `80`, `8080:80`, `127.0.0.1:8080:80/udp`, `[::1]:8080:80`, `127.0.0.1::80`."""
    ports, _, protocol = text.partition("/")
    rest, _, container = ports.rpartition(":")
    address, _, host = rest.rpartition(":")
    found: dict[str, Any] = {"container_port": _whole(container, "-p", text)}
    if protocol:
        found["protocol"] = protocol
    if host:
        found["host_port"] = _whole(host, "-p", text)
    if address:
        found["host_ip"] = address.strip("[]")
    return found


def _volume(text: str) -> tuple[str, dict[str, Any]]:
    """Return the field of the spec, and the mount."""
    source, *rest = text.split(":")
    if not rest or not source or len(rest) > 2 or rest[1:] not in ([], ["ro"], ["rw"]):
        raise click.UsageError(f"-v {text!r}: write NAME:PATH, or NAME:PATH:ro")
    mount = {"target": rest[0], **({"read_only": True} if rest[1:] == ["ro"] else {})}
    if source.startswith((".", "~")):
        raise click.UsageError(f"-v {text!r}: a directory of the host is written as an absolute path")
    return ("binds", {"source": source, **mount}) if source.startswith("/") else ("volumes", {"name": source, **mount})


def _tmpfs(text: str) -> dict[str, Any]:
    target, _, options = text.partition(":")
    found: dict[str, Any] = {"target": target}
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name == "size":
            found["size"] = value
        elif name == "mode" and value and not set(value) - set("01234567"):
            found["mode"] = int(value, 8)
        else:
            raise click.UsageError(f"--tmpfs {text!r}: {option!r} is neither size=SIZE nor mode=OCTAL")
    return found


def _secret(text: str) -> dict[str, str]:
    name, _, file = text.partition(":")
    return {"name": name, "file": file} if file else {"name": name}


def _ulimit(text: str) -> dict[str, Any]:
    name, limits = _split(text, "=", "--ulimit", "NAME=SOFT[:HARD]")
    soft, _, hard = limits.partition(":")
    found: dict[str, Any] = {"name": name, "soft": _limit(soft, text)}
    return {**found, "hard": _limit(hard, text)} if hard else found


def _limit(text: str, of: str) -> int:
    return -1 if text in {"-1", "unlimited"} else _whole(text, "--ulimit", of)


def _device(text: str) -> dict[str, str]:
    return dict(zip(("source", "target", "permissions"), text.split(":", 2), strict=False))


def _networks(found: dict[str, Any], given: tuple[str, ...]) -> None:
    modes = [each for each in given if each == "host" or each.startswith("container:")]
    if modes and len(given) > 1:
        raise click.UsageError(f"--network {modes[0]}: stands alone")
    if modes:
        found["network_mode"] = modes[0]
    else:
        _extend(found, "networks", list(given))


def _log(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"driver": given["log_driver"]} if given["log_driver"] else {}
    for name, value in types.unique(given["log_opt"], option="--log-opt").items():
        if name == "max-size":
            found["max_size"] = value
        elif name == "max-file":
            found["max_files"] = _whole(value, "--log-opt", f"{name}={value}")
        else:
            raise errors.InvalidValue(
                field="--log-opt", value=name, problem="cannot be set", remedy="max-size and max-file can"
            )
    return found


def _health(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {field: given[f"health_{field}"] for _flag, field, _said in _HEALTH if given[f"health_{field}"] is not None}
    if "retries" in found:
        found["retries"] = _whole(found["retries"], "--health-retries", found["retries"])
    if given["no_healthcheck"] and found:
        raise click.UsageError("--no-healthcheck: takes no other --health- flag beside it")
    return {"disabled": True} if given["no_healthcheck"] else found
