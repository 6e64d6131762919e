"""Images: having the one that a container is made of."""

import json
import time
from typing import Any, Literal

import docker.errors
import requests

from fleet import errors
from fleet.contracts import RunContext
from workers.host.containers.engine import Engine

#: A registry that sends nothing for so long is away; and how long a pull may take.
_SILENCE_SECONDS = 60.0
_PULL_SECONDS = 3600.0


def ensure(engine: Engine, image: str, policy: Literal["missing", "always", "never"], run: RunContext) -> None:
    """Have an image on the host, by a pull policy.

    Raises `errors.EngineRefused` of kind `no_such_image` where there is none, or `pull_failed`.
    """
    if policy != "always":
        try:
            engine.ask("GET", f"/images/{image}/json", about=f"image {image!r}", kinds={404: "no_such_image"})
        except errors.EngineRefused as exc:
            if exc.kind != "no_such_image" or policy == "never":
                raise
        else:
            return
    run.progress("pulling", 0)
    _pull(engine, image)


def _pull(engine: Engine, image: str) -> None:
    api = engine.docker.api
    name, tag = image, ""
    if "@" not in image and ":" not in image.rpartition("/")[2]:
        tag = "latest"
    ends = time.monotonic() + _PULL_SECONDS
    try:
        response = api.post(
            f"{api.base_url}/v{api.api_version}/images/create",
            params={"fromImage": name, "tag": tag},
            stream=True,
            timeout=_SILENCE_SECONDS,
        )
        with response:
            if response.status_code != 200:
                raise _failed(image, response.json().get("message", ""), missing=response.status_code == 404)
            for line in response.iter_lines():
                said: dict[str, Any] = json.loads(line) if line else {}
                if "error" in said:
                    raise _failed(image, said["error"], missing=False)
                if time.monotonic() > ends:
                    raise _failed(image, f"not done after {_PULL_SECONDS:.0f} s", missing=False)
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as exc:
        raise _failed(image, str(exc), missing=False) from exc


def _failed(image: str, said: str, *, missing: bool) -> errors.EngineRefused:
    kind = "no_such_image" if missing else "pull_failed"
    remedy = "is its name spelled right, and may this host pull it? `docker login` on the host lets it into a registry"
    return errors.EngineRefused(f"image {image!r}: {said}", kind=kind, remedy=remedy)
