"""What the Engine says of an image that it cannot have, and what that means; sentences as real Engines said them."""

import pytest

from workers.host.containers import refusals


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, "manifest for nginx:none not found: manifest unknown: manifest unknown", "no_such_image"),
        (404, "No such image: nginx:none", "no_such_image"),
        (
            404,
            "pull access denied for x, repository does not exist or may require 'docker login': denied: requested",
            "unauthorized",
        ),
        (500, 'Head "https://r.example/v2/x/manifests/1": no basic auth credentials', "unauthorized"),
        (500, "unauthorized: authentication required", "unauthorized"),
        (
            500,
            'Get "https://r.example/v2/": dial tcp 192.0.2.1:443: connect: connection refused',
            "registry_unreachable",
        ),
        (500, 'Get "https://r.example/v2/": dial tcp: lookup r.example: no such host', "registry_unreachable"),
        (500, 'Get "https://r.example/v2/": net/http: TLS handshake timeout', "registry_unreachable"),
        (500, 'Get "http://127.0.0.1:35969/v2/": EOF', "registry_unreachable"),
        (500, 'Get "https://r.example/v2/": x509: certificate signed by unknown authority', "registry_untrusted"),
        (500, 'Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client', "registry_untrusted"),
        (0, "write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "no_space"),
        (0, "failed to register layer: ApplyLayer exit status 1: write /x: disk quota exceeded", "no_space"),
        (0, "toomanyrequests: You have reached your pull rate limit.", "too_many_requests"),
        (404, "no matching manifest for linux/s390x in the manifest list entries", "no_such_platform"),
        (409, "conflict: unable to remove repository reference (must force)", "image_in_use"),
        (400, "invalid reference format: repository name must be lowercase", "bad_request"),
        (500, "something else", "engine_error"),
        (0, "something else", "engine_error"),
    ],
)
def test_a_refusal_is_of_a_kind_and_has_a_way_out(status: int, said: str, kind: str) -> None:
    assert refusals.of_image(status, said) == kind
    assert kind == "engine_error" or refusals.IMAGE_REMEDIES[kind]
