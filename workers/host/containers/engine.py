"""The Docker Engine of this host: every call bounded in time, every error translated.

Owns the connections to the Engine; they are made when first used, and again after a failure. Promises that an ordinary
call ends within 10 s whatever the Engine does, that any number of threads may call at once without waiting for each
other, and that callers meet Fleet's errors only. The Engine's answers are passed on as they are; `containers.py` puts
them into Fleet's words.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import docker
import requests
from docker.errors import APIError, DockerException, create_api_error_from_http_exception

from fleet import errors
from workers.host.containers import calls, refusals
from workers.host.containers.answers import Answer
from workers.host.containers.events import EventStream, open_stream
from workers.host.containers.starts import StartTimes

#: First contact (which version of the API is spoken) and the call that follows: 10 s together, so that a hung Engine
#: costs a pool thread no more than that.
GREETING_SECONDS = 3
CALL_SECONDS = 7
#: What the Engine may need on top of the time that a container has to stop in: it kills the container then, and waits
#: up to 10 s for its end (moby, daemon/kill.go).
STOP_MARGIN_SECONDS = 15

_FULL_ID_LENGTH = 64


class _Link(NamedTuple):
    """The clients of one Engine; `patient` waits for containers to stop."""

    client: docker.DockerClient
    patient: docker.APIClient

    def close(self) -> None:
        self.client.close()
        self.patient.close()


class Engine:
    """One Engine, by its URL (unix:///path or tcp://host:port)."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: whether the Engine answered the latest call; None before the first
        self.reachable: bool | None = None
        #: when it answered last (monotonic)
        self.answered_at: float | None = None
        #: when containers were started; remembered while a stream of `events` is read
        self.starts = StartTimes(self.inspect)
        self._lock = threading.Lock()
        self._link: _Link | None = None

    @property
    def docker(self) -> docker.DockerClient:
        """The client of the docker package, for what Fleet has no words for; raises `errors.EngineUnavailable`."""
        with self._translated():
            return self._connected().client

    def version(self) -> str:
        """Return the Engine's version, such as "28.2.2"."""
        with self._translated():
            return str(self._connected().client.api.version(api_version=False)["Version"])

    def list_containers(self, *, everything: bool = True, docker_id: str | None = None) -> list[dict[str, Any]]:
        """Return the Engine's summaries of all containers (or the running ones), in one call."""
        filters = {"id": docker_id} if docker_id else None
        with self._translated():
            summaries: list[dict[str, Any]] = self._connected().client.api.containers(all=everything, filters=filters)
            return summaries

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all that the Engine knows of one container, by its name or (a prefix of) its id."""
        with self._translated(container):
            details: dict[str, Any] = self._connected().client.api.inspect_container(container)
            return details

    def start(self, container: str) -> None:
        """Start a container; one that runs is left as it is."""
        with self._translated(container):
            self._connected().client.api.start(container)

    def stop(self, container: str, *, timeout_seconds: int) -> None:
        """Stop a container, and kill it after `timeout_seconds`; one that does not run is left as it is."""
        with self._translated(container):
            self._connected().patient.stop(container, timeout=timeout_seconds)

    def restart(self, container: str, *, timeout_seconds: int) -> None:
        """Stop (as above) and start a container."""
        with self._translated(container):
            self._connected().patient.restart(container, timeout=timeout_seconds)

    def wait(self, container: str, *, seconds: float) -> dict[str, Any] | None:
        """Wait until a container does not run and return the Engine's word on its end; None if it ran on so long."""
        with self._translated(container):
            path, ended = f"/containers/{calls.part(container)}/wait", None
            try:
                ended = self._send("POST", path, {"condition": "not-running"}, None, seconds)
            except requests.RequestException as exc:
                if not isinstance(refusals.innermost(exc), TimeoutError):
                    raise
            return ended

    def archive(self, container: str, path: str, *, most: int) -> bytes:
        """Return a file of a container as a tar archive, the first `most` bytes of it; a link is not followed."""
        archive = bytearray()
        with self._translated(container):
            chunks, _stat = self._connected().client.api.get_archive(container, path)
            for chunk in chunks:
                archive += chunk
                if len(archive) > most:
                    break
        return bytes(archive[:most])

    def ask(
        self,
        method: str,
        path: str,
        *,
        about: str = "",
        container: str = "",
        kinds: Mapping[int, str] = MappingProxyType({}),
        parameters: Mapping[str, Any] = MappingProxyType({}),
        body: Any = None,
        seconds: float = CALL_SECONDS,
    ) -> Any:
        """Make one call of the Engine's API and return its answer, None where it has none; raises Fleet's errors.

        `about` begins the message of a refusal, `kinds` says what the statuses of this call mean. `container` is what a
        caller named, of which it is found out what is wrong with it.
        """
        with self._translated(container, about=about, kinds=kinds):
            return self._send(method, path, parameters, body, seconds)

    def events(self) -> EventStream:
        """Open the stream of changes from now on; whoever opens it looks once after that, and misses nothing."""
        with self._translated():
            return open_stream(self._connected().client.api, self.starts, greeting_seconds=CALL_SECONDS)

    def past_events(self, action: str, *, since: float) -> list[dict[str, Any]]:
        """Return what the Engine remembers of one action on containers since a moment (unix seconds): the last 256
        events of all, and none from before its start."""
        filters = json.dumps({"type": ["container"], "event": [action]})
        parameters = {"filters": filters, "since": f"{since:.9f}", "until": f"{time.time():.9f}"}
        with self._translated():
            text: bytes | None = self._send("GET", "/events", parameters, None, CALL_SECONDS, read=bytes)
            return [json.loads(line) for line in (text or b"").splitlines() if line]

    @contextmanager
    def asking(self, *, image: str = "") -> Iterator[Any]:
        """Give the client for an ordinary call, bounded in time, with errors translated; `image` is its subject."""
        with self._translated(image=image):
            yield self._connected().client.api

    def open(
        self,
        method: str,
        path: str,
        *,
        silence_seconds: float,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        container: str = "",
        image: str = "",
    ) -> Answer:
        """Begin a call that is answered bit by bit, and return the answer, to be read and closed.

        Neither the beginning nor a bit of it is waited for longer than `silence_seconds`.
        """
        with self._translated(container, image=image):
            api = self._connected().client.api
            response = api.request(
                method,
                f"{api.base_url}/v{api.api_version}{path}",
                params=params,
                headers=headers,
                stream=True,
                timeout=(CALL_SECONDS, silence_seconds),
            )
            return Answer(response, unavailable=partial(refusals.unavailable, self.url))

    def close(self) -> None:
        """Let go of all connections; the next call makes new ones."""
        self._drop(self._link)

    def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        body: Any,
        seconds: float,
        *,
        read: Callable[[bytes], Any] = json.loads,
    ) -> Any:
        api = self._connected().client.api
        response = api.request(
            method,
            f"{api.base_url}/v{api.api_version}{path}",
            params=dict(parameters),
            json=body,
            timeout=(GREETING_SECONDS, seconds),
        )
        try:
            response.raise_for_status()
        except requests.HTTPError as exc:
            create_api_error_from_http_exception(exc)
        return read(response.content) if response.content else None

    def _connected(self) -> _Link:
        if (link := self._link) is not None:
            return link
        # Outside the lock, so that a hung Engine costs each of its callers a time-out, and not one after the other.
        client = calls.Client(base_url=self.url, version="auto", timeout=GREETING_SECONDS)
        client.api.timeout = CALL_SECONDS
        patient = calls.Api(base_url=self.url, version=client.api.api_version, timeout=STOP_MARGIN_SECONDS)
        made = _Link(client, patient)
        with self._lock:
            if self._link is None:
                self._link = made
            link = self._link
        if link is not made:
            made.close()
        return link

    def _drop(self, link: _Link | None) -> None:
        """Let go of `link`, unless another thread has made a new one by now."""
        with self._lock:
            if link is None or self._link is not link:
                return
            self._link = None
        link.close()

    @contextmanager
    def _translated(
        self,
        container: str = "",
        *,
        about: str = "",
        image: str = "",
        kinds: Mapping[int, str] = MappingProxyType({}),
    ) -> Iterator[None]:
        link = self._link
        try:
            yield
        except APIError as exc:
            self._answers()
            raise self._refusal(exc, container, image, about, kinds) from exc
        except (DockerException, requests.RequestException, OSError, LookupError, TypeError, ValueError) as exc:
            # The last three: docker-py met an answer that no Engine gives, or a URL that is none.
            self.reachable = False
            if not isinstance(exc, requests.Timeout):  # a new Engine may speak another version; a slow one does not
                self._drop(link)
            raise refusals.unavailable(self.url, exc) from exc
        else:
            self._answers()

    def _answers(self) -> None:
        self.reachable, self.answered_at = True, time.monotonic()

    def _refusal(
        self, exc: APIError, container: str, image: str, about: str, kinds: Mapping[int, str]
    ) -> errors.EngineRefused:
        status, said = exc.status_code or 500, exc.explanation or str(exc)
        if image:
            return refusals.about_image(image, said, status=status)
        kind = refusals.of_call(status, said, kinds)
        if not kind and container and status in refusals.VAGUE:
            kind = self._kind_by_what_there_is(container, status)
        if container and not about:
            about = f"container {container if len(container) < _FULL_ID_LENGTH else container[:12]!r}"
        kind = kind or refusals.by_status(status)
        message, remedy = f"{about}: {said}" if about else said, refusals.REMEDIES.get(kind, "")
        return errors.EngineRefused(message, kind=kind, remedy=remedy)

    def _kind_by_what_there_is(self, container: str, status: int) -> str:
        """Return what is wrong with a reference, by the containers there are; empty where nothing is."""
        try:
            summaries = self._connected().client.api.containers(all=True)
        except (DockerException, requests.RequestException, OSError):
            return ""  # the refusal itself is worth more than the failure to explain it
        if any(s["Id"] == container or f"/{container}" in (s.get("Names") or ()) for s in summaries):
            matching = 1
        else:
            matching = sum(s["Id"].startswith(container) for s in summaries)
        if matching > 1:
            return "ambiguous"
        if status == 404:
            return "not_found" if matching else "no_such_container"
        return ""
