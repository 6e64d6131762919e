"""Calls of the Engine's API: each goes to the path that was meant, or nowhere.

Names that somebody asks for are parts of paths, and a path can be taken for another one in three places: requests
resolves `..` before it sends, the Engine's router answers such a path with a redirect, and requests follows that with
the same method. Whoever may remove an image could so remove a container. Here neither is sent nor followed.
"""

from typing import Any
from urllib.parse import quote, unquote, urlsplit

import docker
import requests

from fleet import errors

_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})


def part(name: str) -> str:
    """Return a name as one part of a path, whatever it holds."""
    return quote(name, safe="")


def image_part(image: str) -> str:
    """Return an image's name as the parts of a path that it is."""
    return quote(image, safe="/:@")


class Api(docker.APIClient):
    """docker-py's client of the API; all of its calls, and Fleet's own, go through `request`."""

    def request(self, method: str, url: str, *args: Any, **more: Any) -> requests.Response:  # type: ignore[override]
        """Raise `errors.EngineRefused` of kind `bad_request` for a path that could be taken for another one, and of
        kind `redirected` where the Engine has another one in mind."""
        # Decoded, as the Engine's router does, and requests does with dots.
        path = unquote(urlsplit(url).path)
        if any(each in {"", ".", ".."} for each in path.split("/")[1:]):
            raise errors.EngineRefused(
                f"{path[:200]!r} is no path of the Engine's API",
                kind="bad_request",
                remedy="a name with an empty part, '.' or '..' is none of the Engine's",
            )
        response = super().request(method, url, *args, **{**more, "allow_redirects": False})
        if response.status_code in _REDIRECTS:
            response.close()
            raise errors.EngineRefused(
                f"the Engine answers {method} {path[:200]!r} with a redirect, which is not followed",
                kind="redirected",
                remedy="is FLEET_DOCKER_URL or DOCKER_HOST the Engine itself?",
            )
        return response


class Client(docker.DockerClient):
    """docker-py's client over `Api`."""

    def __init__(self, **settings: Any) -> None:
        self.api = Api(**settings)
