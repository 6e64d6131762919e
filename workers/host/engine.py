"""The Docker Engine of this host: one client, every call bounded in time, every error translated."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import requests.exceptions

from fleet import errors

#: How long an ordinary call may take. A hung Engine costs a pool thread no more than this.
CALL_SECONDS = 10
#: The kind of an Engine's refusal by its HTTP status (Docker Engine API, v1.41).
_KINDS = {400: "bad_request", 404: "no_such_container", 409: "conflict", 500: "engine_error", 503: "engine_error"}


class Engine:
    """A client of one Engine. Thread-safe; it connects when it is first used, and again after a failure."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.RLock()
        self._client: docker.DockerClient | None = None

    @property
    def docker(self) -> docker.DockerClient:
        """The client of the docker package, for what Fleet has no words for; raises `errors.EngineUnavailable`."""
        with self._lock, self._translated():
            if self._client is None:
                self._client = docker.DockerClient(base_url=self.url, timeout=CALL_SECONDS)
            return self._client

    def version(self) -> str:
        """Return the Engine's version, such as "28.2.2"."""
        with self._translated():
            return str(self.docker.api.version(api_version=False)["Version"])

    def list_containers(self, *, everything: bool = True, docker_id: str | None = None) -> list[dict[str, Any]]:
        """Return the Engine's summaries of all containers (or the running ones), in one call."""
        filters = {"id": docker_id} if docker_id else None
        with self._translated():
            summaries: list[dict[str, Any]] = self.docker.api.containers(all=everything, filters=filters)
            return summaries

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all that the Engine knows of one container, by its name or (a prefix of) its id."""
        with self._translated(container):
            details: dict[str, Any] = self.docker.api.inspect_container(container)
            return details

    def start(self, container: str) -> None:
        """Start a container; one that runs is left as it is."""
        with self._translated(container):
            self.docker.api.start(container)

    def stop(self, container: str, *, timeout_seconds: int) -> None:
        """Stop a container, and kill it after `timeout_seconds`; one that does not run is left as it is."""
        with self._translated(container):
            self.docker.api.stop(container, timeout=timeout_seconds)

    def restart(self, container: str, *, timeout_seconds: int) -> None:
        """Stop (as above) and start a container."""
        with self._translated(container):
            self.docker.api.restart(container, timeout=timeout_seconds)

    def events(self) -> "EventStream":
        """Open the stream of container events from now on; raises `errors.EngineUnavailable`."""
        with self._translated():
            return EventStream(self.docker.api.events(filters={"type": "container"}, decode=True))

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextmanager
    def _translated(self, container: str = "") -> Iterator[None]:
        try:
            yield
        except docker.errors.APIError as exc:
            status = exc.status_code
            kind = _KINDS.get(status or 500, "engine_error")
            said = exc.explanation or str(exc)
            remedy = "`fleet ps` shows what there is" if kind == "no_such_container" else ""
            prefix = f"container {container!r}: " if container else ""
            raise errors.EngineRefused(f"{prefix}{said}", kind=kind, remedy=remedy) from exc
        except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
            self.close()  # the next call begins anew, with the version that a new Engine speaks
            raise errors.EngineUnavailable(
                f"the Docker Engine at {self.url} does not answer ({_cause(exc)})",
                remedy="is it running? FLEET_DOCKER_URL or DOCKER_HOST says where it is",
            ) from exc


class EventStream:
    """Container events as they come; `close` from any thread ends the iteration."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield events until the Engine ends the stream, or `close`."""
        try:
            yield from self._stream
        except Exception:
            # What a socket closed under its reader raises differs by where it was; any other failure ends the stream
            # just so, and the reader opens the next one.
            if not self._closed:
                raise

    def close(self) -> None:
        self._closed = True
        self._stream.close()


def _cause(exc: BaseException) -> str:
    """Return the innermost reason: docker-py and requests wrap a refused connection four times."""
    while exc.__context__ is not None or exc.__cause__ is not None:
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]
    return str(exc) or type(exc).__name__
