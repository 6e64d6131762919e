"""Contracts about images, and the form in which one is listed.

A pull tells how far it is in its run's output, as entries of the kind "pull" (`PullEntry`).
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from fleet.contracts.container_parts import spelled
from fleet.contracts.contract import Contract, Reply, Request, Restart, Risk

# The grammar of distribution (reference/regexp.go), all of it: the name becomes a path of the Engine's API.
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}"
_DIGEST = r"[a-zA-Z][a-zA-Z0-9]*(?:[-_+.][a-zA-Z][a-zA-Z0-9]*)*:[0-9a-fA-F]{32,}"
#: What an image is called: [registry/]repository[:tag][@digest], or (a prefix of) its id, which has the form of a name.
ImageRef = Annotated[
    str,
    spelled(
        rf"(?!.{{513}})(?:{_REGISTRY}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::{_TAG})?(?:@{_DIGEST})?",
        "image: write [registry/]repository[:tag][@digest], such as registry.example/shop/web:1.2",
    ),
]
#: os[/architecture[/variant]], as `docker pull --platform` takes it.
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(/[a-z0-9_.]+){0,2}$", max_length=64)]


class PullPolicy(StrEnum):
    """When an image is pulled for a container that is to be made of it."""

    #: where it is not there
    MISSING = "missing"
    #: each time; its tag may be another image's now
    ALWAYS = "always"
    #: not at all; it has to be there
    NEVER = "never"


class ListImages(Request):
    pass


class Image(Reply):
    """One image of a host."""

    #: "sha256:" and 64 hexadecimal digits
    id: str
    #: repository:tag, none for an image that only containers or other images use
    tags: tuple[str, ...] = ()
    #: repository@digest, by which others can pull the same image
    digests: tuple[str, ...] = ()
    size_bytes: int
    created: datetime


class Images(Reply):
    images: tuple[Image, ...]


class PullImage(Request):
    image: ImageRef = Field(description="what to pull; the tag is `latest` where none is given")
    platform: Platform | None = Field(None, description="such as linux/arm64; the host's own where none is given")


class Layer(Reply):
    """How far one layer of an image is."""

    id: str
    #: waiting, downloading, downloaded, extracting, done, or there (before the pull)
    state: str
    #: bytes downloaded or extracted, and of how many; None where the registry has not said
    current: int | None = None
    total: int | None = None


class PullEntry(Reply):
    """How far a pull is, as an entry of the output."""

    percent: float
    layers: tuple[Layer, ...] = ()


class ImagePulled(Reply):
    id: str
    #: repository@digest of what was pulled; None for a registry that tells none
    digest: str | None = None
    size_bytes: int
    #: whether it was not there before, in this form
    changed: bool


class RemoveImage(Request):
    image: ImageRef = Field(description="name or id of the image")
    force: bool = Field(default=False, description="also where it has several names, or stopped containers use it")


class ImageRemoved(Reply):
    #: names that the image has no longer
    untagged: tuple[str, ...] = ()
    #: ids of what is gone from the disk
    deleted: tuple[str, ...] = ()


LIST = Contract(
    name="fleet.images.list",
    summary="List the host's images.",
    request=ListImages,
    reply=Images,
    risk=Risk.READS,
    idempotent=True,
)
PULL = Contract(
    name="fleet.images.pull",
    summary="Pull an image.",
    request=PullImage,
    reply=ImagePulled,
    risk=Risk.CHANGES,
    # Pulled once more it goes on with the layers that are there, and ends with the same image.
    idempotent=True,
    limit=timedelta(hours=6),
    attached=True,
)
REMOVE = Contract(
    name="fleet.images.remove",
    summary="Remove an image.",
    request=RemoveImage,
    reply=ImageRemoved,
    risk=Risk.DESTROYS,
    idempotent=False,
    on_restart=Restart.RECONCILE,
)
ALL = (LIST, PULL, REMOVE)
