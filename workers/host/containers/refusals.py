"""Refusals: what the Engine's errors about images mean, and what to do next.

A status says little: the Engine answers 500 for everything that its registry, its network or its disk refuses, and
within a stream it gives a sentence alone. So those few are recognised by words in it that are not the Engine's own: the
registry protocol's (distribution, registry/api/errcode), the kernel's, and Go's network package's.
"""

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
