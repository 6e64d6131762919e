"""Artifacts: which files there are for a deployment, and what each template is told.

The templates lie in `config/generate/`. Both roles of a file differ in more than a few words, so each has its own.
"""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import jinja2

from fleet import services, version
from fleet.generate import escaping, pins, wheel
from fleet.generate.deployment import Deployment, Kind, Role

#: Where state lies, in containers and under systemd.
STATE_DIR = "/var/lib/fleet"
#: Where a unit's secrets lie.
_SECRETS = "/etc/fleet"


def render(kinds: Collection[Kind], deployment: Deployment) -> Mapping[str, bytes]:
    """Return name below the output directory → content; raise `errors.InvalidValue` and `errors.LocalFault`."""
    files: dict[str, bytes] = {}
    role = deployment.role.value
    if Kind.REQUIREMENTS in kinds:
        name, content = wheel.pack()
        files["requirements.txt"] = _filled("requirements.txt", deployment, pins=pins.resolve())
        files[f"wheels/{name}"] = content
    if Kind.DOCKERFILE in kinds:
        files["Dockerfile"] = _filled(f"{role}.Dockerfile", deployment)
        files[".dockerignore"] = _filled("dockerignore", deployment)
    if Kind.COMPOSE in kinds:
        deployment.require_host_id("compose file")
        files["compose.yaml"] = _filled(f"{role}.compose.yaml", deployment)
    if Kind.SYSTEMD in kinds:
        deployment.require_host_id("unit")
        service = "fleet-worker" if deployment.role is Role.HOST else "fleet-control"
        files[f"{service}.service"] = _filled(f"{role}.service", deployment)
    return files


def _filled(template: str, deployment: Deployment, **more: object) -> bytes:
    path = services.config_file(f"generate/{template}.j2")
    text = _environment(path.parent).get_template(path.name).render(_told(deployment), **more)
    return text.encode()


def _told(deployment: Deployment) -> dict[str, object]:
    return {
        "host_id": deployment.host_id,
        "broker_url": deployment.broker_url,
        "listed": deployment.listed,
        "own_ca": deployment.own_ca,
        "executable": deployment.executable,
        "image": deployment.image,
        "version": version.current(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "state_dir": STATE_DIR,
        "secrets": _SECRETS,
    }


def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; `only_escaped` lets nothing in that no filter has passed
        finalize=escaping.only_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(escaping.FILTERS)
    return environment
