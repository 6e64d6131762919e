"""Generate: files that run a host or the control plane, complete, for a machine that somebody else sets up.

    from fleet.generate import generate

    generate("compose", role="host", host_id="edge-7", output_dir="edge-7")

What is written holds no secret: credentials come from files that it names. Nothing that is there already is overwritten
unless that is asked for, and nothing is written where not all of it can be. What is written, the tests run.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from fleet.generate import artifacts, writing
from fleet.generate.deployment import Deployment, Kind, Role

__all__ = ["Deployment", "Kind", "Role", "generate", "render"]


def generate(
    kinds: str | Iterable[str],
    *,
    role: str,
    output_dir: str | Path,
    registry_url: str | None = None,
    host_id: str | None = None,
    registry: bool = True,
    executable: str | None = None,
    image: str | None = None,
    own_ca: bool = False,
    force: bool = False,
) -> dict[str, Path]:
    """Write the files of these kinds into a directory, which is made where it is not there; return name → path.

    `kinds` are "dockerfile", "compose", "systemd", "requirements", or "all"; a Dockerfile comes with the requirements
    that it installs, a compose file with the Dockerfile that it builds. `role` is "host" or "control". `registry_url`
    says where the broker is, with the registry in it, without a login; a host is told by its token where it is None.
    `host_id` names the machine; a host's compose file and unit need it. Without `registry` the host tells nobody that
    it is there, and nothing about that is written, the URL included. `executable` is the `fleet` that the unit starts,
    `image` how the image is called. With `own_ca` the broker's certificate is of a CA that lies beside the secrets.

    Raises `errors.InvalidValue` that names the field, `errors.Refused` where a file with another content is there and
    `force` is not set, and `errors.LocalFault` for a directory that cannot be written.
    """
    deployment = Deployment.of(
        role=role,
        registry_url=registry_url,
        host_id=host_id,
        registry=registry,
        executable=executable,
        image=image,
        own_ca=own_ca,
    )
    return writing.write(render(kinds, deployment), Path(output_dir), force=force)


def render(kinds: str | Iterable[str], deployment: Deployment) -> Mapping[str, bytes]:
    """Return what `generate` would write: name below the output directory → content.

    Raises `errors.InvalidValue`, and `errors.LocalFault` where this installation of Fleet is incomplete.
    """
    return artifacts.render(Kind.read(kinds), deployment)
