"""Refusals: what the Engine's errors mean, and what to do next; and why there is no answer at all.

Of most calls the status says it. About images it says little: the Engine answers 500 for everything that its registry,
its network or its disk refuses, and within a stream it gives a sentence alone. So those few are recognised by words in
it that are not the Engine's own: the registry protocol's (distribution, registry/api/errcode), the kernel's, and Go's
network package's.
"""

from collections.abc import Mapping

from fleet import errors

#: The kind of an Engine's refusal by its HTTP status (Docker Engine API, v1.41).
_KINDS = {
    400: "bad_request",
    403: "forbidden",
    404: "no_such_container",
    409: "conflict",
    501: "not_supported",
}
#: What the Engine says in words only, all of it with status 500: the errors of the kernel (errno(3)), and of the table
#: of ports (moby, libnetwork/portallocator).
_WORDS = {
    "no space left on device": "no_space",
    "disk quota exceeded": "no_space",
    "port is already allocated": "port_in_use",
    "address already in use": "port_in_use",
}
#: Statuses that say too little: an ambiguous id is a 500 or a 400 by the Engine's version, and a 404 may be about a
#: network that the container needs.
VAGUE = (400, 404, 500)
REMEDIES = {
    "no_such_container": "`fleet ps` shows what there is",
    "ambiguous": "give more of its id, or its name; `fleet ps` shows both",
    "no_space": "free some space on the host; `docker system df` there shows what takes it",
    "port_in_use": "`fleet ps` shows who publishes it; give another host_port, or none for one that is free",
    "name_in_use": "give another name, or have the container replaced (`--replace`, replace=true)",
    "no_such_image": "is its name spelled right, and is it on the host? pull=missing gets it from its registry",
    "no_such_network": "make it on the host (`docker network create`), or leave it out",
    "container_running": "stop it first, or remove it by force (`--force`, force=true)",
    "not_running": "`fleet ps` shows what runs",
}
#: Words of a sentence, in lower case, and the kind that they mean; the first that fits counts.
_IMAGE_WORDS = (
    ("no space left on device", "no_space"),
    ("disk quota exceeded", "no_space"),
    # the registry: who asks has to say who they are. Docker Hub says it of what does not exist, too
    ("unauthorized", "unauthorized"),
    ("authentication required", "unauthorized"),
    ("no basic auth credentials", "unauthorized"),
    ("access denied", "unauthorized"),
    ("denied: ", "unauthorized"),
    ("toomanyrequests", "too_many_requests"),
    ("manifest unknown", "no_such_image"),
    ("name unknown", "no_such_image"),
    ("no matching manifest", "no_such_platform"),
    ("does not match the specified platform", "no_such_platform"),
    ("connection refused", "registry_unreachable"),
    ("connection reset", "registry_unreachable"),
    ("no such host", "registry_unreachable"),
    ("i/o timeout", "registry_unreachable"),
    ("tls handshake timeout", "registry_unreachable"),
    ("network is unreachable", "registry_unreachable"),
    ("no route to host", "registry_unreachable"),
    ("server misbehaving", "registry_unreachable"),
    ("deadline exceeded", "registry_unreachable"),
    ("client.timeout", "registry_unreachable"),
    ("unexpected eof", "registry_unreachable"),
    (": eof", "registry_unreachable"),
    ("x509: ", "registry_untrusted"),
    ("http response to https client", "registry_untrusted"),
)
_IMAGE_STATUSES = {400: "bad_request", 403: "forbidden", 404: "no_such_image", 409: "image_in_use"}
IMAGE_REMEDIES = {
    "no_space": "make room on the host: `fleet image list` shows what there is, `fleet image rm` removes it",
    "unauthorized": "is its name right? else log in on the host (`docker login`), as the user that runs the worker",
    "too_many_requests": "the registry takes no more for now; try again later, or log in on the host (`docker login`)",
    "no_such_image": "check name and tag; `fleet image list` shows what the host has",
    "no_such_platform": "the registry has it for other machines only; name one with --platform",
    "registry_unreachable": "can the host reach its registry? try again when it can",
    "registry_untrusted": "the host does not trust its registry; its Engine's settings say which it does",
    "image_in_use": "remove the containers that use it, or its other names, first; --force removes it all the same",
    "bad_request": "an image is named [registry/]repository[:tag][@digest]",
}


def of_image(status: int, said: str) -> str:
    """Return the kind of a refusal about an image; 0 is the status of one in a stream."""
    lowered = said.lower()
    for words, kind in _IMAGE_WORDS:
        if words in lowered:
            return kind
    return _IMAGE_STATUSES.get(status, "engine_error")


def about_image(image: str, said: str, *, status: int = 0) -> errors.EngineRefused:
    """Return the refusal of an image as an error; without a status, of one in a stream."""
    kind = of_image(status, said)
    return errors.EngineRefused(f"image {image!r}: {said}", kind=kind, remedy=IMAGE_REMEDIES.get(kind, ""))


def of_call(status: int, said: str, kinds: Mapping[int, str]) -> str:
    """Return the kind of a refusal, where its words or its status among `kinds` say it; empty where neither does."""
    return next((kind for words, kind in _WORDS.items() if words in said), "") or kinds.get(status, "")


def by_status(status: int) -> str:
    """Return the kind of a refusal of which nothing else is known."""
    return _KINDS.get(status, "engine_error")


def unavailable(url: str, exc: BaseException) -> errors.EngineUnavailable:
    """Return what to say of an Engine that did not answer."""
    cause = innermost(exc)
    remedy = "is it running? FLEET_DOCKER_URL or DOCKER_HOST says where it is"
    if isinstance(cause, PermissionError):
        remedy = "let the worker's user open the socket: add it to the group that owns it, often `docker`"
    elif not url.startswith(("unix://", "tcp://", "http://", "https://")):
        remedy = "write FLEET_DOCKER_URL or DOCKER_HOST as unix:///PATH or tcp://HOST:PORT"
    said = str(cause) or type(cause).__name__
    return errors.EngineUnavailable(f"the Docker Engine at {url} does not answer ({said})", remedy=remedy)


def innermost(exc: BaseException) -> BaseException:
    """Return the first reason: docker-py and requests wrap a refused connection four times."""
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc
