"""Other people's words for what a spec says: the Engine's, Compose's, docker-py's and those of `docker run`.

A spec takes none of them, so that there is one place to look for what a container may do. Whoever writes one is told
Fleet's, or that Fleet has none.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from fleet import errors

#: Fields that are about the host's grant; the hint says so.
_GRANTED = frozenset(
    {
        "binds",
        "cap_add",
        "cgroup_parent",
        "cgroupns_mode",
        "devices",
        "gpus",
        "ipc_mode",
        "network_mode",
        "pid_mode",
        "privileged",
        "runtime",
        "security_opt",
        "sysctls",
        "userns_mode",
        "uts_mode",
        "volumes_from",
    }
)
#: Words without their capitals, hyphens and underscores → Fleet's field.
_CALLED = {
    "bind": "binds",
    "capabilities": "cap_add",
    "cgroup": "cgroupns_mode",
    "cgroupns": "cgroupns_mode",
    "cgroupnsmode": "cgroupns_mode",
    "cmd": "command",
    "containername": "name",
    "cpulimit": "cpus",
    "cpuperiod": "cpus",
    "cpuquota": "cpus",
    "device": "devices",
    "devicerequests": "gpus",
    "entrypoints": "entrypoint",
    "env": "environment",
    "gpu": "gpus",
    "healthcheck": "health_check",
    "ipc": "ipc_mode",
    "label": "labels",
    "logconfig": "log",
    "logdriver": "log",
    "logging": "log",
    "logopt": "log",
    "logopts": "log",
    "maskedpaths": "security_opt",
    "memlimit": "memory",
    "memorybytes": "memory",
    "mount": "volumes",
    "mounts": "volumes",
    "nanocpus": "cpus",
    "net": "networks",
    "network": "networks",
    "networkingconfig": "networks",
    "networkmode": "network_mode",
    "pid": "pid_mode",
    "pidslimit": "pids",
    "portbindings": "ports",
    "publish": "ports",
    "readonlypaths": "security_opt",
    "readonlyrootfs": "read_only",
    "restartpolicy": "restart",
    "secret": "secrets",
    "securityopts": "security_opt",
    "securityoptions": "security_opt",
    "stopgraceperiod": "stop_timeout",
    "sysctl": "sysctls",
    "ulimit": "ulimits",
    "userns": "userns_mode",
    "uts": "uts_mode",
    "volume": "volumes",
    "volumedriver": "volumes",
    "volumeoptions": "volumes",
    "workdir": "working_dir",
}
#: Two that name the same thing as a field of the spec, in a form that has no field of its own.
_FORMS = {
    "maskedpaths": "systempaths=unconfined",
    "readonlypaths": "systempaths=unconfined",
    "volumedriver": "driver of each volume",
    "volumeoptions": "driver_options of each volume",
    "mounts": "and `binds`, `tmpfs`",
    "mount": "and `binds`, `tmpfs`",
}
#: So many of the fields in a box are named in an error.
_MOST_NAMED = 20
#: What the Engine's API has its fields in; a spec has no such boxes.
_BOXES = ("hostconfig", "networkingconfig", "config")


def about(word: str, value: Any, fields: list[str]) -> str:
    """Say how a spec writes what somebody called `word`, or what lies in it."""
    if _plain(word) in _BOXES:
        inside = value if isinstance(value, Mapping) else {}
        listed = "".join(f"; {name}: {_about(str(name), fields)}" for name in islice(inside, _MOST_NAMED))
        return f"a spec is flat, and has words of its own{listed}"
    return _about(word, fields)


def _about(word: str, fields: list[str]) -> str:
    plain = _plain(word)
    for box in _BOXES:
        plain = plain.removeprefix(box) or plain
    ours = _CALLED.get(plain) or {_plain(field): field for field in fields}.get(plain)
    if ours is None:
        return errors.did_you_mean(word, fields) or "a spec cannot ask for that"
    form = f" ({_FORMS[plain]})" if plain in _FORMS else ""
    granted = ", which takes the grant of the host's policy" if ours in _GRANTED else ""
    return f"Fleet's word is `{ours}`{form}{granted}"


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())
