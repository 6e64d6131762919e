"""Images of this host: listed, pulled with progress, removed.

A pull lasts as long as its connection: closing that ends it, and what was downloaded whole is kept for the next one.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import docker.auth
import docker.errors
from docker.utils import parse_repository_tag

from fleet import errors, logs
from fleet.contracts.images import Image, ImagePulled, ImageRemoved, PullEntry, PullPolicy
from workers.host.containers import calls, refusals
from workers.host.containers.engine import Engine
from workers.host.containers.layers import Layers
from workers.host.streams import StreamedRun

log = logs.get(__name__)

#: The Engine tells of a pull several times a second, except while it checks or unpacks a large layer.
PULL_SILENCE_SECONDS = 300.0
#: Removing many layers takes a slow disk its time.
_REMOVAL_SECONDS = 120.0
#: How often progress is told, in seconds.
_TELL_SECONDS = 0.5
#: Steps in percent that go on record; all of them are in the output.
_RECORD_PERCENT = 10


def everything(engine: Engine) -> tuple[Image, ...]:
    """Return all images but those that only other images are made of."""
    with engine.asking() as api:
        return tuple(_listed(summary) for summary in api.images())


def find(engine: Engine, image: str) -> dict[str, Any] | None:
    """Return what the Engine knows of an image, by name or id; None where it is not there."""
    try:
        with engine.asking(image=image) as api:
            details: dict[str, Any] = api.inspect_image(image)
            return details
    except errors.EngineRefused as exc:
        if exc.kind != "no_such_image":
            raise
        return None


def ensure(engine: Engine, image: str, policy: PullPolicy, run: StreamedRun) -> str:
    """Have an image there, by that policy, and return its id; raises as `pull` does."""
    found = None if policy is PullPolicy.ALWAYS else find(engine, image)
    if found is not None:
        return str(found["Id"])
    if policy is PullPolicy.NEVER:
        raise errors.EngineRefused(
            f"image {image!r}: it is not on this host, and is not to be pulled",
            kind="no_such_image",
            remedy=f"`fleet image pull {image}` pulls it",
        )
    return pull(engine, image, run=run).id


def pull(engine: Engine, image: str, *, run: StreamedRun, platform: str | None = None) -> ImagePulled:
    """Pull an image, telling how far it is.

    Raises `errors.EngineRefused` of kind `no_such_image`, `no_such_platform`, `unauthorized`, `registry_unreachable`,
    `registry_untrusted`, `no_space` and others, `errors.EngineUnavailable`.
    """
    before = find(engine, image)
    repository, tag = parse_repository_tag(image)
    answer = engine.open(
        "POST",
        "/images/create",
        params={
            "fromImage": repository,
            "tag": tag or "latest",  # without one, the Engine pulls all there are
            **({"platform": platform} if platform else {}),
        },
        headers=_login(engine, repository),
        silence_seconds=PULL_SILENCE_SECONDS,
        image=image,
    )
    with run.interruptible(answer.close):
        _tell_progress(_events(answer), image, run)
    if run.ended():
        raise errors.TaskCancelled(f"the pull of {image} was ended")
    details = find(engine, image)
    if details is None:
        raise errors.EngineRefused(f"image {image!r}: it was removed while it was pulled", kind="no_such_image")
    return ImagePulled(
        id=details["Id"],
        digest=_digest(details, repository),
        size_bytes=details["Size"],
        changed=before is None or before["Id"] != details["Id"],
    )


def remove(engine: Engine, image: str, *, force: bool) -> ImageRemoved:
    """Remove an image, or this name of it; raises `errors.EngineRefused` of kind `no_such_image`, `image_in_use`."""
    path = f"/images/{calls.image_part(image)}"
    answer = engine.open("DELETE", path, params={"force": int(force)}, silence_seconds=_REMOVAL_SECONDS, image=image)
    removed = json.loads(b"".join(answer)) or []
    return ImageRemoved(
        untagged=tuple(each["Untagged"] for each in removed if "Untagged" in each),
        deleted=tuple(each["Deleted"] for each in removed if "Deleted" in each),
    )


def _tell_progress(events: Iterable[Mapping[str, Any]], image: str, run: StreamedRun) -> None:
    layers, told_at, recorded = Layers(), float("-inf"), 0

    def tell() -> None:
        run.write("pull", PullEntry(percent=layers.percent, layers=layers.all).model_dump(mode="json"))

    for event in events:
        if said := event.get("error"):
            raise refusals.about_image(image, str(said))
        changed = layers.hear(event)
        if not layers.all or (not changed and time.monotonic() - told_at < _TELL_SECONDS):
            continue
        told_at = time.monotonic()
        tell()
        if layers.percent // _RECORD_PERCENT > recorded:
            recorded = int(layers.percent // _RECORD_PERCENT)
            run.progress("pulling", layers.percent)
    if not run.ended():
        layers.finish()
        tell()


def _events(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield the Engine's messages, a JSON object a line."""
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _login(engine: Engine, repository: str) -> dict[str, str]:
    """Return what the Engine logs in at the registry by: as whom `docker login` did on this host, if it did."""
    try:
        registry, _ = docker.auth.resolve_repository_name(repository)
    except docker.errors.DockerException as exc:
        raise errors.EngineRefused(
            f"image {repository!r}: {exc}", kind="bad_request", remedy=refusals.IMAGE_REMEDIES["bad_request"]
        ) from exc
    with engine.asking() as api:
        try:
            header = docker.auth.get_config_header(api, registry)
        except docker.errors.DockerException as exc:  # the helper that keeps the password is missing, say
            log.warning("login.unreadable", registry=registry, error=str(exc), next="it is pulled without a login")
            header = None
    return {"X-Registry-Auth": header.decode()} if header else {}


def _digest(details: Mapping[str, Any], repository: str) -> str | None:
    digests: list[str] = details.get("RepoDigests") or []
    own = [digest for digest in digests if digest.partition("@")[0].endswith(repository)]
    return next(iter(own or digests), None)


def _listed(summary: Mapping[str, Any]) -> Image:
    return Image(
        id=summary["Id"],
        tags=_named(summary.get("RepoTags")),
        digests=_named(summary.get("RepoDigests")),
        size_bytes=summary["Size"],
        created=datetime.fromtimestamp(summary["Created"], UTC),
    )


def _named(names: list[str] | None) -> tuple[str, ...]:
    return tuple(name for name in names or () if not name.startswith("<none>"))
