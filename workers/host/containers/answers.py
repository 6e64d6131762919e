"""Answers: what the Engine says bit by bit (logs, a pull), read by one thread, and ended by any."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import docker.errors
import requests
from docker.types import CancellableStream

from fleet import errors


class Silent(errors.EngineUnavailable):
    """Nothing was heard for as long as a bit is waited for; the Engine may be well, and have nothing to say."""


class Answer:
    """One answer. Iterating yields bytes as they come, until its end or `close`."""

    def __init__(
        self, response: requests.Response, *, unavailable: Callable[[BaseException], errors.EngineUnavailable]
    ) -> None:
        """Raise docker-py's `APIError` where the Engine refuses; `unavailable` makes the error of one that is away."""
        try:
            response.raise_for_status()
        except requests.HTTPError as exc:
            docker.errors.create_api_error_from_http_exception(exc)
        self._response = response
        self._unavailable = unavailable
        self._closed = False
        #: knows where the socket is
        self._ending = CancellableStream(iter(()), response)

    def __iter__(self) -> Iterator[bytes]:
        """Yield what comes; raises `Silent`, `errors.EngineUnavailable` where it breaks off."""
        try:
            for chunk in self._response.iter_content(chunk_size=None):
                if chunk:
                    yield chunk
        except (requests.RequestException, OSError, AttributeError, ValueError) as exc:
            # AttributeError, ValueError: how urllib3 meets a connection that was closed under its reader
            if self._closed:
                return
            if _is_silence(exc):
                raise Silent(
                    "the Docker Engine has fallen silent", remedy="is it well? `docker ps` on the host"
                ) from exc
            if isinstance(exc, (AttributeError, ValueError)):
                raise
            raise self._unavailable(exc) from exc
        finally:
            self._response.close()

    def close(self) -> None:
        """End the reading, and the call; harmless when called twice, or after the end."""
        self._closed = True
        with suppress(OSError, AttributeError, docker.errors.DockerException):  # the connection has ended already
            self._ending.close()


def _is_silence(exc: BaseException | None) -> bool:
    while exc is not None and not isinstance(exc, TimeoutError):
        exc = exc.__cause__ or exc.__context__
    return exc is not None
